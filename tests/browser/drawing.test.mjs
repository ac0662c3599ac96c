// @ts-check
/** Drawing at most once a frame, whatever comes, and not at all while nobody looks. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

/** What waits for the next frame. @type {(() => void)[]} */
const asked = [];
/** Who is told that the tab was hidden or shown. @type {(() => void)[]} */
const told = [];
const page = {
  hidden: false,
  addEventListener: (/** @type {string} */ _event, /** @type {() => void} */ listener) =>
    told.push(listener),
};
Object.assign(globalThis, {
  document: page,
  requestAnimationFrame: (/** @type {() => void} */ callback) => asked.push(callback),
});
const { drawSoon } = await import("../../server/livejobs_server/web/static/frames.js");

function frame() {
  for (const callback of asked.splice(0)) callback();
}

/** @param {boolean} hidden */
function show(hidden) {
  page.hidden = hidden;
  for (const listener of told) listener();
}

beforeEach(frame);

test("what changes a thousand times before a frame is drawn once", () => {
  let drawn = 0;
  const draw = () => (drawn += 1);
  for (let change = 0; change < 1000; change += 1) drawSoon(draw);
  assert.equal(asked.length, 1);
  assert.equal(drawn, 0);
  frame();
  assert.equal(drawn, 1);
  assert.equal(asked.length, 0);
});

test("all that changed are drawn in the same frame, in the order of their first changes", () => {
  /** @type {string[]} */
  const drawn = [];
  const [first, second] = ["first", "second"].map((name) => () => void drawn.push(name));
  drawSoon(/** @type {() => void} */ (first));
  drawSoon(/** @type {() => void} */ (second));
  drawSoon(/** @type {() => void} */ (first));
  assert.equal(asked.length, 1);
  frame();
  assert.deepEqual(drawn, ["first", "second"]);
});

test("what changes while it is drawn waits for the next frame", () => {
  let drawn = 0;
  const draw = () => {
    drawn += 1;
    if (drawn < 3) drawSoon(draw);
  };
  drawSoon(draw);
  for (let count = 1; count <= 4; count += 1) {
    frame();
    assert.equal(drawn, Math.min(count, 3));
  }
});

test("a hidden page asks for no frame, and draws all at once when it is seen", () => {
  let drawn = 0;
  show(true);
  drawSoon(() => (drawn += 1));
  assert.equal(asked.length, 0);
  assert.equal(drawn, 0);
  show(false);
  assert.equal(drawn, 1);
});
