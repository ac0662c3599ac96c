// @ts-check
/**
 * Watches a job by our client, over a network that somebody cuts:
 *
 *     node cuts.mjs <websocket | sse | polling> <base URL> <job id> <token>
 *
 * prints one line of JSON, `{"final", "entries", "connections"}`, when the job is over.
 */

import { TRANSPORTS, byOurs } from "./ours.mjs";

const LIMIT_MS = 90_000;

const [name, base, id, token] = process.argv.slice(2);
const transport = TRANSPORTS.find((known) => known === name);
if (!transport || base === undefined || id === undefined || token === undefined) {
  console.error("usage: node cuts.mjs <websocket | sse | polling> <base URL> <job id> <token>");
  process.exit(2);
}
const seen = await byOurs(transport, base, id, token, AbortSignal.timeout(LIMIT_MS));
console.log(JSON.stringify(seen));
// Not `exit`, which would cut off what a pipe has not taken yet.
process.exitCode = seen.ended ? 0 : 1;
