// @ts-check
/** One job's line in the list. */

import { Bar } from "./bar.js";
import { jobPath } from "./context.js";
import { element, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

/** @typedef {import("livejobs").JobView} JobView */

export class Row {
  #link;
  #subject = element("span", { class: "row-subject" });
  #doing = element("span", { class: "row-doing" });
  #status = element("span", { class: "status" });
  #percent = element("span", { class: "row-percent" });
  #rate = element("span", { class: "row-rate" });
  #time = element("span", { class: "row-time" });
  #more = element("span", { class: "row-more" });
  #bar = new Bar();
  node;
  /** What is to be drawn; it is drawn when the row is near enough to be seen. */
  job;
  /** @type {JobView | null} */
  #drawn = null;

  /** @param {JobView} job */
  constructor(job) {
    this.job = job;
    this.#link = element("a", { class: "row-link", href: jobPath(job.job_id), tabindex: "-1" });
    this.node = element(
      "li",
      { class: "row", "data-job": job.job_id },
      element("span", { class: "row-title" }, this.#link, this.#subject),
      this.#status,
      this.#percent,
      this.#time,
      this.#doing,
      this.#rate,
      this.#more,
      this.#bar.node,
    );
  }

  /** @param {boolean} isCurrent The one that the Tab key goes to. */
  setCurrent(isCurrent) {
    setAttribute(this.#link, "tabindex", isCurrent ? "0" : "-1");
  }

  /** @param {boolean} isSelected Its details are shown beside the list. */
  setSelected(isSelected) {
    setAttribute(this.#link, "aria-current", isSelected ? "true" : null);
  }

  focus() {
    this.#link.focus();
  }

  /** @param {number} now Milliseconds since the epoch. */
  draw(now) {
    const { job } = this;
    if (this.#drawn !== job) this.#drawJob(job, now);
    const [time, more] = times(job, now);
    setText(this.#time, time);
    setText(this.#more, more);
  }

  /**
   * @param {JobView} job
   * @param {number} now
   */
  #drawJob(job, now) {
    this.#drawn = job;
    const isRunning = job.status === "processing";
    setAttribute(this.node, "data-status", job.status);
    setAttribute(this.#status, "data-status", job.status);
    setText(this.#link, job.task);
    setText(this.#subject, format.subject(job));
    setText(this.#status, format.statusWords(job, now));
    setText(this.#percent, isRunning ? format.percent(format.fractionOf(job)) : "");
    setText(this.#rate, isRunning ? format.rate(job.progress?.rate ?? null) : "");
    setText(this.#doing, told(job));
    this.#bar.draw(job, isRunning);
  }
}

/**
 * What there is to say about a job in one line.
 *
 * @param {JobView} job
 * @returns {string}
 */
function told(job) {
  if (job.status === "failed" && job.error) return `${job.error.type}: ${job.error.message}`;
  if (job.status === "processing") return format.doing(job.progress);
  if (job.status === "pending" && job.error) return `after ${job.error.type}: ${job.error.message}`;
  return "";
}

/**
 * The two times of a line: when, and how long.
 *
 * @param {JobView} job
 * @param {number} now
 * @returns {[string, string]}
 */
function times(job, now) {
  const run = format.secondsRun(job, now);
  if (format.isOver(job)) {
    const ended = format.ago(job.completed_at ?? job.updated_at, now);
    return [ended, run === null ? "" : `took ${format.duration(run, true)}`];
  }
  if (job.status === "processing") {
    const left = job.progress?.eta_seconds ?? null;
    const sofar = format.duration(run ?? 0);
    return left === null ? [sofar, ""] : [`${format.duration(left)} left`, `${sofar} so far`];
  }
  const due = job.run_at === null ? 0 : (Date.parse(job.run_at) - now) / 1000;
  return due > 0
    ? [`in ${format.duration(due)}`, ""]
    : [format.ago(job.created_at, now), ""];
}
