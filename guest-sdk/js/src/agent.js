// The agent's own end of the contract.

/** Makes a function what a host can run. What it throws is the reason that the caller is told. */
export function agent(run) {
  return (args) => {
    try {
      return String(run(Array.from(args)) ?? "");
    } catch (error) {
      // A host takes a string. Anything else that is thrown would be a trap, and its words would be lost.
      throw error instanceof Error ? error.message || error.name : String(error);
    }
  };
}
