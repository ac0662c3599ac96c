// @ts-check
/** Watches a job on a real server by our client, held to one transport. */

import WebSocket from "ws";

import { JobClient } from "../src/index.js";

/** @typedef {import("../src/index.js").ServerMessage} ServerMessage */

export const TRANSPORTS = /** @type {const} */ (["websocket", "sse", "polling"]);

/** What one client saw. */
export class Seen {
  /** @type {unknown} */
  final = null;
  /** @type {ServerMessage[]} */
  entries = [];
  ended = false;

  /** @param {ServerMessage} message */
  take(message) {
    if (message.type === "job") this.final = message.job;
    if (message.type === "log" || message.type === "output") this.entries.push(message);
    if (message.type === "end") this.ended = true;
  }
}

/** A network that lets no WebSocket through. */
class RefusedSocket {
  onclose = (/** @type {{code: number}} */ _event) => {};

  constructor() {
    setTimeout(() => this.onclose({ code: 1006 }));
  }

  close() {}
}

/** Where each of the others asks. */
const PATHS = { websocket: "", sse: "/v1/events", polling: "/v1/poll" };

/**
 * Watch a job to its end.
 *
 * @param {(typeof TRANSPORTS)[number]} transport
 * @param {string} base URL of the server.
 * @param {string} id The job's.
 * @param {string} token
 * @param {AbortSignal} signal
 * @returns {Promise<Seen & {connections: number}>} Also how often it came to be live.
 * @throws {Error} It was live by another transport.
 */
export async function byOurs(transport, base, id, token, signal) {
  const seen = Object.assign(new Seen(), { connections: 0 });
  const client = new JobClient({
    url: base,
    token: async () => token,
    WebSocket: /** @type {any} */ (transport === "websocket" ? WebSocket : RefusedSocket),
    fetch: (url, init) =>
      new URL(String(url)).pathname === PATHS[transport]
        ? fetch(url, init)
        : Promise.reject(new TypeError("not by this transport")),
  });
  signal.addEventListener("abort", () => client.close());
  /** @type {Set<unknown>} */
  const used = new Set();
  client.on("state", ({ status, transport: by }) => {
    if (status === "live") used.add(by);
    if (status === "live") seen.connections += 1;
  });
  for await (const message of client.watch(id)) seen.take(message);
  client.close();
  if ([...used].join() !== transport) throw new Error(`by ${[...used].join()}`);
  return seen;
}
