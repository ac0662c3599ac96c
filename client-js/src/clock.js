// @ts-check
/** Time, which everything here takes as an argument. */

/**
 * Timers as in `globalThis`, and what they go by.
 *
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds, by the clock on the wall: it goes on while a laptop
 *   sleeps, and can be set.
 * @property {(callback: () => void, ms: number) => unknown} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** @type {Clock} */
export const systemClock = {
  now: Date.now,
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

/**
 * @param {Clock} clock
 * @param {number} ms
 * @returns {Promise<void>}
 */
export const sleep = (clock, ms) =>
  new Promise((resolve) => void clock.setTimeout(resolve, ms));
