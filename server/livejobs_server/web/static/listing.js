// @ts-check
/** Which jobs are listed: what the feed tells, and older ones page by page, through the filters. */

import { context } from "./context.js";
import { isOver } from "./format.js";

/** @typedef {import("livejobs").Feed} Feed */
/** @typedef {import("livejobs").JobClient} JobClient */
/** @typedef {import("livejobs").JobView} JobView */

/**
 * What is looked for; empty texts look for nothing.
 *
 * @typedef {object} Filters
 * @property {string} q Text in the task, the id or a tag.
 * @property {string} status One of the statuses, or `open` for jobs that are not over.
 * @property {string} task Its whole name.
 * @property {string} tag `key=value`.
 */

/** @type {Filters} */
export const NO_FILTERS = { q: "", status: "", task: "", tag: "" };

const PAGE = 50;
/** After the network or the server has failed, before a page is asked for again. */
const AGAIN_MS = 5_000;

export class Listing {
  /** Jobs of the pages loaded so far. @type {Map<string, JobView>} */
  #loaded = new Map();
  /** @type {string | null} */
  #next = null;
  /** @type {Feed} */
  #feed;
  /** The feed has begun. */
  #isFollowing = false;
  /** @type {Filters} */
  #filters = NO_FILTERS;
  #changed;
  #client;
  #undo = () => {};
  /** Counts the searches, so that a late answer to an earlier one is dropped. */
  #search = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #again;
  whose = "mine";
  /** The first page is still on its way. */
  isLoading = true;
  /** Why the pages could not be loaded. @type {Error | null} */
  error = null;

  /**
   * @param {JobClient} client
   * @param {() => void} changed Called whenever there is something new to show.
   */
  constructor(client, changed) {
    this.#client = client;
    this.#changed = changed;
    this.#feed = this.#follow("mine");
    client.on("problem", (problem) => {
      if (problem.code === "unknown_job" && this.#loaded.delete(problem.job_id)) changed();
    });
    client.on("message", (message) => {
      if (message.type !== "subscribed" || message.feed !== this.#feed.feed) return;
      // What ended after a page was read and before the feed began, or what was deleted while it was
      // away for long, is not told: the pages say it.
      const isTold = this.#isFollowing && message.recovered !== false;
      this.#isFollowing = true;
      if (!isTold) void this.load();
    });
  }

  /** Whether there are older jobs to be loaded. */
  get hasOlder() {
    return this.#next !== null;
  }

  /** Whether anything is filtered out. */
  get isFiltered() {
    return Object.values(this.#filters).some((value) => value !== "");
  }

  /** Why the feed ended, and nothing is live any more; null: it has not. */
  get feedError() {
    return this.#feed.error;
  }

  /** @returns {JobView[]} The jobs to show, the newest first. */
  jobs() {
    const found = new Map(this.#loaded);
    for (const job of this.#feed.jobs) {
      const known = found.get(job.job_id);
      if (!known || known.version <= job.version) found.set(job.job_id, job);
    }
    return [...found.values()].filter((job) => this.#fits(job)).sort(newestFirst);
  }

  /** @param {string} whose `mine` or `all`. */
  setWhose(whose) {
    if (whose === this.whose) return;
    this.whose = whose;
    this.#undo();
    this.#feed.close();
    this.#feed = this.#follow(whose);
    void this.load();
  }

  /** @param {Filters} filters */
  setFilters(filters) {
    this.#filters = filters;
    this.#changed();
    void this.load();
  }

  /** Load the first page anew. */
  async load() {
    this.#search += 1;
    this.isLoading = true;
    const page = await this.#page(null);
    if (page === null) return;
    this.#loaded = new Map(page.items.map((job) => [job.job_id, job]));
    this.#keep(this.#feed.jobs);
    this.#turn(page.next);
  }

  /** Load the next page of older jobs. */
  async loadOlder() {
    const page = await this.#page(this.#next);
    if (page === null) return;
    for (const job of page.items) this.#loaded.set(job.job_id, job);
    this.#turn(page.next);
  }

  /**
   * Show a job at once that has just been started.
   *
   * @param {JobView} job
   */
  add(job) {
    this.#feed.add([job]);
    this.#changed();
  }

  /** @param {string | null} next */
  #turn(next) {
    this.#next = next;
    this.isLoading = false;
    this.error = null;
    this.#changed();
  }

  /**
   * @param {string | null} page
   * @returns {Promise<{items: JobView[], next: string | null} | null>} Null: it failed, or is no
   *   longer wanted.
   */
  async #page(page) {
    const search = this.#search;
    clearTimeout(this.#again);
    try {
      const found = await this.#client.request("GET", `/v1/jobs?${this.#query(page)}`);
      return search === this.#search ? found : null;
    } catch (error) {
      if (search !== this.#search) return null;
      this.isLoading = false;
      this.error = /** @type {Error} */ (error);
      if (mayPass(this.error)) this.#again = setTimeout(() => this.#retry(page), AGAIN_MS);
      this.#changed();
      return null;
    }
  }

  /** @param {string | null} page The one that could not be loaded. */
  #retry(page) {
    void (page === null ? this.load() : this.loadOlder());
  }

  /** @param {string | null} page */
  #query(page) {
    const { q, status, task, tag } = this.#filters;
    const query = new URLSearchParams({ limit: String(PAGE) });
    for (const each of statuses(status)) query.append("status", each);
    if (q) query.set("q", q);
    if (task) query.set("task", task);
    if (tag) query.set("tag", tag);
    // To an admin the list shows everybody's jobs, unless it is asked not to.
    if (context.isAdmin && this.whose === "mine") query.set("owner", context.owner);
    if (page !== null) query.set("page", page);
    return query;
  }

  /**
   * The filters as the server applies them.
   *
   * @param {JobView} job
   * @returns {boolean}
   */
  #fits(job) {
    const { q, status, task, tag } = this.#filters;
    if (this.whose === "mine" && job.owner !== context.owner) return false;
    if (status && !statuses(status).includes(job.status)) return false;
    if (task && job.task !== task) return false;
    const [key, ...value] = tag.split("=");
    if (tag && job.tags[String(key)] !== value.join("=")) return false;
    return !q || holds(job, q.toLowerCase());
  }

  /** @param {string} whose */
  #follow(whose) {
    const feed = this.#client.feed(whose);
    this.#isFollowing = false;
    this.#undo = feed.subscribe(() => {
      this.#keep(feed.jobs);
      this.#changed();
    });
    return feed;
  }

  /**
   * Take over what the feed tells of jobs that were loaded: it forgets jobs in time.
   *
   * @param {readonly JobView[]} jobs
   */
  #keep(jobs) {
    for (const job of jobs) {
      const known = this.#loaded.get(job.job_id);
      if (known && known.version <= job.version) this.#loaded.set(job.job_id, job);
    }
  }
}

/**
 * @param {Error} error
 * @returns {boolean} Whether the same request may succeed later.
 */
const mayPass = (error) => !("status" in error) || /^(429|5..)$/.test(String(error.status));

/** @param {string} status */
const statuses = (status) =>
  status === "open" ? ["pending", "processing"] : status ? [status] : [];

/**
 * @param {JobView} job
 * @param {string} text In lower case.
 */
function holds(job, text) {
  const places = [job.task, job.job_id, ...Object.entries(job.tags).flat()];
  return places.some((place) => place.toLowerCase().includes(text));
}

/**
 * @param {JobView} one
 * @param {JobView} other
 */
function newestFirst(one, other) {
  if (one.created_at !== other.created_at) return one.created_at < other.created_at ? 1 : -1;
  return one.job_id < other.job_id ? 1 : -1;
}

/**
 * How many of these jobs are waiting, running and over, in words.
 *
 * @param {JobView[]} jobs
 * @returns {string}
 */
export function counted(jobs) {
  const running = jobs.filter((job) => job.status === "processing").length;
  const waiting = jobs.filter((job) => job.status === "pending").length;
  const over = jobs.filter(isOver).length;
  const parts = [
    running ? `${running} running` : "",
    waiting ? `${waiting} waiting` : "",
    over ? `${over} over` : "",
  ];
  return parts.filter((part) => part).join(", ");
}
