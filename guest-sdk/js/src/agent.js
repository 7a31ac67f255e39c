// The agent's own end of the contract.
import { PersistError } from "./error.js";
import { inRun } from "./runtime.js";
import { decode } from "./utf8.js";

/** Makes a function what a host can run. What it throws is the reason that the caller is told. */
export function agent(run) {
  return (args) => {
    try {
      return answerOf(inRun(() => run(Array.from(args)))).toWellFormed();
    } catch (error) {
      // A host takes a string. Anything else that is thrown would be a trap, and its words would be lost.
      throw reasonOf(error);
    }
  };
}

function answerOf(answer) {
  // The host does not wait for it.
  if (typeof answer?.then === "function") throw new Error("an agent's function is not async");
  return inWords(answer ?? "");
}

function reasonOf(error) {
  try {
    const words = error instanceof Error ? wordsOf(error) : inWords(error);
    return words.toWellFormed() || "the agent gave no reason";
  } catch {
    return "the agent threw what cannot be told in words";
  }
}

/** The SDK's words say all, and those of a plain Error are the agent's own. Anything else is a mistake, told with its place. */
function wordsOf(error) {
  if (error instanceof PersistError || error.name === "Error") return String(error.message);
  return `${error.name}: ${error.message}\n${error.stack ?? ""}`.trimEnd();
}

/** A value as a text: bytes are one, and an object is told as JSON. */
function inWords(value) {
  if (value instanceof Uint8Array) return decode(value);
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}
