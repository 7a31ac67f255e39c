// States written and read in pieces.
import * as check from "./check.js";
import { dispose, store, wide } from "./engine.js";
import { call } from "./error.js";
import { bytesOf, infoOf, rawName, rawOptions, rawVersion } from "./store.js";
import { decode } from "./utf8.js";

// Bytes collected before they are sent: fewer calls across the sandbox's wall. More would only cost the agent memory.
const COLLECTED = 1 << 20;

const pieceSize = () => Math.max(1, Math.min(COLLECTED, store.limits().maxChunk));

export class Writer {
  #stream;
  #buffer;
  #used = 0;
  #failed;

  constructor(name, options) {
    this.#stream = call(() => store.Writer.open(rawName(name), rawOptions(options)));
    this.#buffer = new Uint8Array(pieceSize());
  }

  write(piece) {
    const bytes = bytesOf(piece);
    this.#check();
    for (let taken = 0; taken < bytes.length; ) {
      const now = Math.min(bytes.length - taken, this.#buffer.length - this.#used);
      this.#buffer.set(bytes.subarray(taken, taken + now), this.#used);
      this.#used += now;
      taken += now;
      if (this.#used === this.#buffer.length) this.#send();
    }
  }

  finish() {
    try {
      this.#check();
      this.#send();
    } catch (error) {
      this.abort();
      throw error;
    }
    const stream = this.#stream;
    this.#stream = undefined;
    return infoOf(call(() => store.Writer.finish(stream)));
  }

  abort() {
    this.#stream?.[dispose]?.();
    this.#stream = undefined;
  }

  [dispose]() {
    this.abort();
  }

  // A writer that failed stays failed, so that a lost piece cannot be followed by a commit.
  #check() {
    if (this.#failed) throw this.#failed;
    if (!this.#stream) check.refuse("the writer was finished or aborted before");
  }

  #send() {
    if (this.#used === 0) return;
    const piece = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    try {
      call(() => this.#stream.write(piece));
    } catch (error) {
      this.#failed = error;
      throw error;
    }
  }
}

export class Reader {
  #stream;
  #piece;

  static open(name, options) {
    const { at } = check.options(options, ["at"]);
    const stream = call(() => store.Reader.open(rawName(name), rawVersion(at)));
    return stream ? new Reader(stream) : undefined;
  }

  constructor(stream) {
    this.#stream = stream;
    this.#piece = pieceSize();
    this.info = infoOf(stream.info());
  }

  read(offset, length) {
    if (!this.#stream) check.refuse("the reader was closed before");
    check.whole(offset, "an offset");
    if (length !== Infinity) check.whole(length, "a length");
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.info.size - offset)));
    let read = 0;
    while (read < bytes.length) {
      const now = Math.min(bytes.length - read, this.#piece);
      const piece = call(() => this.#stream.read(wide(offset + read), now));
      if (piece.length === 0) break;
      bytes.set(piece, read);
      read += piece.length;
    }
    return bytes.subarray(0, read);
  }

  text() {
    return decode(this.read(0, Infinity));
  }

  *lines() {
    // Of the line that has not ended. Decoded only whole, as a piece may end within a character.
    let begun = [];
    for (const piece of this) {
      const end = piece.lastIndexOf(NEWLINE);
      if (end < 0) {
        begun.push(piece);
        continue;
      }
      begun.push(piece.subarray(0, end));
      yield* decode(joined(begun)).split(/\r?\n/).map(withoutReturn);
      begun = end + 1 < piece.length ? [piece.subarray(end + 1)] : [];
    }
    if (begun.length > 0) yield decode(joined(begun));
  }

  *[Symbol.iterator]() {
    for (let offset = 0; offset < this.info.size; ) {
      const piece = this.read(offset, this.#piece);
      if (piece.length === 0) return;
      yield piece;
      offset += piece.length;
    }
  }

  close() {
    this.#stream?.[dispose]?.();
    this.#stream = undefined;
  }

  [dispose]() {
    this.close();
  }
}

const NEWLINE = 10;

/** A line that ended in \r\n, of which the \n is gone. */
const withoutReturn = (line) => (line.endsWith("\r") ? line.slice(0, -1) : line);

function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const bytes = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let used = 0;
  for (const piece of pieces) {
    bytes.set(piece, used);
    used += piece.length;
  }
  return bytes;
}
