// @ts-check
/** What happens, said to those who have the page read aloud: politely, and not too often. */

import { byId } from "./dom.js";

/** Between two announcements; what comes in between is said together. */
const PAUSE_MS = 4_000;
/** Said together at most; the rest is counted. */
const MOST = 3;

/** @type {string[]} */
let waiting = [];
let isPausing = false;

/**
 * Say something soon.
 *
 * @param {string} words A whole sentence.
 */
export function announce(words) {
  waiting.push(words);
  if (!isPausing) say();
}

function say() {
  const more = waiting.length - MOST;
  const said = waiting.slice(0, MOST);
  waiting = [];
  isPausing = said.length > 0;
  if (!isPausing) return;
  if (more > 0) said.push(`And ${more} more.`);
  byId("announcements", HTMLElement).textContent = said.join(" ");
  setTimeout(say, PAUSE_MS);
}
