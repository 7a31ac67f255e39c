// Saves and loads the state of a sandboxed WebAssembly agent through a Persist host. `index.d.ts` documents what is here.
export { agent } from "./agent.js";
export { Call, runCalls } from "./calls.js";
export { PersistError } from "./error.js";
export { Reader, Writer } from "./stream.js";
export { del as delete, fork, head, history, historyPage, limits, names, namesPage, restore, save, saveJson, stat, update } from "./store.js";
export { load, loadJson, loadSnapshot, loadText } from "./store.js";
export { decode, encode } from "./utf8.js";
