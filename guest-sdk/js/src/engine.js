// The contract's imports, and what differs between engines: QuickJS has one default export, numbers for 64 bits and null for
// none; SpiderMonkey has named exports, BigInt and undefined. Nothing else in this package knows.
import * as imports from "persist:snapshot/store@0.1.0";

export const store = imports.default ?? imports;

/** QuickJS has one default export. */
export const isQuickJs = imports.default !== undefined;

export const dispose = Symbol.dispose ?? Symbol.for("dispose");

let big;

/** Whether 64 bits are a BigInt here. Asked of the host at the first call: a component is made by running this file without one. */
function isBig() {
  big ??= typeof store.limits().maxState === "bigint";
  return big;
}

/** A number as the contract's 64 bits. */
export const wide = (number) => (isBig() ? BigInt(number) : number);

/** The contract's 64 bits as a number. All that the contract counts stays below 2^53. */
export const narrow = (number) => Number(number);

/** An option. */
export const some = (value) => value ?? (isBig() ? undefined : null);
