// What the agent remembers: one state named `memory`, JSON, a version for each turn.
import { decode, encode, loadSnapshot, PersistError, saveJson } from "persist-guest";

const NAME = "memory";

export class Memory {
  turns = [];
  #head;

  constructor() {
    const loaded = loadSnapshot(NAME);
    if (!loaded) return;
    this.#head = loaded.info.version;
    this.turns = read(decode(loaded.state), this.#head);
  }

  /**
   * Adds one turn and saves. The save is refused if another run saved since: its turns are not ours to overwrite. After any
   * error this memory is ahead of what is saved: load it again.
   */
  add(line) {
    this.turns.push(turnOf(line));
    const turn = this.turns.length;
    try {
      const options = { expect: this.#head ?? "absent", labels: { turn } };
      this.#head = saveJson(NAME, { turns: this.turns }, options).version;
    } catch (error) {
      if (!(error instanceof PersistError)) throw error;
      const meanwhile = "another run saved a turn meanwhile; run me again";
      if (error.code === "conflict") throw new Error(`turn ${turn} was not saved: ${meanwhile}`);
      if (error.code === "unknown-outcome") {
        throw new Error(`turn ${turn} may or may not have been saved; run me again, I look first`);
      }
      throw new Error(`turn ${turn} was not saved: ${error.message}`);
    }
  }

  /** Refuses a conversation that does not begin with exactly what is remembered. */
  checkBeginningOf(lines) {
    this.turns.forEach((turn, at) => {
      const line = lines[at] === undefined ? undefined : turnOf(lines[at]);
      if (line && line.speaker === turn.speaker && line.text === turn.text) return;
      const theirs = line ? `it says "${shown(line)}"` : "it ends before";
      throw new Error(
        `this is another conversation: in turn ${at + 1} I remember "${shown(turn)}", ${theirs}`,
      );
    });
  }

  /** The last turn that shares a word with `text`, and the longest word they share. Short words say little. */
  lastAbout(text) {
    const wanted = new Set(words(text));
    for (let at = this.turns.length - 1; at >= 0; at--) {
      const shared = words(this.turns[at].text).filter((word) => size(word) > 4 && wanted.has(word));
      if (shared.length === 0) continue;
      const word = shared.reduce((longest, next) => (size(next) >= size(longest) ? next : longest));
      return { turn: at + 1, word };
    }
    return undefined;
  }
}

/** A turn as a line. */
export const shown = ({ speaker, text }) => (speaker === undefined ? text : `${speaker}: ${text}`);

/** A line of a conversation: `Speaker: text`, or only the text. */
function turnOf(line) {
  const at = line.indexOf(": ");
  return at < 0 ? { text: line } : { speaker: line.slice(0, at), text: line.slice(at + 2) };
}

const words = (text) => text.toLowerCase().split(/[^\p{Alphabetic}\p{N}]+/u);

/** The size of a word, which is that of its UTF-8 in every language. */
const size = (word) => encode(word).length;

/** The turns of a saved memory. What this agent does not know is from a later one, which knows more: it is not dropped. */
function read(text, version) {
  const isTurn = (turn) => hasOnly(turn, ["speaker", "text"]) && typeof turn.text === "string" &&
    (turn.speaker === undefined || turn.speaker === null || typeof turn.speaker === "string");
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    // Told below.
  }
  if (!hasOnly(value, ["turns"]) || !Array.isArray(value.turns) || !value.turns.every(isTurn)) {
    throw new Error(
      `unreadable: version ${version} of ${NAME} is not what this agent reads; it is left as it is, ` +
        "and an earlier version may be readable",
    );
  }
  return value.turns.map(({ speaker, text }) => (typeof speaker === "string" ? { speaker, text } : { text }));
}

const hasOnly = (value, keys) =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).every((key) => keys.includes(key));
