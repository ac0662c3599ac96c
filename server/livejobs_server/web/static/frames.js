// @ts-check
/**
 * Drawing at most once a frame: whoever has something new to show says so as often as it likes, and
 * is called once, before the next frame. While the tab is hidden nothing is drawn; when it is
 * looked at again, all of it is, at once.
 */

/** @typedef {() => void} Draw */

/** @type {Set<Draw>} */
const waiting = new Set();
let isAsked = false;

/**
 * Call `draw` before the next frame; asking again until then changes nothing.
 *
 * @param {Draw} draw
 */
export function drawSoon(draw) {
  waiting.add(draw);
  ask();
}

/**
 * Call `draw` about once a second while the tab is looked at, for what changes by time alone.
 *
 * @param {Draw} draw
 * @returns {() => void} Ends it.
 */
export function drawEachSecond(draw) {
  const timer = setInterval(() => drawSoon(draw), 1000);
  return () => clearInterval(timer);
}

function ask() {
  if (isAsked || waiting.size === 0 || document.hidden) return;
  isAsked = true;
  requestAnimationFrame(drawAll);
}

function drawAll() {
  isAsked = false;
  const draws = [...waiting];
  waiting.clear();
  for (const draw of draws) draw();
}

document.addEventListener("visibilitychange", () => {
  // Not in a frame: the first picture that is seen shall be the true one.
  if (!document.hidden) drawAll();
});
