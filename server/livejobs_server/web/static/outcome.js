// @ts-check
/** What came of a job: its result, or why it failed. */

import { element, setShown, setText } from "./dom.js";

/** @typedef {import("livejobs").JobView} JobView */

/** Longest result in the page, in characters; the whole is a click away. */
const MOST = 20_000;

export class Outcome {
  #error = element("p", { class: "error-text" });
  #kind = element("strong", {});
  #trace = element("pre", { class: "json" });
  #traceBox = element("details", { hidden: true }, element("summary", {}, "Traceback"), this.#trace);
  #failure = element("div", { class: "failure", hidden: true }, this.#kind, this.#error, this.#traceBox);
  #text = element("pre", { class: "json", tabindex: "0" });
  #rest = element("p", { class: "hint", hidden: true });
  #result = element("section", { class: "part", hidden: true });
  #version = -1;
  node = element("div", { class: "outcome" }, this.#failure, this.#result);

  constructor() {
    const title = element("p", { class: "part-title" }, "Result");
    this.#text.setAttribute("aria-label", "Result");
    this.#text.setAttribute("role", "region");
    this.#result.append(title, this.#text, this.#rest);
  }

  /** @param {JobView} job */
  draw(job) {
    if (job.version === this.#version) return;
    this.#version = job.version;
    setShown(this.#failure, job.error !== null && job.status !== "completed");
    if (job.error) {
      setText(this.#kind, job.error.type);
      setText(this.#error, job.error.message);
    }
    const has = job.status === "completed" && job.result !== null;
    setShown(this.#result, has);
    if (has) this.#drawResult(job.result);
  }

  /**
   * What only admins are told, and only by REST.
   *
   * @param {string | undefined} traceback
   */
  drawTraceback(traceback) {
    setText(this.#trace, traceback ?? "");
    setShown(this.#traceBox, traceback !== undefined);
  }

  /** @param {unknown} result */
  #drawResult(result) {
    const text = typeof result === "string" ? result : JSON.stringify(result, null, 2);
    setText(this.#text, text.slice(0, MOST));
    const left = text.length - MOST;
    setShown(this.#rest, left > 0);
    if (left > 0) setText(this.#rest, `${left} more characters are in the REST answer.`);
  }
}
