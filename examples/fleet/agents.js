// Agents as virtual objects of Restate: one object for each agent and session. Restate queues the
// calls of an object, and repeats a call whose worker or host died. Persist runs the agent.
//
// The id of the invocation is the idempotency key of the run. Its hash is a label of each version
// that the run saves (`persist.idempotency-key`), so that a repeated call finds what was saved, and
// does not run the agent again.
//
// Environment: PERSIST_URL, a `persist serve` or the proxy before several; PERSIST_TOKEN, a token
// with the right `run`; HOST and PORT, the address for Restate.

import http2 from "node:http2";
import * as restate from "@restatedev/restate-sdk";

const { PERSIST_URL, PERSIST_TOKEN, HOST = "127.0.0.1", PORT = "9080" } = process.env;

/** Time after which a host that does not answer is given up: a run takes 5 minutes at most. */
const TIMEOUT_MS = Number(process.env.TIMEOUT_MS ?? 360_000);

/** Returns the path of a run. The key of an object is AGENT or AGENT/SESSION. */
function path(key) {
  const [agent, ...session] = key.split("/");
  const sessions = session.length > 0 ? `/sessions/${encodeURIComponent(session.join("/"))}` : "";
  return `/v1/agents/${encodeURIComponent(agent)}${sessions}/run`;
}

async function runOnce(key, id, request) {
  const response = await fetch(new URL(path(key), PERSIST_URL), {
    method: "POST",
    headers: {
      authorization: `Bearer ${PERSIST_TOKEN}`,
      "content-type": "application/json",
      "idempotency-key": id,
    },
    body: JSON.stringify(request),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const text = await response.text();
  if (response.ok) {
    return JSON.parse(text);
  }
  if (response.status === 429 || response.status >= 500) {
    // Another host works on the agent, or the storage does not answer.
    const seconds = Number(response.headers.get("retry-after") ?? 1);
    const error = new Error(`${response.status}: ${text}`);
    throw restate.RetryableError.from(error, { retryAfter: { seconds } });
  }
  // The agent failed, or the request is wrong: another attempt has the same result.
  const { code, detail } = JSON.parse(text);
  throw new restate.TerminalError(`${code}: ${detail}`, { errorCode: response.status });
}

const agent = restate.object({
  name: "agent",
  handlers: {
    run: (ctx, request) => {
      const id = String(ctx.request().id);
      return ctx.run("run", () => runOnce(ctx.key, id, request));
    },
  },
  options: {
    retryPolicy: {
      initialInterval: { milliseconds: 100 },
      maxInterval: { seconds: 10 },
      exponentiationFactor: 2,
    },
  },
});

const handler = restate.createEndpointHandler({ services: [agent] });
http2.createServer(handler).listen(Number(PORT), HOST, () => console.log("listening"));
