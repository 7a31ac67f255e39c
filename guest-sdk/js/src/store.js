// One call to the store each.
import * as check from "./check.js";
import { narrow, some, store, wide } from "./engine.js";
import { call } from "./error.js";
import { decode, encode } from "./utf8.js";

export function limits() {
  const raw = store.limits();
  return Object.fromEntries(Object.entries(raw).map(([limit, value]) => [limit, narrow(value)]));
}

export function save(name, state, options) {
  const raw = rawOptions(options);
  return infoOf(call(() => store.save(rawName(name), bytesOf(state), raw)));
}

export function saveJson(name, value, options) {
  const text = JSON.stringify(value);
  if (text === undefined) check.refuse("a function or undefined is no JSON");
  return save(name, text, { mediaType: "application/json", ...check.options(options, SAVE_OPTIONS) });
}

export const load = (name) => loadSnapshot(name)?.state;

export function loadText(name) {
  const state = load(name);
  return state && decode(state);
}

export function loadJson(name) {
  const text = loadText(name);
  return text === undefined ? undefined : JSON.parse(text);
}

export function loadSnapshot(name, at) {
  const loaded = call(() => store.load(rawName(name), rawVersion(at)));
  return loaded ? { info: infoOf(loaded.info), state: Uint8Array.from(loaded.state) } : undefined;
}

export function stat(name, at) {
  const info = call(() => store.stat(rawName(name), rawVersion(at)));
  return info ? infoOf(info) : undefined;
}

export function historyPage(name, before, limit) {
  return call(() => store.history(rawName(name), rawVersion(before), check.limit(limit))).map(infoOf);
}

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
  const { expect } = check.options(options, ["expect"]);
  return infoOf(call(() => store.delete(rawName(name), rawExpect(expect))));
}

export function restore(name, version, options) {
  const { expect } = check.options(options, ["expect"]);
  return infoOf(call(() => store.restore(rawName(name), wide(check.version(version)), rawExpect(expect))));
}

export function fork(name, newName, options) {
  const { at, expect } = check.options(options, ["at", "expect"]);
  return infoOf(call(() => store.fork(rawName(name), rawVersion(at), rawName(newName), rawExpect(expect))));
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
  const { expect, mediaType, labels } = check.options(options, SAVE_OPTIONS);
  return {
    expect: rawExpect(expect),
    mediaType: some(check.optional(check.text, mediaType, "a media type")),
    labels: check.labels(labels),
  };
}

function rawExpect(expect = "any") {
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
