// Why a call failed.

/** Says what the contract's case is, in the words of the other SDKs. */
const MESSAGES = {
  conflict: ({ head }) =>
    head === undefined
      ? "conflict: this change expects a version, and nothing is saved under the name"
      : `conflict: the newest version is ${head}, not what this change expects; load it and decide again`,
  "not-found": () => "not found: never saved, or pruned; the history lists what there is",
  denied: ({ right }) => `denied: this agent has no right to ${right}; the operator can grant it`,
  "too-large": ({ size }) =>
    `too large: the state has ${size} bytes, more than one call carries; save it with Writer, load it with Reader`,
  "quota-exceeded": ({ limit, max }) =>
    `quota exceeded: ${limit} is limited to ${max}; use less, or ask the operator for more`,
  invalid: ({ detail }) => `invalid argument: ${detail}`,
  unreadable: ({ name, version, detail }) =>
    `unreadable: version ${version} of ${name} is not JSON (${detail}); it is left as it is, and an earlier version may be readable`,
  corrupt: ({ detail }) => `corrupt: what is stored fails verification (${detail}); an earlier version may be whole`,
  throttled: ({ wait }) => (wait === undefined ? "throttled: try again later" : `throttled: try again in ${wait} ms`),
  unavailable: ({ detail }) => `storage is unavailable, tell the operator: ${detail}`,
  timeout: () => "timeout: the host's time for the call ran out and nothing was changed; try again",
  "unknown-outcome": ({ version }) =>
    `unknown outcome: it may have been saved as version ${version}; stat that and compare before trying again`,
};

const number = (value) => (value === undefined || value === null ? undefined : Number(value));

/** What each case carries, under names of its own. */
const DETAILS = {
  conflict: (head) => ({ head: number(head) }),
  denied: (right) => ({ right }),
  "too-large": (size) => ({ size: number(size) }),
  "quota-exceeded": (quota) => ({ limit: quota.limit, max: number(quota.max) }),
  invalid: (detail) => ({ detail }),
  corrupt: (detail) => ({ detail }),
  throttled: (wait) => ({ wait: number(wait) }),
  unavailable: (detail) => ({ detail }),
  "unknown-outcome": (version) => ({ version: number(version) }),
};

export class PersistError extends Error {
  constructor(code, details = {}) {
    const message = MESSAGES[code];
    super(message ? message(details) : `${details.detail} (${code})`);
    this.name = "PersistError";
    this.code = code;
    const { name: _, ...own } = details;
    Object.assign(this, own);
  }
}

/** Calls the host. What it throws for a case of the contract becomes a PersistError. */
export function call(what) {
  try {
    return what();
  } catch (thrown) {
    // SpiderMonkey wraps what QuickJS throws as it is.
    const raw = thrown?.payload ?? thrown;
    if (raw instanceof Error || typeof raw?.tag !== "string") throw thrown;
    // `other` carries a code of its own; it is as good as a case.
    if (raw.tag === "other") throw new PersistError(raw.val.code, { detail: raw.val.message });
    throw new PersistError(raw.tag, DETAILS[raw.tag]?.(raw.val));
  }
}
