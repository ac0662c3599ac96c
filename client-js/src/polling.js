// @ts-check
/** Polling, held by the server until there is something new: works through every proxy. */

import { sleep } from "./clock.js";
import { ask } from "./http.js";

/** @typedef {import("./session.js").Ending} Ending */
/** @typedef {import("./session.js").Session} Session */

/** How long the server may hold a poll: less than the silence that counts as a dead connection. */
const WAIT_SECONDS = 20;
/** Between two polls, so that a job which talks all the time costs two requests a second. */
const PAUSE_MS = 500;

/**
 * Poll until something goes wrong.
 *
 * @param {Session} session
 * @returns {Promise<Ending>}
 * @throws {Error} A poll failed.
 */
export async function polling(session) {
  // The first is answered at once, which shows that this works.
  for (let wait = 0; !session.isOver; wait = WAIT_SECONDS) {
    await ask(session, "/v1/poll", { wait }, async (response, items) => {
      const { messages, since } = await response.json();
      const marks = items.map(({ feed }) => ({ type: "subscribed", feed, since }));
      for (const message of [...marks, ...messages]) session.heard(JSON.stringify(message));
    });
    await sleep(session.options.clock, PAUSE_MS);
  }
  return {};
}
