// @ts-check
/**
 * Lets another program drive the browser: a line of JSON on the standard input is one call of
 * Playwright's API, a line on the standard output its outcome.
 *
 *     {"id": 1, "on": 0, "call": "newContext", "args": []}     handle 0 is the browser
 *     {"id": 1, "value": {"handle": 1}}                        or {"id": 1, "error": "…"}
 *
 * What a call gives that is not JSON gets a handle, to be called in turn; a dot in `call` goes on to
 * a part of it (`clock.install`). What pages say is told unasked: `{"on": 2, "said": "…"}`. The
 * browser ends with the input.
 */

import { createInterface } from "node:readline";

import { launch } from "./browser.mjs";

/** @typedef {{id: number, on: number, call: string, args: unknown[]}} Call */

/** @type {Map<number, any>} */
const objects = new Map();
/** @type {Map<any, number>} */
const handles = new Map();

/** @param {object} line */
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/**
 * @param {any} object
 * @returns {number} Always the same for the same object.
 */
function handleOf(object) {
  const known = handles.get(object);
  if (known !== undefined) return known;
  const handle = handles.size;
  handles.set(object, handle);
  objects.set(handle, object);
  if (object.constructor.name === "Page") listen(object, handle);
  return handle;
}

/**
 * @param {import("playwright-core").Page} page
 * @param {number} on
 */
function listen(page, on) {
  page.on("console", (message) => write({ on, said: `${message.type()}: ${message.text()}` }));
  page.on("pageerror", (error) => write({ on, said: `uncaught: ${error.stack ?? error}` }));
  page.on("crash", () => write({ on, said: "the page crashed" }));
}

/**
 * @param {any} value
 * @returns {unknown} Itself where it is JSON, else its handle.
 */
function outcome(value) {
  const prototype = typeof value === "object" && value !== null && Object.getPrototypeOf(value);
  const isJson = !prototype || prototype === Object.prototype || Array.isArray(value);
  return isJson ? value : { handle: handleOf(value) };
}

/** @param {Call} call */
async function answer({ id, on, call, args }) {
  try {
    let owner = objects.get(on);
    const path = call.split(".");
    const name = /** @type {string} */ (path.pop());
    for (const part of path) owner = owner[part];
    write({ id, value: outcome(await owner[name](...args)) ?? null });
  } catch (error) {
    write({ id, error: String(/** @type {Error} */ (error).message ?? error) });
  }
}

try {
  handleOf(await launch(process.argv.slice(2)));
} catch (error) {
  write({ id: 0, error: String(/** @type {Error} */ (error).message) });
  process.exit(1);
}
write({ id: 0, value: objects.get(0).version() });
for await (const line of createInterface({ input: process.stdin })) void answer(JSON.parse(line));
await objects.get(0).close();
