// @ts-check
/**
 * The JavaScript viewers of a run, all in one process:
 *
 *     node viewers.mjs <token>
 *
 * reads lines of JSON, `{"number", "transport", "base", "id"}`, each a viewer that comes, and prints
 * one for each that has seen its job's end: `{"number", "final", "entries", "ended", "connections"}`,
 * or `{"number", "error"}`.
 */

import { setMaxListeners } from "node:events";
import { createInterface } from "node:readline";

import { byOurs } from "../../client-js/test/ours.mjs";

/** @typedef {{number: number, transport: "websocket" | "sse" | "polling", base: string, id: string}} Order */

const [token = ""] = process.argv.slice(2);
const closing = new AbortController();
setMaxListeners(0, closing.signal);

/** @param {object} line */
function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** @param {Order} order */
async function watch({ number, transport, base, id }) {
  try {
    say({ number, ...(await byOurs(transport, base, id, token, closing.signal)) });
  } catch (error) {
    say({ number, error: String(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) void watch(JSON.parse(line));
closing.abort();
