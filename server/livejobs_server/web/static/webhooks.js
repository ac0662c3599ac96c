// @ts-check
/** Who is told of a job's ends by webhook, and what came of it. */

import { context, jobPath } from "./context.js";
import { element, setShown, setText } from "./dom.js";
import { duration, isOver } from "./format.js";
import { drawEachSecond, drawSoon } from "./frames.js";

/** @typedef {import("livejobs").JobClient} JobClient */
/** @typedef {import("livejobs").JobView} JobView */
/** @typedef {import("livejobs").Watch} Watch */

/**
 * A job that tells of an end, as the server lists it.
 *
 * @typedef {object} Delivery
 * @property {string} job_id
 * @property {string} host
 * @property {JobView["status"]} status
 * @property {{status_code: number | null, error: string | null}[]} tries
 * @property {string | null} next_try_at ISO 8601.
 */

/** A delivery may change several times at once; what came of it is asked for this often at most. */
const PAUSE_MS = 500;

export class Webhooks {
  #client;
  #path;
  /** @type {Delivery[]} The newest first. */
  #deliveries = [];
  /** The version of the job for which they were asked for. */
  #version = 0;
  /** They are asked for, or were a moment ago; "again" if they are to be once more. */
  #asking = "";
  /** @type {Watch | null} Of the newest. */
  #watch = null;
  #list = element("ul", { class: "webhooks" });
  #again = element("button", { type: "button", click: () => void this.#sendAgain() });
  #problem = element("p", { class: "problem", role: "alert", hidden: true });
  node = element("section", { class: "part", hidden: true });

  /**
   * @param {JobClient} client
   * @param {string} jobId
   */
  constructor(client, jobId) {
    this.#client = client;
    this.#path = `/v1/jobs/${encodeURIComponent(jobId)}/webhooks`;
    this.node.append(element("h2", {}, "Webhooks"), this.#list, this.#again, this.#problem);
    drawEachSecond(this.#draw);
  }

  /** @param {JobView} job Where it has ended anew, it is asked for who is told. */
  draw(job) {
    if (!isOver(job) || job.version <= this.#version) return;
    this.#version = job.version;
    this.#ask();
  }

  #ask() {
    const isIdle = this.#asking === "";
    this.#asking = isIdle ? "now" : "again";
    if (isIdle) void this.#load();
  }

  async #load() {
    try {
      this.#take((await this.#client.request("GET", this.#path)).items);
    } catch {
      this.#version = 0; // With the next drawing of the job, within a second, it is tried again.
    }
    setTimeout(() => {
      const isWanted = this.#asking === "again";
      this.#asking = "";
      if (isWanted) this.#ask();
    }, PAUSE_MS);
  }

  /** @param {Delivery[]} deliveries */
  #take(deliveries) {
    // What is there stays, or a link would lose the focus.
    if (deliveries.map(idOf).join() !== this.#deliveries.map(idOf).join())
      this.#list.replaceChildren(...deliveries.map(node));
    this.#deliveries = deliveries;
    const [newest] = deliveries;
    if (newest && !isOver(newest)) this.#follow(newest.job_id);
    drawSoon(this.#draw);
  }

  /** @param {string} jobId */
  #follow(jobId) {
    if (this.#watch?.id === jobId) {
      // It was heard to end, and is run again: the server is asked for it once more.
      if (this.#watch.isOver) this.#watch.ask();
      return;
    }
    this.#watch?.close();
    const watch = this.#client.watch(jobId, { entries: false });
    this.#watch = watch;
    let known = 0;
    watch.subscribe(() => {
      if (!watch.view || watch.view.version === known) return;
      known = watch.view.version;
      this.#ask();
    });
  }

  #draw = () => {
    const [newest] = this.#deliveries;
    setShown(this.node, newest !== undefined);
    if (!newest) return;
    for (const [place, delivery] of this.#deliveries.entries()) {
      const item = /** @type {HTMLElement} */ (this.#list.children[place]);
      item.dataset.status = delivery.status;
      setText(/** @type {Element} */ (item.lastElementChild), wordsOf(delivery, Date.now()));
    }
    const waits = newest.status === "pending" && newest.next_try_at !== null;
    setText(this.#again, waits ? "Send now" : "Send again");
    setShown(this.#again, context.mayChange && (waits || isOver(newest)));
  };

  async #sendAgain() {
    this.#again.disabled = true;
    setShown(this.#problem, false);
    try {
      await this.#client.request("POST", `${this.#path}/resend`);
      this.#ask();
    } catch (error) {
      setText(this.#problem, /** @type {Error} */ (error).message);
      setShown(this.#problem, true);
    } finally {
      this.#again.disabled = false;
    }
  }
}

/** @param {Delivery} delivery */
const idOf = ({ job_id }) => job_id;

/** @param {Delivery} delivery */
function node({ job_id, host }) {
  return element("li", {}, element("a", { href: jobPath(job_id) }, host), element("span"));
}

/**
 * What came of it.
 *
 * @param {Delivery} delivery
 * @param {number} now
 * @returns {string}
 */
export function wordsOf({ status, tries, next_try_at }, now) {
  const last = tries.at(-1);
  const why = last?.error ?? "";
  switch (status) {
    case "completed":
      return `has it${last?.status_code ? ` (${last.status_code})` : ""}`;
    case "processing":
      return "is being told";
    case "pending": {
      const seconds = next_try_at === null ? 0 : (Date.parse(next_try_at) - now) / 1000;
      const when = seconds > 0 ? `is told in ${duration(seconds)}` : "is told soon";
      return why ? `${when}. ${why}` : when;
    }
    case "cancelled":
      return "is not told: somebody cancelled it";
    default:
      return `was not told. ${why}`.trim();
  }
}
