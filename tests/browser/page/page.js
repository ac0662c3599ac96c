// @ts-check
/**
 * The page of the tests: it shows a job with the real client, as a page of anybody's would, and
 * keeps account of all that it was told in `seen`.
 */

import { JobClient } from "/client.js";

/** @typedef {import("/client.js").Watch} Watch */

/**
 * What came in, for the test to ask after.
 *
 * @typedef {object} Seen
 * @property {string[]} ids Cursors of all entries, as they came.
 * @property {string[]} lines Texts of all log lines, as they came.
 * @property {string} output All pieces of output, as they came.
 * @property {string[]} transports Each that was live, once for each time.
 * @property {string[]} states What became of the connection.
 * @property {unknown[]} views The progress or status of every view, as they came.
 * @property {boolean} ended
 * @property {string | null} error
 */

/** However often the job changes, it is drawn no more often than this. */
const DRAW_MS = 50;

/** @type {JobClient} */
let client;
/** @type {Watch} */
let watch;
/** Set: the job is to be drawn. @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {Seen} */
const seen = {
  ids: [],
  lines: [],
  output: "",
  transports: [],
  states: [],
  views: [],
  ended: false,
  error: null,
};

/**
 * Show a job.
 *
 * @param {string} id
 * @param {import("/client.js").ClientOptions} [options]
 */
function show(id, options = {}) {
  client = new JobClient({ token: async () => (await fetch("/page/token")).text(), ...options });
  client.on("state", (state) => {
    seen.states.push(`${state.status} ${state.transport ?? ""} ${state.error ?? ""}`);
    if (state.transport && state.transport !== seen.transports.at(-1))
      seen.transports.push(state.transport);
  });
  watch = client.watch(id);
  watch.on("log", ({ id: cursor, lines }) => {
    seen.ids.push(cursor);
    for (const { text } of lines) seen.lines.push(text);
  });
  watch.on("output", ({ id: cursor, text }) => {
    seen.ids.push(cursor);
    seen.output += text;
  });
  watch.on("end", () => {
    seen.ended = true;
  });
  watch.done.catch((error) => {
    seen.error = `${error}`;
  });
  watch.on("change", () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      draw();
    }, DRAW_MS);
  });
}

/** Draw the job anew. */
function draw() {
  const { view, entries } = watch.snapshot;
  if (!view) return;
  seen.views.push(view.progress?.current ?? view.status);
  find("#status").textContent = view.status;
  const bar = /** @type {HTMLProgressElement} */ (find("#bar"));
  bar.value = view.status === "completed" ? 1 : (view.progress?.fraction ?? 0);
  const lines = entries.flatMap((entry) => (entry.type === "log" ? entry.lines : []));
  const items = lines.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text }));
  find("#log").replaceChildren(...items);
  const pieces = entries.map((entry) => (entry.type === "output" ? entry.text : ""));
  find("#output").textContent = pieces.join("");
}

/** @param {string} selector */
const find = (selector) => /** @type {HTMLElement} */ (document.querySelector(selector));

/** What the page shows of the job. */
const shown = () => ({
  status: find("#status").textContent,
  bar: /** @type {HTMLProgressElement} */ (find("#bar")).value,
  lines: [...document.querySelectorAll("#log li")].map((item) => item.textContent),
  output: find("#output").textContent,
});

Object.assign(globalThis, {
  seen,
  show,
  shown,
  view: () => watch.view,
  state: () => client.state,
  isDrawn: () => timer === undefined,
});
