// Runs scenarios natively, against the double: one a line, its arguments separated by U+001F.
import { createInterface } from "node:readline";
import { run } from "./scenarios.js";

for await (const line of createInterface({ input: process.stdin })) {
  let told;
  try {
    told = `ok ${run(line.split("\x1f"))}`;
  } catch (error) {
    told = `error ${error}`;
  }
  console.log(told.replaceAll("\n", "\x1e"));
}
