/// <reference lib="esnext.disposable" />
/**
 * Saves and loads the state of a sandboxed WebAssembly agent through a Persist host.
 *
 * A save never overwrites: it adds a version. The newest version of a name is its head. Every function throws a
 * {@link PersistError}; after any of its codes but `unknown-outcome`, the call has changed nothing.
 */

/** 1 for the first save of a name, then one more for each save, delete, restore or fork into it. */
export type Version = number;

/** A state: bytes, or a text that is saved as its UTF-8. */
export type State = Uint8Array | ArrayBuffer | string;

/**
 * What must be true of a name for a change to be made, else it fails with `conflict`. `"any"`: anything; a {@link Writer} takes
 * the head when it is opened as what it expects. `"absent"`: nothing was saved, or the head is a tombstone. A number: this
 * version is the head.
 */
export type Expect = "any" | "absent" | Version;

export interface SaveOptions {
  /** `"any"` if not given. Undefined or null is refused: see {@link head}. */
  expect?: Expect;
  /** Kept in {@link Info}; never interpreted. */
  mediaType?: string;
  /** Kept in {@link Info}. Keys under `persist.` are the host's. */
  labels?: Record<string, string | number>;
}

/** What is known of one version without reading its state. */
export interface Info {
  name: string;
  version: Version;
  /** The head when this version was made; undefined for the first. */
  parent?: Version;
  /** True for a tombstone: the name was deleted here. `size` is then 0. */
  deleted: boolean;
  /** Bytes of state. */
  size: number;
  /** Bytes at rest, compressed. */
  storedSize: number;
  /** Of the state, 64 lower-case hexadecimal digits. */
  sha256: string;
  /** The host's clock. For people: `version` is the order. */
  createdAt: Date;
  mediaType?: string;
  labels: Record<string, string>;
}

/** One version with its state. */
export interface Snapshot {
  info: Info;
  /** Bit for bit as saved. */
  state: Uint8Array;
}

/** The limits that an agent can plan for. Others are met as `quota-exceeded`. */
export interface Limits {
  /** Bytes of state in one save or load; above it, use {@link Writer} and {@link Reader}. */
  maxInline: number;
  /** Bytes that one call of a stream carries; {@link Writer} and {@link Reader} see to it. */
  maxChunk: number;
  /** Bytes of one state. */
  maxState: number;
  /** Bytes of a name, where one other than `a-z 0-9 . _ -` and a leading dot count as three. */
  maxName: number;
  /** Items in one page of history or names. */
  maxPage: number;
}

/**
 * Makes a function what a host runs: `export const run = agent((args) => …)`. What it returns is the answer: a text, also as
 * bytes, or what `JSON.stringify` makes of an object. What it throws is the reason that the caller is told. It is not async:
 * nobody would wait for it.
 */
export function agent<T>(run: (args: string[]) => T extends PromiseLike<unknown> ? never : T): (args: string[]) => string;

/** What this host allows this agent. */
export function limits(): Limits;

/** Saves `state` as the next version of `name`. No bytes are a state. Once it returned, the version is durable. */
export function save(name: string, state: State, options?: SaveOptions): Info;
/** Saves what `JSON.stringify` makes of `value`. */
export function saveJson(name: string, value: unknown, options?: SaveOptions): Info;

/**
 * Loads the value of JSON at the head of `name`, has `change` change it, and saves it, if the head is still what was loaded.
 * Where another run saved meanwhile, this begins again, and `change` is called again, at most ten times; then it is `conflict`.
 *
 * `change` gets the value, or a copy of `initial` where nothing was saved. It returns the new value, or changes the one that it
 * got and returns nothing. Where the value is the same afterwards, nothing is saved. What it throws ends the update.
 */
export function update<T>(name: string, change: (value: T) => T | void, initial: T, options?: Omit<SaveOptions, "expect">): T;
export function update<T>(name: string, change: (value: T | undefined) => T): T;

/**
 * A call that the driver makes, of a kind that it knows. The driver gets a JSON object with the
 * kind as `call`, an `id` and these parameters.
 */
export class Call {
  constructor(kind: string, params?: Record<string, unknown>);
  readonly kind: string;
  readonly params: Record<string, unknown>;
}

/** Steps of {@link runCalls}. Both change the state, and return a call or the answer. */
export interface Steps<T> {
  /** State before the first message, which is copied. */
  initial: T;
  /** Takes a message of the user: the arguments of the run. */
  message(state: T, args: string[]): Call | string;
  /** Takes the driver's reply to the pending call. */
  reply(state: T, text: string): Call | string;
}

/**
 * Takes the arguments of a run, and returns its answer, which may be a call for the driver.
 *
 * An agent has no network of its own. It answers with a call, as JSON. The program that runs it,
 * the driver, makes the call and runs the agent again with `reply`, the call's `id` and the reply.
 * `persist chat --driver PROGRAM` is such a driver.
 *
 * The state is saved under `name` with the pending call, before the call is returned. A run that is
 * killed, or a driver, loses no turn and doubles none:
 *
 * - `["reply", ID, TEXT]` is the reply to a call. A second reply to the same call gets the answer
 *   of the first. While another call is pending, that call is returned.
 * - Other arguments are a message. While a call is pending, the same message returns that call
 *   again. A different message waits until the call is replied to.
 * - No arguments return the pending call.
 *
 * The functions may be called again if another run saved meanwhile. What they throw ends the run,
 * and nothing is saved. An answer that a driver would take for a call is returned with `answer: `
 * before it.
 */
export function runCalls<T>(name: string, args: string[], steps: Steps<T>): string;

/** Loads the state at the head of `name`. Undefined: nothing was saved, or it was deleted. */
export function load(name: string): Uint8Array | undefined;
/** The same as a text. */
export function loadText(name: string): string | undefined;
/** The same as a value of JSON. */
export function loadJson<T = unknown>(name: string): T | undefined;
/** Loads the head of `name`, or version `at`, with what is known of it. Undefined: nothing was saved, or it is a tombstone. */
export function loadSnapshot(name: string, at?: Version): Snapshot | undefined;
/** As {@link loadSnapshot}, without the state, and a tombstone is returned. */
export function stat(name: string, at?: Version): Info | undefined;

/** The head of `name` as what a change expects: `"absent"` where nothing was saved. A tombstone is a head. */
export function head(name: string): Expect;

/** All versions of `name`, newest first, tombstones too. */
export function history(name: string): Generator<Info, void>;
/** At most `limit` versions below `before`, or of all. Only an empty page is the end. */
export function historyPage(name: string, before: Version | undefined, limit: number): Info[];
/** The names that begin with `prefix`, those of deleted states too. */
export function names(prefix?: string): Generator<string, void>;
/** At most `limit` names after one, or from the first. Only an empty page is the end. */
export function namesPage(prefix: string, after: string | undefined, limit: number): string[];

declare function del(name: string, options?: { expect?: Expect }): Info;
/** Makes a tombstone the next version; {@link restore} undoes it. `not-found`: there is nothing to delete. */
export { del as delete };
/** Saves the state of `version` again as the next version. */
export function restore(name: string, version: Version, options?: { expect?: Expect }): Info;
/** Saves the state of `name`, or that of version `at`, as the next version of `newName`. */
export function fork(name: string, newName: string, options?: { at?: Version; expect?: Expect }): Info;

/** A state saved piece by piece. Nothing of it is visible before {@link Writer.finish} returned. Small writes are collected. */
export class Writer implements Disposable {
  constructor(name: string, options?: SaveOptions);
  /** Appends any number of bytes. */
  write(piece: State): void;
  /**
   * Saves what was written, and ends the writer whatever comes of it. `conflict` where somebody else saved meanwhile, even with
   * `"any"`: what was written cannot be replayed.
   */
  finish(): Info;
  /** Ends the writer, and saves nothing. After {@link finish} it does nothing. */
  abort(): void;
  /** {@link abort}, for `using`. */
  [Symbol.dispose](): void;
}

/** One version, read in any order, or piece by piece with `for (const piece of reader)`. It stays that version. */
export class Reader implements Disposable, Iterable<Uint8Array> {
  private constructor();
  /** Opens the head of `name`, or version `at`. Undefined: nothing was saved, or it is a tombstone. */
  static open(name: string, options?: { at?: Version }): Reader | undefined;
  /** What is known of the version. */
  readonly info: Info;
  /** At most `length` bytes from `offset`, or all with `Infinity`; fewer is the end. */
  read(offset: number, length: number): Uint8Array;
  /** All of it as a text. */
  text(): string;
  /** The lines of a text, without their ends (`\n` or `\r\n`). A piece may end within a character; a line never does. */
  lines(): Generator<string, void>;
  [Symbol.iterator](): Generator<Uint8Array, void>;
  /** Gives back what the host holds for the reader. */
  close(): void;
  /** {@link close}, for `using`. */
  [Symbol.dispose](): void;
}

/** Why a call failed. Its message says what happened and what helps. */
export class PersistError extends Error {
  /** The contract's case, or the code of a failure that has none. Match on it. */
  readonly code:
    | "conflict"
    | "not-found"
    | "denied"
    | "too-large"
    | "quota-exceeded"
    | "invalid"
    | "corrupt"
    | "throttled"
    | "unreadable"
    | "unavailable"
    | "timeout"
    | "unknown-outcome"
    | (string & {});
  /** Of `conflict`: the newest version; undefined where nothing was saved. */
  readonly head?: Version;
  /** Of `unreadable`: the version that is not JSON. Of `unknown-outcome`: the version that the change may have become. `stat` it and compare before trying again. */
  readonly version?: Version;
  /** Of `quota-exceeded`: the name of the limit. */
  readonly limit?: string;
  /** Of `quota-exceeded`: its value. */
  readonly max?: number;
  /** Of `too-large`: bytes of the state. */
  readonly size?: number;
  /** Of `denied`: the right that is missing. */
  readonly right?: string;
  /** Of `throttled`: milliseconds to wait, if known. */
  readonly wait?: number;
  /** Words for people. */
  readonly detail?: string;
}

/** The UTF-8 of a text; half of a surrogate pair becomes U+FFFD. Not every engine has a TextEncoder. */
export function encode(text: string): Uint8Array;
/** The text of UTF-8; bytes that are none become U+FFFD. */
export function decode(bytes: Uint8Array): string;
