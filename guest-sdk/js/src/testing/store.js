// A host in memory, for tests without WebAssembly: the contract's imports, with the values that SpiderMonkey has for them.
import { createHash } from "node:crypto";

/** Bytes of labels and media type together, as a host has it. */
const MAX_LABEL_BYTES = 8 * 1024;

const LIMITS = { maxInline: 16n << 20n, maxChunk: 1 << 20, maxState: 1n << 30n, maxName: 200, maxPage: 100 };

/** Versions of each name, of which version `n` is item `n - 1`: nothing is pruned. */
let saved = new Map();
let allowed = LIMITS;
let failure;

export function reset() {
  saved = new Map();
  allowed = LIMITS;
  failure = undefined;
}

export function setLimits(changes) {
  const wide = (key, value) => (typeof LIMITS[key] === "bigint" ? BigInt(value) : value);
  allowed = { ...allowed, ...Object.fromEntries(Object.entries(changes).map(([key, value]) => [key, wide(key, value)])) };
}

export function failNext(error) {
  failure = error;
}

/** What an engine throws for a case of the contract. */
function fail(tag, val) {
  throw { payload: { tag, val } };
}

const invalid = (rule) => fail("invalid", rule);

/** Every call begins here, so that none escapes `failNext`. */
function begin() {
  const error = failure;
  failure = undefined;
  if (error) throw error;
}

const versionsOf = (name) => saved.get(name) ?? [];
const sizeOf = (text) => new TextEncoder().encode(text).length;

function find(name, at) {
  checkName(name);
  const versions = versionsOf(name);
  if (at === undefined) return versions.at(-1);
  return versions[Number(at) - 1] ?? fail("not-found");
}

function findState(name, at) {
  const found = find(name, at);
  return found?.info.deleted ? undefined : found;
}

function commit(name, { expect, mediaType, labels }, state, deleted = false) {
  checkExpect(name, expect);
  const versions = versionsOf(name);
  const info = {
    name,
    version: BigInt(versions.length + 1),
    parent: versions.length ? BigInt(versions.length) : undefined,
    deleted,
    size: BigInt(state.length),
    storedSize: BigInt(state.length),
    sha256: createHash("sha256").update(state).digest("hex"),
    createdAt: BigInt(Date.now()),
    mediaType,
    labels,
  };
  saved.set(name, [...versions, { info, state: Uint8Array.from(state) }]);
  return info;
}

/** How to save a state again: with what its author gave, and where it is from. */
function again({ info }, expect, key, value) {
  const own = info.labels.filter(([label]) => !label.startsWith("persist."));
  return { expect, mediaType: info.mediaType, labels: [...own, [key, value]] };
}

function checkExpect(name, expect) {
  const head = versionsOf(name).at(-1)?.info;
  const holds = {
    any: () => true,
    absent: () => !head || head.deleted,
    version: () => head?.version === expect.val,
  };
  if (!holds[expect.tag]()) fail("conflict", head?.version);
}

/** A host counts the bytes of a name in its key, where all but the plainest cost three. */
function checkName(name) {
  if (name === "") invalid("a name is empty; the minimum is one byte");
  const control = /[\0-\x1f\x7f-\x9f]/.exec(name);
  if (control) {
    const code = control[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    invalid(`a name contains the control character U+${code}`);
  }
  const cost = Array.from(new TextEncoder().encode(name), (byte, at) => {
    const character = String.fromCharCode(byte);
    return /[a-z0-9_-]/.test(character) || (character === "." && at > 0) ? 1 : 3;
  }).reduce((sum, next) => sum + next, 0);
  if (cost > allowed.maxName) {
    invalid(
      `a name is ${cost} bytes long; at most ${allowed.maxName} are allowed, and every byte except a-z 0-9 . _ - counts as three`,
    );
  }
}

function checkOptions({ mediaType, labels }) {
  const size = [...labels.flat(), mediaType ?? ""].reduce((sum, text) => sum + sizeOf(text), 0);
  if (size > MAX_LABEL_BYTES) invalid(`labels and media type have ${size} bytes; the maximum is ${MAX_LABEL_BYTES}`);
  for (const [key] of labels) {
    if (key === "") invalid('the label key "" is empty');
    if (key.startsWith("persist.")) invalid(`the label key "${key}" is reserved: it starts with persist.`);
  }
}

function checkState(size) {
  if (BigInt(size) > allowed.maxState) fail("quota-exceeded", { limit: "state-size", max: allowed.maxState });
}

function checkInline(size) {
  if (BigInt(size) > allowed.maxInline) fail("too-large", BigInt(size));
}

function pageOf(limit) {
  if (limit === 0) invalid("a limit is 0; the minimum is 1");
  return Math.min(limit, allowed.maxPage);
}

export const limits = () => allowed;

export function save(name, state, options) {
  begin();
  checkName(name);
  checkOptions(options);
  checkInline(state.length);
  checkState(state.length);
  return commit(name, options, state);
}

export function load(name, at) {
  begin();
  const found = findState(name, at);
  if (found) checkInline(found.state.length);
  return found;
}

export function stat(name, at) {
  begin();
  return find(name, at)?.info;
}

export function history(name, before, limit) {
  begin();
  checkName(name);
  const most = pageOf(limit);
  const infos = versionsOf(name).map(({ info }) => info).reverse();
  return infos.filter(({ version }) => before === undefined || version < before).slice(0, most);
}

export function names(prefix, after, limit) {
  begin();
  const most = pageOf(limit);
  if (after !== undefined) checkName(after);
  const known = [...saved.keys()].filter((name) => name.startsWith(prefix)).sort();
  return known.filter((name) => after === undefined || name > after).slice(0, most);
}

function del(name, expect) {
  begin();
  checkName(name);
  checkExpect(name, expect);
  if (!findState(name)) fail("not-found");
  return commit(name, { expect, labels: [] }, new Uint8Array(0), true);
}
export { del as delete };

export function restore(name, version, expect) {
  begin();
  const found = findState(name, version) ?? fail("not-found");
  return commit(name, again(found, expect, "persist.restored-from", String(version)), found.state);
}

export function fork(name, at, newName, expect) {
  begin();
  checkName(newName);
  const found = findState(name, at) ?? fail("not-found");
  return commit(newName, again(found, expect, "persist.forked-from", name), found.state);
}

export class Writer {
  #name;
  #options;
  #pieces = [];
  #size = 0;
  #failed = false;

  static open(name, options) {
    begin();
    checkName(name);
    checkOptions(options);
    checkExpect(name, options.expect);
    const writer = new Writer();
    writer.#name = name;
    const head = versionsOf(name).at(-1)?.info.version;
    const isAny = options.expect.tag === "any";
    const expected = head === undefined ? { tag: "absent" } : { tag: "version", val: head };
    writer.#options = isAny ? { ...options, expect: expected } : options;
    return writer;
  }

  write(chunk) {
    this.#check();
    this.#failed = true;
    begin();
    if (chunk.length > allowed.maxChunk) fail("quota-exceeded", { limit: "chunk", max: BigInt(allowed.maxChunk) });
    checkState(this.#size + chunk.length);
    this.#pieces.push(Uint8Array.from(chunk));
    this.#size += chunk.length;
    this.#failed = false;
  }

  static finish(writer) {
    writer.#check();
    begin();
    return commit(writer.#name, writer.#options, Buffer.concat(writer.#pieces));
  }

  #check() {
    if (this.#failed) invalid("a writer cannot continue after an error; drop it and open a new one");
  }
}

export class Reader {
  #saved;

  static open(name, at) {
    begin();
    const found = findState(name, at);
    if (!found) return undefined;
    const reader = new Reader();
    reader.#saved = found;
    return reader;
  }

  info() {
    return this.#saved.info;
  }

  read(offset, length) {
    begin();
    if (length === 0) invalid("a read of 0 bytes; it reads at least 1");
    const from = Number(offset);
    return this.#saved.state.slice(from, from + Math.min(length, allowed.maxChunk));
  }
}
