// @ts-check
/** Requests to the server, and refusals as errors. */

import { RequestError } from "./errors.js";

/** @typedef {import("./client.js").Settled} Settled */
/** @typedef {import("./session.js").Session} Session */

/** Watches that are begun together make one new request. */
const TOGETHER_MS = 50;

/**
 * Send a request.
 *
 * @param {Settled} options
 * @param {string | null | undefined} token
 * @param {string} path Below the server's base, such as "/v1/jobs".
 * @param {RequestInit} init A body is JSON.
 * @returns {Promise<Response>} An answer of success.
 * @throws {RequestError} The server refused.
 */
export async function call(options, token, path, init) {
  const response = await options.fetch(options.url + path, {
    ...init,
    headers: {
      "Content-Type": "application/json",
      ...(token && { Authorization: `Bearer ${token}` }),
      .../** @type {Record<string, string>} */ (init.headers),
    },
  });
  if (response.ok) return response;
  // A proxy's page instead of a problem document: the status has to do.
  const problem = await response.json().catch(() => {});
  const afterMs = 1000 * +/** @type {any} */ (response.headers.get("Retry-After")) || 0;
  throw new RequestError(response.status, problem || {}, afterMs);
}

/**
 * Ask for what is watched again and again: when the last answer is over, and as soon as a watch is
 * added.
 *
 * @template T
 * @param {Session} session
 * @param {string} path
 * @param {object} more What the request holds beside what is watched.
 * @param {(response: Response, items: import("./session.js").Item[]) => Promise<T>} read
 * @returns {Promise<T | undefined>} What `read` made of the answer; undefined: a watch was added.
 */
export async function ask(session, path, more, read) {
  const { options, token } = session;
  const breaker = new AbortController();
  const stop = () => breaker.abort();
  /** @type {unknown} */
  let timer;
  session.stop = stop;
  session.changed = (op) => {
    if (op == "subscribe") timer ??= options.clock.setTimeout(stop, TOGETHER_MS);
  };
  try {
    // The server takes no more at once; the others have their turn when some of these are over.
    const items = session.items().slice(0, 1000);
    const body = JSON.stringify({ subscribe: items, ...more });
    const { signal } = breaker;
    return await read(await call(options, token, path, { method: "POST", body, signal }), items);
  } catch (error) {
    if (!timer || session.isOver || !breaker.signal.aborted) throw error;
    return undefined;
  } finally {
    options.clock.clearTimeout(timer);
  }
}
