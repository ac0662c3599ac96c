// @ts-check
/** The parts of a job, each with its bar: those that run first, and the others page by page. */

import { element, setShown, setText } from "./dom.js";
import { count, isOver, partsOver } from "./format.js";
import { drawEachSecond, drawSoon } from "./frames.js";
import { Rows } from "./rows.js";

/** @typedef {import("livejobs").JobClient} JobClient */
/** @typedef {import("livejobs").JobView} JobView */
/** @typedef {{items: JobView[], next: string | null}} JobPage */

/** Which parts there are is asked for this often at most, while their counts change. */
const PAUSE_MS = 1_000;
const PAGE = 50;
/** So many parts that are not over are watched at a time; those that run come first. */
const MOST_WATCHED = 100;

export class Parts {
  #client;
  #jobId;
  /** What is known of the parts that were loaded. @type {Map<string, JobView>} */
  #known = new Map();
  /** Those that are watched, so that their bars move. @type {Map<string, () => void>} */
  #watched = new Map();
  /** The next page of older ones. @type {string | null} */
  #next = null;
  /** The version of the job for which the parts were asked for. */
  #version = 0;
  #isAsking = false;
  #summary = element("p", { class: "hint" });
  #list = element("ul", { class: "rows" });
  #older = element("button", { class: "earlier", type: "button", click: () => void this.#more() });
  #rows = new Rows(this.#list, () => drawSoon(this.#drawRows), () => false);
  node = element("section", { class: "part", hidden: true });

  /**
   * @param {JobClient} client
   * @param {string} jobId The job whose parts they are.
   */
  constructor(client, jobId) {
    this.#client = client;
    this.#jobId = jobId;
    setText(this.#older, "Show older parts");
    this.node.append(element("h2", {}, "Parts"), this.#summary, this.#list, this.#older);
    drawEachSecond(this.#drawRows);
  }

  /** @param {JobView} job Where it is a newer one, its parts are asked for. */
  draw(job) {
    if (job.children === null) return;
    setShown(this.node, true);
    setText(this.#summary, summary(job.children));
    if (job.version <= this.#version || this.#isAsking) return;
    this.#isAsking = true;
    void this.#ask(job.version, job.children.total).finally(() => {
      setTimeout(() => (this.#isAsking = false), PAUSE_MS);
    });
  }

  /**
   * @param {number} version
   * @param {number} total
   */
  async #ask(version, total) {
    try {
      const [running, newest] = await Promise.all([
        this.#page({ status: "processing" }),
        this.#page({}),
      ]);
      this.#take([...running.items, ...newest.items]);
      if (this.#known.size < total) this.#next ??= newest.next;
      this.#version = version;
    } catch {
      // The job's own state says what is wrong; with the next change it is tried again.
    }
  }

  async #more() {
    if (!this.#next) return;
    this.#older.disabled = true;
    try {
      const page = await this.#page({ page: this.#next });
      this.#next = page.next;
      this.#take(page.items);
    } catch {
      // It can be pressed again.
    } finally {
      this.#older.disabled = false;
    }
  }

  /**
   * @param {Record<string, string>} filters
   * @returns {Promise<JobPage>}
   */
  #page(filters) {
    const query = new URLSearchParams({ parent: this.#jobId, limit: String(PAGE), ...filters });
    return this.#client.request("GET", `/v1/jobs?${query}`);
  }

  /** @param {JobView[]} jobs */
  #take(jobs) {
    for (const job of jobs) {
      const known = this.#known.get(job.job_id);
      if (!known || known.version <= job.version) this.#known.set(job.job_id, job);
      const isNew = !isOver(job) && !this.#watched.has(job.job_id);
      if (isNew && this.#watched.size < MOST_WATCHED) this.#follow(job.job_id);
    }
    drawSoon(this.#drawAll);
  }

  /** @param {string} jobId */
  #follow(jobId) {
    const watch = this.#client.watch(jobId, { entries: false });
    // What comes in one go is told in one go, perhaps before this function returns.
    const undo = watch.subscribe(() => {
      const job = watch.view;
      if (job) this.#known.set(jobId, job);
      if (job && isOver(job)) this.#leave(jobId);
      drawSoon(this.#drawAll);
    });
    this.#watched.set(jobId, () => {
      undo();
      watch.close();
    });
  }

  /** @param {string} jobId */
  #leave(jobId) {
    this.#watched.get(jobId)?.();
    this.#watched.delete(jobId);
  }

  #drawAll = () => {
    this.#rows.show([...this.#known.values()].sort(inOrder));
    setShown(this.#older, Boolean(this.#next));
  };

  #drawRows = () => this.#rows.draw();
}

/** @param {NonNullable<JobView["children"]>} children */
function summary(children) {
  const { total, failed, cancelled } = children;
  const others = [
    failed ? `${count(failed)} failed` : "",
    cancelled ? `${count(cancelled)} cancelled` : "",
  ];
  const over = `${count(partsOver(children))} of ${count(total)} are over`;
  return [over, ...others.filter((text) => text)].join(", ");
}

/**
 * Those that run, then those that are over, the last one first, then those that wait.
 *
 * @param {JobView} one
 * @param {JobView} other
 */
function inOrder(one, other) {
  const places = place(one) - place(other);
  if (places) return places;
  const [first, second] = [one, other].map((job) => job.completed_at ?? job.created_at);
  if (first !== second) return String(first) < String(second) ? 1 : -1;
  return one.job_id < other.job_id ? 1 : -1;
}

/** @param {JobView} job */
function place(job) {
  if (job.status === "processing") return 0;
  return isOver(job) ? 1 : 2;
}
