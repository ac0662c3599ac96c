// @ts-check
/** The list as it is seen: a line for each job, drawn where it is near the window. */

import { setChildren } from "./dom.js";
import { Row } from "./row.js";

/** @typedef {import("livejobs").JobView} JobView */

/** Lines this far outside of the window are drawn too, so that scrolling meets finished ones. */
const MARGIN = "300px 0px";

export class Rows {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** Those near the window. @type {Set<Row>} */
  #near = new Set();
  /** @type {WeakMap<Element, Row>} */
  #ofNode = new WeakMap();
  #observer;
  #list;
  #order = "";
  /** The job that the Tab key goes to. */
  #current = "";
  #selected = "";
  #drawSoon;

  /**
   * @param {HTMLElement} list
   * @param {() => void} drawSoon Called when lines have come near that are not drawn yet.
   * @param {(jobId: string) => boolean} select Called when a line is chosen; false: go to its page.
   */
  constructor(list, drawSoon, select) {
    this.#list = list;
    this.#drawSoon = drawSoon;
    this.#observer = new IntersectionObserver((entries) => this.#moved(entries), {
      rootMargin: MARGIN,
    });
    list.addEventListener("click", (event) => {
      const id = jobOf(event);
      const isPlain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
      if (id !== null && isPlain && select(id)) event.preventDefault();
    });
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.#setCurrent(jobOf(event) ?? ""));
  }

  /**
   * Show these jobs, in this order.
   *
   * @param {JobView[]} jobs
   */
  show(jobs) {
    const order = jobs.map((job) => job.job_id).join(" ");
    for (const job of jobs) {
      const row = this.#rows.get(job.job_id);
      if (row) row.job = job;
      else this.#add(job);
    }
    if (order !== this.#order) this.#arrange(jobs);
    this.#order = order;
    this.draw();
  }

  /** Draw the lines that can be seen. */
  draw() {
    const now = Date.now();
    for (const row of this.#near) row.draw(now);
  }

  /** @param {string} jobId The job whose details are shown; "": none. */
  select(jobId) {
    this.#rows.get(this.#selected)?.setSelected(false);
    this.#rows.get(jobId)?.setSelected(true);
    this.#selected = jobId;
  }

  /** @param {JobView} job */
  #add(job) {
    const row = new Row(job);
    row.setSelected(job.job_id === this.#selected);
    // Once, wherever it is: who has the page read aloud does not scroll.
    row.draw(Date.now());
    this.#rows.set(job.job_id, row);
    this.#ofNode.set(row.node, row);
    this.#observer.observe(row.node);
  }

  /** @param {JobView[]} jobs */
  #arrange(jobs) {
    const shown = new Set(jobs.map((job) => job.job_id));
    for (const [id, row] of this.#rows) {
      if (shown.has(id)) continue;
      this.#observer.unobserve(row.node);
      this.#near.delete(row);
      this.#rows.delete(id);
    }
    const nodes = jobs.map((job) => /** @type {Row} */ (this.#rows.get(job.job_id)).node);
    setChildren(this.#list, nodes);
    if (!this.#rows.has(this.#current)) this.#setCurrent(jobs[0]?.job_id ?? "");
  }

  /** @param {IntersectionObserverEntry[]} entries */
  #moved(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.#ofNode.get(target);
      if (!row) continue;
      if (isIntersecting) this.#near.add(row);
      else this.#near.delete(row);
    }
    this.#drawSoon();
  }

  /** @param {string} jobId */
  #setCurrent(jobId) {
    if (jobId === this.#current) return;
    this.#rows.get(this.#current)?.setCurrent(false);
    this.#rows.get(jobId)?.setCurrent(true);
    this.#current = jobId;
  }

  /** @param {KeyboardEvent} event Arrow keys, Home and End go from line to line. */
  #key(event) {
    const nodes = [...this.#list.children];
    const at = nodes.findIndex((node) => node.contains(document.activeElement));
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: nodes.length - 1 }[event.key];
    const node = goal === undefined || at < 0 ? undefined : nodes[goal];
    if (!node) return;
    event.preventDefault();
    this.#ofNode.get(node)?.focus();
  }
}

/**
 * @param {Event} event
 * @returns {string | null} The job whose line it happened in.
 */
function jobOf(event) {
  const target = event.target instanceof Element ? event.target : null;
  return target?.closest("[data-job]")?.getAttribute("data-job") ?? null;
}
