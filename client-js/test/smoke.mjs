// @ts-check
/**
 * Watches a job on a real server by every client at once:
 *
 *     node smoke.mjs <base URL> <job id> <token> [<ticket>]
 *
 * prints one line of JSON for each, `{"client", "final", "entries"}`: `websocket`, `sse` and
 * `polling` (ours, held to that transport), `ws` (npm's), and with a ticket `eventsource` (npm's,
 * which sends no headers). `final` is the last view, `entries` the log and output messages in the
 * order they came. Exit code 0: all saw the end.
 */

import { EventSource } from "eventsource";
import WebSocket from "ws";

import { Seen, TRANSPORTS, byOurs } from "./ours.mjs";

const LIMIT_MS = 60_000;

/**
 * @param {string} job URL of the job.
 * @param {string} token
 * @param {AbortSignal} signal
 * @returns {Promise<Seen>}
 */
function byWebSocket(job, token, signal) {
  const seen = new Seen();
  const headers = { Authorization: `Bearer ${token}` };
  const socket = new WebSocket(`${job.replace(/^http/, "ws")}/ws`, { headers });
  signal.addEventListener("abort", () => socket.terminate());
  return new Promise((resolve, reject) => {
    socket.on("message", (data) => attempt(reject, () => seen.take(JSON.parse(String(data)))));
    socket.on("error", reject);
    socket.on("close", (code) => {
      if (seen.ended && code === 1000) resolve(seen);
      else reject(new Error(`closed with ${code}, ${seen.ended ? "after" : "before"} the end`));
    });
  });
}

/**
 * @param {string} job URL of the job.
 * @param {string} ticket
 * @param {AbortSignal} signal
 * @returns {Promise<Seen>}
 */
function byEventSource(job, ticket, signal) {
  const seen = new Seen();
  const source = new EventSource(`${job}/events?ticket=${encodeURIComponent(ticket)}`);
  /** @type {Promise<Seen>} */
  const outcome = new Promise((resolve, reject) => {
    source.onmessage = (event) =>
      attempt(reject, () => {
        seen.take(JSON.parse(event.data));
        if (seen.ended) resolve(seen);
      });
    // The ticket is used up, so a second connection would need the cookie that Node doesn't keep.
    source.onerror = (event) => reject(new Error(event.message ?? "the stream broke off"));
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  return outcome.finally(() => source.close());
}

/**
 * @param {(error: unknown) => void} reject
 * @param {() => void} act
 */
function attempt(reject, act) {
  try {
    act();
  } catch (error) {
    reject(error);
  }
}

/**
 * @param {string} client
 * @param {Promise<Seen>} outcome
 * @returns {Promise<boolean>} Whether it saw the end.
 */
async function report(client, outcome) {
  try {
    const { final, entries, ended } = await outcome;
    console.log(JSON.stringify({ client, final, entries }));
    return ended;
  } catch (error) {
    console.error(`${client}:`, error);
    return false;
  }
}

const [base, id, token, ticket] = process.argv.slice(2);
if (base === undefined || id === undefined || token === undefined) {
  console.error("usage: node smoke.mjs <base URL> <job id> <token> [<ticket>]");
  process.exit(2);
}
const job = `${base.replace(/\/$/, "")}/v1/jobs/${encodeURIComponent(id)}`;
const limit = AbortSignal.timeout(LIMIT_MS);
const ended = await Promise.all([
  ...TRANSPORTS.map((name) => report(name, byOurs(name, base, id, token, limit))),
  report("ws", byWebSocket(job, token, limit)),
  ...(ticket === undefined ? [] : [report("eventsource", byEventSource(job, ticket, limit))]),
]);
process.exit(ended.every(Boolean) ? 0 : 1);
