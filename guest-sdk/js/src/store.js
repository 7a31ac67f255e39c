// One call to the store each.
import * as check from "./check.js";
import { narrow, some, store, wide } from "./engine.js";
import { call, PersistError } from "./error.js";
import { decode, encode } from "./utf8.js";

export function limits() {
  const raw = store.limits();
  return Object.fromEntries(Object.entries(raw).map(([limit, value]) => [limit, narrow(value)]));
}

export function save(name, state, options) {
  const raw = rawOptions(options);
  const bytes = bytesOf(state);
  // The host ends an agent that passes much more than one call carries.
  maxInline ??= limits().maxInline;
  if (bytes.length > maxInline) throw new PersistError("too-large", { size: bytes.length });
  return infoOf(call(() => store.save(rawName(name), bytes, raw)));
}

let maxInline;

/** For tests, which change them. A host never does within a run. */
export function forgetLimits() {
  maxInline = undefined;
}

export function saveJson(name, value, options) {
  const text = JSON.stringify(value);
  if (text === undefined) check.refuse("a function or undefined is no JSON");
  return save(name, text, { mediaType: "application/json", ...check.options(options, SAVE_OPTIONS) });
}

/** Attempts of an update, which are conflicts but for the last. */
export const ATTEMPTS = 10;

export function update(name, change, initial, options) {
  if (typeof change !== "function") check.refuse("an update takes a function");
  const given = check.options(options, ["mediaType", "labels"]);
  for (let attempt = 1; ; attempt++) {
    const loaded = loadSnapshot(name);
    const known = loaded ? parse(decode(loaded.state), loaded.info) : copyOf(initial);
    const before = jsonOf(known);
    const returned = change(known);
    if (typeof returned?.then === "function") check.refuse("the function of an update is not async");
    if (returned === undefined && known === undefined) {
      check.refuse("nothing was saved, and the function returned nothing: return the value, or give an initial one");
    }
    const value = returned === undefined ? known : returned;
    if (jsonOf(value) === before) return value;
    const expect = loaded ? loaded.info.version : "absent";
    try {
      saveJson(name, value, { ...given, expect });
      return value;
    } catch (error) {
      if (error.code !== "conflict" || attempt === ATTEMPTS) throw error;
    }
  }
}

export const copyOf = (value) => (value === undefined ? undefined : JSON.parse(jsonOf(value)));

export function jsonOf(value) {
  const text = JSON.stringify(value);
  return text === undefined && value !== undefined ? check.refuse("a function is no JSON") : text;
}

/** The value of a state. The error names the version that has none. */
export function parse(text, { name, version }) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PersistError("unreadable", { name, version, detail: error.message });
  }
}

export const load = (name) => loadSnapshot(name)?.state;

export function loadText(name) {
  const state = load(name);
  return state && decode(state);
}

export function loadJson(name) {
  const loaded = loadSnapshot(name);
  return loaded && parse(decode(loaded.state), loaded.info);
}

export function loadSnapshot(name, at) {
  const loaded = call(() => store.load(rawName(name), rawVersion(at)));
  return loaded ? { info: infoOf(loaded.info), state: new Uint8Array(loaded.state) } : undefined;
}

export function stat(name, at) {
  const info = call(() => store.stat(rawName(name), rawVersion(at)));
  return info ? infoOf(info) : undefined;
}

export function historyPage(name, before, limit) {
  return call(() => store.history(rawName(name), rawVersion(before), check.limit(limit))).map(infoOf);
}

export const head = (name) => stat(name)?.version ?? "absent";

export function* history(name) {
  let before;
  for (;;) {
    const page = historyPage(name, before, limits().maxPage);
    if (page.length === 0) return;
    yield* page;
    before = page.at(-1).version;
  }
}

export function namesPage(prefix, after, limit) {
  const from = some(check.optional(check.text, after, "a name"));
  return Array.from(call(() => store.names(check.text(prefix, "a prefix"), from, check.limit(limit))));
}

export function* names(prefix = "") {
  let after;
  for (;;) {
    const page = namesPage(prefix, after, limits().maxPage);
    if (page.length === 0) return;
    yield* page;
    after = page.at(-1);
  }
}

export function del(name, options) {
  const raw = rawExpect(check.options(options, ["expect"]));
  return infoOf(call(() => store.delete(rawName(name), raw)));
}

export function restore(name, version, options) {
  const raw = rawExpect(check.options(options, ["expect"]));
  return infoOf(call(() => store.restore(rawName(name), wide(check.version(version)), raw)));
}

export function fork(name, newName, options) {
  const given = check.options(options, ["at", "expect"]);
  const raw = rawExpect(given);
  return infoOf(call(() => store.fork(rawName(name), rawVersion(given.at), rawName(newName), raw)));
}

/** A state as bytes. */
export function bytesOf(state) {
  if (typeof state === "string") return encode(state);
  if (state instanceof Uint8Array) return state;
  if (state instanceof ArrayBuffer) return new Uint8Array(state);
  return check.refuse("a state is a Uint8Array, an ArrayBuffer or a string");
}

export const rawName = (name) => check.text(name, "a name");

export function rawVersion(version) {
  const number = check.optional(check.version, version);
  return some(number === undefined ? undefined : wide(number));
}

const SAVE_OPTIONS = ["expect", "mediaType", "labels"];

export function rawOptions(options) {
  const given = check.options(options, SAVE_OPTIONS);
  const { mediaType, labels } = given;
  return {
    expect: rawExpect(given),
    mediaType: some(check.optional(check.text, mediaType, "a media type")),
    labels: check.labels(labels),
  };
}

/** The expectation of options. One that is undefined is a mistake: it would be "any", and undo what another run saved. */
function rawExpect(options) {
  if (!("expect" in options)) return { tag: "any" };
  const { expect } = options;
  if (expect === undefined || expect === null) {
    check.refuse(`expect is ${expect}; use "absent" where nothing was saved, or head(name)`);
  }
  if (expect === "any" || expect === "absent") return { tag: expect };
  if (Number.isSafeInteger(expect) && expect >= 0) return { tag: "version", val: wide(expect) };
  return check.refuse('expect is "any", "absent" or the number of a version');
}

export function infoOf(raw) {
  return {
    name: raw.name,
    version: narrow(raw.version),
    parent: raw.parent === undefined || raw.parent === null ? undefined : narrow(raw.parent),
    deleted: raw.deleted,
    size: narrow(raw.size),
    storedSize: narrow(raw.storedSize),
    sha256: raw.sha256,
    createdAt: new Date(narrow(raw.createdAt)),
    mediaType: raw.mediaType ?? undefined,
    labels: Object.fromEntries(raw.labels),
  };
}
