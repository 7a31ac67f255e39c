// A plugin that counts thanks: `ann++` adds one, `!karma` lists them all.
import { loadJson, update } from "persist-guest";

export function reply(sender, message) {
  const thanked = /^(\w+)\+\+$/.exec(message)?.[1];
  if (thanked && thanked !== sender) {
    const karma = update("karma", (karma) => ({ ...karma, [thanked]: (karma[thanked] ?? 0) + 1 }), {});
    return `${thanked} has ${karma[thanked]}`;
  }
  if (message !== "!karma") return undefined;
  const karma = Object.entries(loadJson("karma") ?? {});
  return karma.map(([name, count]) => `${name} ${count}`).join(", ") || "nobody was thanked yet";
}
