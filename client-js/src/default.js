// @ts-check
/** The client of a page that was not told which to use. */

import { JobClient } from "./client.js";

/** @type {Map<string, JobClient>} */
const clients = new Map();

/**
 * @param {string} [url] As in `new JobClient({url})`.
 * @returns {JobClient} The one that everything on the page shares: made at first, or set.
 */
export function defaultClient(url = "") {
  const known = clients.get(url);
  const client = known ?? new JobClient({ url });
  if (!known) clients.set(url, client);
  return client;
}

/**
 * Let components that were not told which client to use take this one.
 *
 * @param {JobClient} client Such as one with a token.
 * @param {string} [url] For those with this `url`.
 */
export function setDefaultClient(client, url = "") {
  clients.set(url, client);
}
