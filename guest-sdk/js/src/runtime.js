// Parts of the usual runtime that QuickJS lacks: random numbers, `console`, and `crypto` for random values. An engine that has
// one of them keeps it.
import * as randomImports from "wasi:random/random@0.2.0";
import * as stderrImports from "wasi:cli/stderr@0.2.0";
import { isQuickJs, wide } from "./engine.js";
import { encode } from "./utf8.js";

const random = randomImports.default ?? randomImports;
const stderr = stderrImports.default ?? stderrImports;

/** Bytes that one call to the host brings. */
const POOL = 4096;
let pool = new Uint8Array(0);

/** Random bytes of the host. Each run gets others. */
function randomBytes(count) {
  if (count > POOL) return random.getRandomBytes(wide(count));
  if (pool.length < count) pool = random.getRandomBytes(wide(POOL));
  const bytes = pool.subarray(0, count);
  pool = pool.subarray(count);
  return bytes;
}

/** A number from 0 to below 1, of 53 random bits. */
function randomNumber() {
  const [a, b, c, d, e, f, g] = randomBytes(7);
  const high = ((a & 0x1f) * 256 + b) * 65536 + c * 256 + d;
  return (high * 0x1000000 + e * 65536 + f * 256 + g) / 2 ** 53;
}

const crypto = {
  getRandomValues(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    bytes.set(randomBytes(bytes.length));
    return array;
  },
  randomUUID() {
    const bytes = Uint8Array.from(randomBytes(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

/** A value as people read it. */
function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.name}: ${value.message}\n${value.stack ?? ""}`.trimEnd();
  try {
    return (typeof value === "object" && JSON.stringify(value)) || String(value);
  } catch {
    return String(value);
  }
}

/** Bytes that one write takes. */
const WRITE = 4096;

function print(...values) {
  const bytes = encode(`${values.map(shown).join(" ")}\n`);
  const stream = stderr.getStderr();
  for (let at = 0; at < bytes.length; at += WRITE) stream.blockingWriteAndFlush(bytes.subarray(at, at + WRITE));
  stream[Symbol.dispose]?.();
}

const ownPromise = Promise;
const promiseThen = Promise.prototype.then;

const THEN = "a promise is not awaited in an agent: its callbacks would never be called";
const AWAIT =
  "a promise was awaited in an agent: what follows the await never ran. " +
  "Use functions that are not async";

/** Refuses callbacks of a promise, which would never be called, without a word. */
function then(...callbacks) {
  if (running) {
    refusal = THEN;
    throw new Error(THEN);
  }
  return promiseThen.apply(this, callbacks);
}

/** Notes a promise that is awaited: `await` and the like ask it for its constructor. */
function constructorOf() {
  if (running) refusal ??= AWAIT;
  return ownPromise;
}

let running = false;
let refusal;

/**
 * Runs an agent's function. Where the engine never calls the callbacks of promises, a run that needs
 * one fails: what was thrown may be in a promise, where nothing sees it.
 */
export function inRun(run) {
  running = true;
  refusal = undefined;
  try {
    const returned = run();
    if (refusal !== undefined && typeof returned?.then !== "function") throw new Error(refusal);
    return returned;
  } finally {
    running = false;
  }
}

if (isQuickJs) {
  Math.random = randomNumber;
  Promise.prototype.then = then;
  const asked = { configurable: true, get: constructorOf };
  Object.defineProperty(Promise.prototype, "constructor", asked);
}
globalThis.crypto ??= crypto;
globalThis.console ??= { log: print, info: print, warn: print, error: print, debug: print, trace: print };
