/**
 * Globals of an agent in QuickJS, beside those of the language. Include this file in a project that
 * has no types of a browser or of Node.js.
 */

/** Prints to the error output. */
declare const console: Record<
  "debug" | "error" | "info" | "log" | "trace" | "warn",
  (...values: unknown[]) => void
>;

/** Random numbers of the host. Each run gets others. */
declare const crypto: {
  /** Fills an array of integers with random bytes, and returns it. */
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  /** Returns a random UUID of version 4. */
  randomUUID(): string;
};

/** The clock of the host. */
declare const performance: {
  /** Returns milliseconds since the run began. */
  now(): number;
};
