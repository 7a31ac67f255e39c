// Makes one call of Spin's interfaces, with the words of tests/other-guests/spin.
import keyValue from "fermyon:spin/key-value@2.0.0";
import atomics from "wasi:keyvalue/atomics@0.2.0-draft2";
import batch from "wasi:keyvalue/batch@0.2.0-draft2";
import store from "wasi:keyvalue/store@0.2.0-draft2";

const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const text = (value) => (value == null ? "none" : String.fromCharCode(...value));

function spin(name, bucket, [key, value]) {
  const opened = keyValue.Store.open(bucket);
  switch (name) {
    case "get":
      return text(opened.get(key));
    case "set":
      opened.set(key, bytes(value));
      return "set";
    case "delete":
      opened.delete(key);
      return "deleted";
    case "exists":
      return String(opened.exists(key));
    case "keys":
      return opened.getKeys().join(" ");
  }
  throw "no such function";
}

function draft2(name, bucket, rest) {
  const opened = store.open(bucket);
  switch (name) {
    case "get-many":
      return batch
        .getMany(opened, rest)
        .map(([key, value]) => `${key}=${text(value)}`)
        .join(" ");
    case "increment":
      return String(atomics.increment(opened, rest[0], Number(rest[1])));
    case "swap":
      atomics.swap(atomics.Cas.new(opened, rest[0]), bytes(rest[1]));
      return "swapped";
  }
  throw "no such function";
}

export function run([dialect, name, bucket, ...rest]) {
  try {
    return (dialect === "spin" ? spin : draft2)(name, bucket, rest);
  } catch (error) {
    // A case of the interface, its own text, or a mistake in this file.
    const reason = error?.payload ?? error;
    throw reason?.val ?? reason?.tag?.replaceAll("-", " ") ?? String(reason);
  }
}
