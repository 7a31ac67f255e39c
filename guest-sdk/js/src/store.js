// One call to the store each.
import { narrow, some, store, wide } from "./engine.js";
import { call, PersistError } from "./error.js";
import { decode, encode } from "./utf8.js";

export function limits() {
  const raw = store.limits();
  return Object.fromEntries(Object.entries(raw).map(([limit, value]) => [limit, narrow(value)]));
}

export function save(name, state, options) {
  return infoOf(call(() => store.save(name, bytesOf(state), rawOptions(options))));
}

export function saveJson(name, value, options) {
  const text = JSON.stringify(value);
  if (text === undefined) throw new PersistError("invalid", { detail: "a function or undefined is no JSON" });
  return save(name, text, { mediaType: "application/json", ...options });
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
  const loaded = call(() => store.load(name, rawVersion(at)));
  return loaded ? { info: infoOf(loaded.info), state: Uint8Array.from(loaded.state) } : undefined;
}

export function stat(name, at) {
  const info = call(() => store.stat(name, rawVersion(at)));
  return info ? infoOf(info) : undefined;
}

export function historyPage(name, before, limit) {
  return call(() => store.history(name, rawVersion(before), limit)).map(infoOf);
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
  return Array.from(call(() => store.names(prefix, some(after), limit)));
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

export function del(name, { expect } = {}) {
  return infoOf(call(() => store.delete(name, rawExpect(expect))));
}

export function restore(name, version, { expect } = {}) {
  return infoOf(call(() => store.restore(name, wide(version), rawExpect(expect))));
}

export function fork(name, newName, { at, expect } = {}) {
  return infoOf(call(() => store.fork(name, rawVersion(at), newName, rawExpect(expect))));
}

/** A state as bytes. */
export function bytesOf(state) {
  if (typeof state === "string") return encode(state);
  if (state instanceof Uint8Array) return state;
  if (state instanceof ArrayBuffer) return new Uint8Array(state);
  throw new PersistError("invalid", { detail: "a state is a Uint8Array, an ArrayBuffer or a string" });
}

export const rawVersion = (version) => some(version === undefined || version === null ? undefined : wide(version));

export function rawOptions({ expect, mediaType, labels } = {}) {
  return {
    expect: rawExpect(expect),
    mediaType: some(mediaType),
    labels: Object.entries(labels ?? {}).map(([key, value]) => [key, String(value)]),
  };
}

function rawExpect(expect = "any") {
  if (expect === "any" || expect === "absent") return { tag: expect };
  if (Number.isSafeInteger(expect) && expect >= 0) return { tag: "version", val: wide(expect) };
  throw new PersistError("invalid", { detail: 'expect is "any", "absent" or the number of a version' });
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
