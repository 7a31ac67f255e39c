// What an agent passes is checked here, once for all calls: what the contract has no place for would end the agent in a trap.
import { PersistError } from "./error.js";

/** Throws what can be caught. */
export function refuse(detail) {
  throw new PersistError("invalid", { detail });
}

/** What a value is, for people. */
function kind(value) {
  if (typeof value === "number" || value === null) return String(value);
  return typeof value === "object" ? (value.constructor?.name ?? "object") : typeof value;
}

export const isPlain = (value) =>
  typeof value === "object" && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value));

// The host ends an agent that passes more than a call carries. It takes far less for a text, and says so.
const LONGEST_TEXT = 65536;
const MOST_LABELS = 1024;

export function text(value, what) {
  if (typeof value !== "string") refuse(`${what} is a string, not ${kind(value)}`);
  if (value.length > LONGEST_TEXT) refuse(`${what} has ${value.length} characters; at most ${LONGEST_TEXT} are allowed`);
  if (!value.isWellFormed()) refuse(`${what} has half of a surrogate pair, which is no character`);
  return value;
}

/** A whole number that the contract has room for. */
export function whole(value, what, max = Number.MAX_SAFE_INTEGER) {
  if (!Number.isSafeInteger(value) || value < 0 || value > max) {
    refuse(`${what} is a whole number from 0 to ${max}, not ${kind(value)}`);
  }
  return value;
}

export const version = (value) => whole(value, "a version");
export const limit = (value) => whole(value, "a limit", 0xffffffff);

/** A value that may be missing. */
export const optional = (check, value, what) => (value === undefined || value === null ? undefined : check(value, what));

/** Options, of which these are known. */
export function options(given, known) {
  if (given === undefined || given === null) return {};
  if (!isPlain(given)) refuse(`options are an object, not ${kind(given)}`);
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  if (unknown !== undefined) refuse(`there is no option ${unknown}, only ${known.join(", ")}`);
  return given;
}

/** Labels as pairs. */
export function labels(given) {
  if (given === undefined || given === null) return [];
  if (!isPlain(given)) refuse(`labels are an object, not ${kind(given)}`);
  const entries = Object.entries(given);
  if (entries.length > MOST_LABELS) refuse(`there are ${entries.length} labels; at most ${MOST_LABELS} are allowed`);
  return entries.map(([key, value]) => {
    const words = typeof value === "number" ? String(value) : value;
    return [text(key, "the key of a label"), text(words, "the value of a label")];
  });
}
