// @ts-check
/** Starting jobs: files that are dropped or chosen, and tasks by their name. */

import { context } from "./context.js";
import { byId, element, setAttribute, setShown, setText } from "./dom.js";
import { size } from "./format.js";
import { upload } from "./upload.js";

/** @typedef {import("livejobs").JobClient} JobClient */

/**
 * Bring the part of the page to life in which jobs are started.
 *
 * @param {JobClient} client
 * @param {(jobId: string) => void} started Called with the first of the jobs that were started.
 */
export function showStart(client, started) {
  const isUseful = context.mayChange && (context.takesFiles || context.tasks.length > 0);
  setShown(byId("start", HTMLElement), isUseful);
  if (!isUseful) return;
  if (context.takesFiles) showDrop(started);
  if (context.tasks.length > 0) showForm(client, started);
}

/** @param {string} problem "" takes an earlier one away. */
function say(problem) {
  const node = byId("start-problem", HTMLElement);
  setText(node, problem);
  setShown(node, problem !== "");
}

// -- files -----------------------------------------------------------------------------------------

/** @param {(jobId: string) => void} started */
function showDrop(started) {
  const drop = byId("drop", HTMLElement);
  const input = byId("files", HTMLInputElement);
  setShown(drop, true);
  setText(
    byId("drop-note", HTMLElement),
    `PDF, DOCX, HTML, Markdown or text, up to ${size(context.maxFileBytes)} each`,
  );
  byId("choose", HTMLButtonElement).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    void send([...(input.files ?? [])], started);
    input.value = "";
  });
  takeDrops(drop, (files) => void send(files, started));
}

/**
 * Files may be dropped anywhere in the window.
 *
 * @param {HTMLElement} drop Shows that they may.
 * @param {(files: File[]) => void} take
 */
function takeDrops(drop, take) {
  /** @param {DragEvent} event */
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  /** @param {boolean} isOver */
  const show = (isOver) => setAttribute(drop, "data-over", isOver ? "true" : null);
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(true);
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) show(false);
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(false);
    take([...(event.dataTransfer?.files ?? [])]);
  });
}

/**
 * @param {File[]} files
 * @param {(jobId: string) => void} started
 */
async function send(files, started) {
  if (files.length === 0) return;
  say(refusal(files));
  if (refusal(files)) return;
  const shown = new Sending(files);
  try {
    const jobs = await upload(`${context.base}/v1/rag/ingest`, files, (done) => shown.draw(done));
    if (jobs[0]) started(jobs[0].job_id);
  } catch (error) {
    say(/** @type {Error} */ (error).message);
  } finally {
    shown.end();
  }
}

/**
 * @param {File[]} files
 * @returns {string} Why the server would not take them; "": it might.
 */
function refusal(files) {
  const tooLarge = files.find((file) => file.size > context.maxFileBytes);
  if (tooLarge) return `${tooLarge.name} is larger than ${size(context.maxFileBytes)}.`;
  if (files.length > context.maxFiles) return `These are more than ${context.maxFiles} files.`;
  return "";
}

/** Files that are on their way to the server. */
class Sending {
  #bar = element("progress", { max: "1" });
  #node;

  /** @param {File[]} files */
  constructor(files) {
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    const name = files.length === 1 ? String(files[0]?.name) : `${files.length} files`;
    this.#bar.setAttribute("aria-label", `Sending ${name}`);
    this.#node = element("li", {}, element("span", {}, `Sending ${name}, ${size(bytes)}`), this.#bar);
    const list = byId("uploads", HTMLElement);
    list.append(this.#node);
    setShown(list, true);
  }

  /** @param {number} done From 0 to 1. */
  draw(done) {
    this.#bar.value = done;
  }

  end() {
    this.#node.remove();
    const list = byId("uploads", HTMLElement);
    setShown(list, list.childElementCount > 0);
  }
}

// -- tasks -----------------------------------------------------------------------------------------

/**
 * @param {JobClient} client
 * @param {(jobId: string) => void} started
 */
function showForm(client, started) {
  const form = byId("task-form", HTMLFormElement);
  setShown(form, true);
  suggest(byId("tasks", HTMLElement), []);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void begin(client, form, started);
  });
}

/**
 * Offer names of tasks that the server starts: those it names, and those that ran before.
 *
 * @param {HTMLElement} list A datalist.
 * @param {string[]} known Names of tasks that have been seen.
 */
export function suggest(list, known) {
  const named = context.tasks.filter((name) => !/[*?[]/.test(name));
  const fitting = known.filter((name) => context.tasks.some((pattern) => fits(name, pattern)));
  const names = [...new Set([...named, ...fitting])].sort();
  byId("task", HTMLInputElement).placeholder = names[0] ?? String(context.tasks[0]);
  if (list.childElementCount === names.length) return;
  list.replaceChildren(...names.map((name) => element("option", { value: name })));
}

/**
 * @param {string} name
 * @param {string} pattern As in `LIVEJOBS_TASKS`; * stands for any text.
 */
function fits(name, pattern) {
  const parts = pattern.split("*").map((part) => part.replace(/[.+^${}()|\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*").replaceAll("?", ".")}$`).test(name);
}

/**
 * @param {JobClient} client
 * @param {HTMLFormElement} form
 * @param {(jobId: string) => void} started
 */
async function begin(client, form, started) {
  const data = new FormData(form);
  const button = form.querySelector("button");
  say("");
  try {
    const given = readArguments(String(data.get("arguments")));
    if (button) button.disabled = true;
    const made = await client.enqueue(String(data.get("task")).trim(), given);
    started(made.job_id);
  } catch (error) {
    say(/** @type {Error} */ (error).message);
  } finally {
    if (button) button.disabled = false;
  }
}

/**
 * @param {string} text JSON: an object of named arguments, a list of others, or nothing.
 * @returns {{args?: unknown[], kwargs?: Record<string, unknown>}}
 * @throws {Error} It is neither; the message is for people.
 */
export function readArguments(text) {
  if (text.trim() === "") return {};
  /** @type {unknown} */
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('The arguments are not JSON. Write {"name": value, …} or [value, …].');
  }
  if (Array.isArray(value)) return { args: value };
  if (typeof value === "object" && value !== null)
    return { kwargs: /** @type {Record<string, unknown>} */ (value) };
  throw new Error("The arguments have to be a JSON object, by name, or a list, in order.");
}
