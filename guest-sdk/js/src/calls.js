// Agents that ask their driver to make calls, such as requests to a model.
import * as check from "./check.js";
import { ATTEMPTS, copyOf, jsonOf, loadSnapshot, parse, saveJson, stat } from "./store.js";
import { PersistError } from "./error.js";
import { decode } from "./utf8.js";

export class Call {
  constructor(kind, params = {}) {
    check.text(kind, "the kind of a call");
    if (!check.isPlain(params)) check.refuse("the parameters of a call are an object");
    if ("call" in params || "id" in params) {
      check.refuse("the parameters of a call have no call and no id, which are added");
    }
    this.kind = kind;
    this.params = params;
  }
}

export function runCalls(name, args, steps) {
  const { initial, message, reply } = check.options(steps, ["initial", "message", "reply"]);
  if (typeof message !== "function" || typeof reply !== "function") {
    check.refuse("runCalls takes the functions message and reply");
  }
  for (let attempt = 1; ; attempt++) {
    const { saved, head } = load(name, initial);
    const before = jsonOf(saved);
    const answer = take(saved, `turn-${head + 1}`, Array.from(args), { message, reply });
    if (jsonOf(saved) === before) return answer;
    try {
      saveJson(name, saved, { expect: head || "absent" });
      return answer;
    } catch (error) {
      if (error.code !== "conflict" || attempt === ATTEMPTS) throw error;
    }
  }
}

/** Contents of the snapshot, which are the same in the SDK of every language but C. */
function empty(initial) {
  return { state: copyOf(initial) ?? {}, pending: null, waiting: [], last: null };
}

/** Loads what is saved, and the version of the head, 0 if there is none. A tombstone is a head. */
function load(name, initial) {
  for (;;) {
    const loaded = loadSnapshot(name);
    if (loaded) {
      const { info } = loaded;
      const saved = parse(decode(loaded.state), info);
      if (!Array.isArray(saved?.waiting)) {
        const detail = "it was not saved by runCalls";
        throw new PersistError("unreadable", { name: info.name, version: info.version, detail });
      }
      return { saved, head: info.version };
    }
    const info = stat(name);
    // A run that saved in between is loaded.
    if (!info || info.deleted) return { saved: empty(initial), head: info?.version ?? 0 };
  }
}

function take(saved, id, args, steps) {
  const { pending, waiting, last } = saved;
  if (args.length === 3 && args[0] === "reply") {
    const [, replied, text] = args;
    if (!pending) {
      if (last?.id !== replied) check.refuse(`no call ${replied} is pending`);
      return last.answer;
    }
    if (pending.id !== replied) return pending.call;
    saved.pending = null;
    return proceed(saved, id, steps.reply(saved.state, text), pending.message, replied, steps);
  }
  if (pending) {
    const latest = waiting.at(-1) ?? pending.message;
    if (args.length > 0 && jsonOf(args) !== jsonOf(latest)) waiting.push(args);
    return pending.call;
  }
  if (args.length === 0) check.refuse("no call is pending; give a message");
  return proceed(saved, id, steps.message(saved.state, args), args, undefined, steps);
}

/** Keeps the call that comes next, or answers; then the next message that waits has its turn. */
function proceed(saved, id, next, message, replied, steps) {
  for (;;) {
    if (next instanceof Call) {
      const call = jsonOf({ call: next.kind, id, ...next.params });
      saved.pending = { id, message, call };
      return call;
    }
    const answer = told(next);
    if (saved.waiting.length === 0) {
      if (replied !== undefined) saved.last = { id: replied, answer };
      return answer;
    }
    message = saved.waiting.shift();
    next = steps.message(saved.state, message);
  }
}

/** Returns an answer so that no driver takes it for a call. */
function told(answer) {
  if (typeof answer?.then === "function") check.refuse("the functions of runCalls are not async");
  if (typeof answer !== "string") check.refuse("a step of runCalls returns a Call or a string");
  if (!answer.trimStart().startsWith("{")) return answer;
  try {
    return "call" in JSON.parse(answer) ? `answer: ${answer}` : answer;
  } catch {
    return answer;
  }
}
