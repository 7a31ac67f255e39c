// One agent for the tests of the JavaScript SDK: its first argument picks a scenario, and the words are those of tests/guest.
// Where a scenario makes up a state, the byte at offset `i` is `byteAt(i)`.
import * as persist from "persist-guest";

const MIB = 1 << 20;

const version = (info) => `version ${info.version}`;
const expect = (text) => (text === undefined ? "any" : /^\d+$/.test(text) ? Number(text) : text);
const at = (text) => (text === undefined ? undefined : Number(text));

// Bits 40 to 47 of (i + 1) * 0x9E3779B97F4A7C15, without numbers over 2^53.
function byteAt(i) {
  const n = i + 1;
  const low = n * 0x7c15;
  const middle = n * 0x7f4a + Math.floor(low / 65536);
  const high = (n * 0x79b9 + Math.floor(middle / 65536)) % 65536;
  return high >> 8;
}

const madeUp = (from, size) => Uint8Array.from({ length: size }, (_, i) => byteAt(from + i));

function describe(info) {
  const labels = Object.entries(info.labels).map(([key, value]) => `${key}=${value}`);
  return (
    `version ${info.version} parent ${info.parent ?? "none"} ${info.deleted ? "deleted" : "saved"} size ${info.size} ` +
    `sha256 ${info.sha256} media-type ${info.mediaType ?? "none"} labels ${labels.join(",") || "none"} name ${info.name}`
  );
}

function describeError(error) {
  if (!(error instanceof persist.PersistError)) return error.message;
  const details = {
    conflict: error.head ?? "none",
    denied: error.right,
    "too-large": error.size,
    "quota-exceeded": `${error.limit} ${error.max}`,
    throttled: error.wait ?? "none",
    "unknown-outcome": error.version,
  };
  return `${error.code} ${details[error.code] ?? error.detail ?? ""}`.trim();
}

// Opens a writer, and has the host hold something of it.
function halfWritten(name) {
  const writer = new persist.Writer(name);
  writer.write(madeUp(0, 4096));
  for (let i = 1; i < 512; i++) writer.write(new Uint8Array(4096));
  return writer;
}

function written(name, options, pieces) {
  const writer = new persist.Writer(name, options);
  try {
    pieces(writer);
    return version(writer.finish());
  } finally {
    writer.abort();
  }
}

const known = "what the agent knows";
const descend = (levels) => (levels === 0 ? 0 : 1 + descend(levels - 1));

const kept = [];
let traps = false;

const SCENARIOS = {
  // As big-save, without the time to make the bytes up.
  "zeros-save": (name, size) => version(persist.save(name, new Uint8Array(Number(size)))),
  head: (name) => `${persist.head(name)}`,
  "save-at-head": (name, text) => version(persist.save(name, text, { expect: persist.head(name) })),
  update: (name, item, beside) => {
    const add = (list) => {
      if (beside) persist.saveJson(name, [...list, beside]);
      if (beside === "once") beside = undefined;
      if (item === "throw") throw new Error("no luck");
      return item === "none" ? undefined : [...list, item];
    };
    return persist.update(name, add, []).join(" ");
  },
  // A conversation whose words are `quick`, `throw` and `race`, and replies `again` and `throw`.
  calls: (name, ...args) => {
    let races = args.length === 1 && args[0] === "race";
    const taken = (heard, text, kind) => {
      if (text === "throw") throw new Error("no luck");
      heard.push(text);
      if (kind && text !== "quick") return new persist.Call(kind, { messages: heard });
      return text.startsWith("{") ? text : `${heard.length} ${text}`;
    };
    return persist.runCalls(name, args, {
      initial: [],
      message(heard, words) {
        if (races) SCENARIOS.calls(name, "other");
        races = false;
        return taken(heard, words.join(" "), "model");
      },
      reply: (heard, text) => taken(heard, text, text === "again" && "tool"),
    });
  },
  save: (name, text) => version(persist.save(name, text)),
  "save-expect": (name, expected, text) => version(persist.save(name, text, { expect: expect(expected) })),
  "save-labels": (name, text, mediaType, ...labels) =>
    version(
      persist.save(name, text, {
        mediaType: mediaType === "-" ? undefined : mediaType,
        labels: Object.fromEntries(labels.map((label) => label.split("="))),
      }),
    ),
  "big-save": (name, size) => version(persist.save(name, madeUp(0, Number(size)))),
  load: (name, number) => {
    const loaded = persist.loadSnapshot(name, at(number));
    return loaded ? `${loaded.info.version} ${persist.decode(loaded.state)}` : "none";
  },
  stat: (name, number) => {
    const info = persist.stat(name, at(number));
    return info ? describe(info) : "none";
  },
  history: (name) => [...persist.history(name)].map(describe).join("\n"),
  names: (prefix) => [...persist.names(prefix)].join("\n"),
  delete: (name, expected) => version(persist.delete(name, { expect: expect(expected) })),
  restore: (name, number, expected) => version(persist.restore(name, Number(number), { expect: expect(expected) })),
  fork: (name, newName, number) => version(persist.fork(name, newName, { at: at(number) })),
  limits: () => {
    const { maxInline, maxChunk, maxState, maxName, maxPage } = persist.limits();
    return `max-inline ${maxInline}\nmax-chunk ${maxChunk}\nmax-state ${maxState}\nmax-name ${maxName}\nmax-page ${maxPage}`;
  },
  stream: (name, chunks, size) =>
    written(name, {}, (writer) => {
      for (let chunk = 0; chunk < Number(chunks); chunk++) writer.write(madeUp(chunk * Number(size), Number(size)));
    }),
  "stream-mib": (name, count) => {
    const page = madeUp(0, 4096);
    const piece = new Uint8Array(MIB);
    for (let from = 0; from < MIB; from += 4096) piece.set(page, from);
    return written(name, {}, (writer) => {
      for (let i = 0; i < Number(count); i++) {
        piece[0] = i;
        writer.write(piece);
      }
    });
  },
  "stream-expect": (name, expected, text) => written(name, { expect: expect(expected) }, (writer) => writer.write(text)),
  "stream-beside-save": (name) =>
    written(name, {}, (writer) => {
      writer.write("late");
      persist.save(name, "early");
    }),
  copy: (name, newName) => {
    const reader = persist.Reader.open(name);
    if (!reader) return "none";
    return written(newName, {}, (writer) => {
      for (const piece of reader) writer.write(piece);
    });
  },
  // A text of characters of two bytes, one byte beside the pieces, and lines of each kind of end.
  "text-stream": (name) => {
    const text = `x${"é".repeat(MIB)}\r\n\n${"ö".repeat(MIB)}\nlast`;
    written(name, {}, (writer) => writer.write(text));
    const lines = [...persist.Reader.open(name).lines()];
    const expected = text.split(/\r?\n/);
    const same = lines.length === expected.length && lines.every((line, at) => line === expected[at]);
    return `text ${persist.Reader.open(name).text() === text} lines ${lines.length} ${same}`;
  },
  random: () => {
    const numbers = Array.from({ length: 5000 }, Math.random);
    const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
    const good = numbers.every((number) => number >= 0 && number < 1) && mean > 0.45 && mean < 0.55;
    return `${good} ${numbers[0]} ${crypto.randomUUID()} ${crypto.getRandomValues(new Uint32Array(2)).length}`;
  },
  print: (text) => {
    console.log("out", text, { a: 1 }, 5, undefined);
    console.error(new TypeError("no luck").message);
    console.log("é".repeat(5000));
    return "printed";
  },
  promise: () => {
    Promise.resolve(1).then(() => {});
    return "not refused";
  },
  // Async functions whose promise is not returned.
  await: (name, kind) => {
    const later = async () => 1;
    const kinds = {
      function: async () => {
        await later();
        persist.save(name, "never");
      },
      caught: async () => {
        try {
          await later();
        } catch {}
      },
      loop: async () => {
        for await (const item of [later()]) persist.save(name, `${item}`);
      },
      all: () => Promise.all([later(), later()]),
      then: async () => later().then(() => persist.save(name, "never")),
      none: later,
    };
    kinds[kind]();
    return `saved ${persist.head(name)}`;
  },
  coding: () => {
    const texts = ["", "a\0b", "grüße 世界 😀", "\ud800x", "x".repeat(20000) + "é"];
    const broken = [[0xff], [0xc3], [0xe4, 0xb8], [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0x98], [0x61, 0xc3, 0x28, 0xc3, 0xa9]];
    const round = texts.every((text) => persist.decode(persist.encode(text)) === text.toWellFormed());
    return `${round} ${broken.map((bytes) => persist.decode(Uint8Array.from(bytes))).join(" ")}`;
  },
  "read-at": (name, offset, length) => {
    const reader = persist.Reader.open(name);
    return reader ? persist.decode(reader.read(Number(offset), Number(length))) : "none";
  },
  unfinished: (name) => {
    halfWritten(name).abort();
    return "unfinished";
  },
  leaked: (name) => {
    kept.push(halfWritten(name));
    return "leaked";
  },
  "trap-mid-write": (name) => {
    kept.push(halfWritten(name));
    traps = true;
  },
  "many-writers": (name, count) => {
    try {
      while (kept.length < Number(count)) kept.push(new persist.Writer(name));
      return `opened ${kept.length}`;
    } catch (error) {
      return `opened ${kept.length} ${describeError(error)}`;
    }
  },
  trap: () => {
    traps = true;
  },
  error: (text) => {
    throw new Error(text);
  },
  echo: (...args) => args.join("\n"),
  "wrong-arguments": () => notRefused(WRONG),
  closed: (name) => closed(name),
  "save-deep": (name, levels) => {
    descend(Number(levels));
    return version(persist.save(name, known));
  },
  clock: () => {
    const passed = performance.now() - performance.now();
    return `clock ${Math.floor(Date.now() / 1000)} ${new Date().getUTCFullYear()} ${passed <= 0}`;
  },
};

// What the contract has no place for. Each is to be refused as invalid, and nothing happens.
const WRONG = [
  () => persist.load(),
  () => persist.load(5),
  () => persist.load(null),
  () => persist.load("a\ud800"),
  () => persist.save(5, ""),
  () => persist.save("k"),
  () => persist.save("k", 5),
  () => persist.save("k", "", "absent"),
  () => persist.save("k", "", { expects: 1 }),
  () => persist.save("k", "", { expect: -1 }),
  () => persist.save("k", "", { expect: 1.5 }),
  () => persist.save("k", "", { expect: undefined }),
  () => persist.save("k", "", { expect: persist.stat("k")?.version }),
  () => persist.save("k", "", { expect: null }),
  () => persist.delete("k", { expect: undefined }),
  () => persist.restore("k", 1, { expect: undefined }),
  () => persist.fork("k", "l", { expect: undefined }),
  () => new persist.Writer("k", { expect: undefined }),
  () => persist.update("k"),
  () => persist.update("k", () => {}),
  () => persist.update("k", async () => ({}), {}),
  () => persist.load("n".repeat(18 * MIB)),
  () => persist.save("k", "", { labels: { a: "n".repeat(18 * MIB) } }),
  () => persist.save("k", "", { expect: "1" }),
  () => persist.save("k", "", { mediaType: 5 }),
  () => persist.save("k", "", { mediaType: "\udc00" }),
  () => persist.save("k", "", { labels: { a: {} } }),
  () => persist.save("k", "", { labels: { a: "\ud800" } }),
  () => persist.save("k", "", { labels: new Map([["a", "b"]]) }),
  () => persist.save("k", "", { labels: ["a"] }),
  () => persist.saveJson("k", {}, 5),
  () => persist.loadSnapshot("k", -1),
  () => persist.loadSnapshot("k", 1.5),
  () => persist.loadSnapshot("k", "1"),
  () => persist.loadSnapshot("k", 2 ** 53),
  () => persist.loadSnapshot("k", NaN),
  () => persist.stat("k", {}),
  () => persist.historyPage("k"),
  () => persist.historyPage("k", undefined, -1),
  () => persist.historyPage("k", undefined, 2 ** 32),
  () => persist.namesPage("", 5, 1),
  () => [...persist.names(5)],
  () => persist.delete("k", 1),
  () => persist.restore("k"),
  () => persist.restore("k", -1),
  () => persist.fork("k"),
  () => persist.fork("k", "l", 1),
  () => persist.Reader.open("k", 1),
  () => new persist.Writer(),
  () => new persist.Writer("k", { media: "x" }),
];

/** Those that are not refused, as they are written. */
function notRefused(calls) {
  const accepted = calls.filter((call) => {
    try {
      call();
    } catch (error) {
      return error.code !== "invalid";
    }
    return true;
  });
  return accepted.map(String).join("\n") || "all refused";
}

// A stream that was closed, and one that was finished.
function closed(name) {
  const [aborted, finished] = [new persist.Writer(name), new persist.Writer(name)];
  aborted.abort();
  finished.finish();
  const reader = persist.Reader.open(name);
  reader.close();
  reader.close();
  return notRefused([
    () => aborted.write("x"),
    () => aborted.finish(),
    () => finished.write("x"),
    () => finished.finish(),
    () => reader.read(0, 1),
    () => reader.read(0, 0),
  ]);
}

class NoLuck extends Error {}

// What a function returns and throws besides texts and errors of the store.
const TOLD = {
  async: async () => "x",
  object: () => ({ a: [1, "ü"] }),
  bytes: () => Uint8Array.of(0x61, 0xc3, 0xbc, 0xff),
  number: () => 42,
  nothing: () => undefined,
  surrogate: () => "a\ud800b",
  "throw-surrogate": () => {
    throw new Error("a\ud800b");
  },
  "throw-object": () => {
    throw { code: 5 };
  },
  "throw-nothing": () => {
    throw "";
  },
  "throw-own": () => {
    throw new NoLuck("no luck");
  },
  mistake: () => undefined.memory,
};

const described = (args) => {
  const [name, ...rest] = args;
  if (name === "tell") return TOLD[rest[0]]();
  // The failure of a call, as the SDK says it to people.
  if (name === "load-uncaught") return String(persist.loadSnapshot(rest[0], 99));
  const scenario = SCENARIOS[name];
  if (!scenario) throw new Error("usage: a scenario of tests/languages/js, and its arguments");
  try {
    return scenario(...rest);
  } catch (error) {
    throw new Error(describeError(error));
  }
};

const told = persist.agent(described);

export function run(args) {
  const answer = told(args);
  // What is thrown past the SDK and is no string is a trap.
  if (traps) throw {};
  return answer;
}
