// @ts-check
/**
 * Server-sent events, read by `fetch` so that credentials travel in a header: one stream for
 * everything that is watched, opened anew where a watch is added.
 */

import { ask } from "./http.js";

/** @typedef {import("./session.js").Ending} Ending */
/** @typedef {import("./session.js").Session} Session */

/**
 * Keep a stream until the server closes it.
 *
 * @param {Session} session
 * @returns {Promise<Ending>}
 * @throws {Error} It broke off, or was refused.
 */
export async function eventStream(session) {
  for (;;) {
    const ending = await ask(session, "/v1/events", {}, (response) => read(session, response));
    if (ending) return ending;
  }
}

/**
 * Read a stream: a message to a `data:` line, as livejobs writes them. Their cursors are in them.
 *
 * @param {Session} session
 * @param {Response} response
 * @returns {Promise<Ending>}
 */
async function read(session, response) {
  const body = /** @type {ReadableStream<any>} */ (response.body);
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let afterMs = 0;
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { afterMs };
    session.heard();
    const lines = (rest + value).split(/\r?\n/);
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      const [, field, text] = /^(data|retry): ?(.*)/.exec(line) ?? [];
      if (field == "data") session.heard(text);
      else if (text) afterMs = +text;
    }
  }
}
