/**
 * Tests of an agent without WebAssembly: `node --import persist-guest/testing/register --test` has the calls of this package use
 * a store in memory with the rules of a host. What it lacks is a disk, compression and pruning.
 */
import type { Limits, PersistError } from "../index.js";

/** Forgets all that was saved, and takes back {@link setLimits} and {@link failNext}. Call it before each test. */
export function reset(): void;
/** Sets limits of the host. */
export function setLimits(changes: Partial<Limits>): void;
/** Makes the next call fail with an error, or the one of a code, and change nothing. */
export function failNext(error: PersistError | "timeout" | "not-found" | (string & {})): void;
