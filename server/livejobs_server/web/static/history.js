// @ts-check
/** What happened to a job, and what its earlier attempts said. */

import { element, setChildren, setShown, setText } from "./dom.js";
import { duration, fullTime, timeOfDay } from "./format.js";
import { drawSoon } from "./frames.js";
import { Log } from "./log.js";

/** @typedef {import("livejobs").JobClient} JobClient */
/** @typedef {import("livejobs").JobView} JobView */

/**
 * Something that happened, as the server lists it.
 *
 * @typedef {object} TimelineEvent
 * @property {string} at ISO 8601.
 * @property {string} kind
 * @property {number} attempt
 * @property {any} detail
 */

/** Jobs may change many times a second; their timeline is asked for this often at most. */
const PAUSE_MS = 500;
const PAGE = 500;

export class History {
  #client;
  #path;
  #version = 0;
  #isAsking = false;
  /** @type {TimelineEvent[]} */
  #events = [];
  /** @type {Map<number, Attempt>} */
  #known = new Map();
  #list = element("ol", { class: "timeline" });
  #earlier = element("div", { class: "attempts" });
  /** The logs of earlier attempts. */
  attempts = element("section", { class: "part", hidden: true });
  /** What happened, in its order. */
  timeline = element("section", { class: "part" });

  /**
   * @param {JobClient} client
   * @param {string} jobId
   */
  constructor(client, jobId) {
    this.#client = client;
    this.#path = `/v1/jobs/${encodeURIComponent(jobId)}`;
    this.attempts.append(element("h2", {}, "Earlier attempts"), this.#earlier);
    this.timeline.append(element("h2", {}, "Timeline"), this.#list);
  }

  /** @param {JobView} job Where it is a newer one, its timeline is asked for. */
  draw(job) {
    if (job.version <= this.#version || this.#isAsking) return;
    this.#isAsking = true;
    void this.#ask(job);
  }

  /** @param {JobView} job */
  async #ask(job) {
    try {
      const page = await this.#client.request("GET", `${this.#path}/timeline?limit=${PAGE}`);
      this.#events = page.items;
      this.#version = job.version;
      drawSoon(this.#drawAll);
    } catch {
      // The job's own state says what is wrong; with the next change it is tried again.
    }
    setTimeout(() => (this.#isAsking = false), PAUSE_MS);
  }

  #drawAll = () => {
    const first = this.#events[0]?.at ?? "";
    this.#list.replaceChildren(...this.#events.map((event) => eventNode(event, first)));
    const last = this.#events.at(-1)?.attempt ?? 0;
    for (let number = 1; number < last; number += 1) {
      const attempt = this.#known.get(number) ?? new Attempt(this.#client, this.#path, number);
      this.#known.set(number, attempt);
      attempt.draw(this.#events.filter((event) => event.attempt === number));
    }
    setChildren(this.#earlier, [...this.#known.values()].map((attempt) => attempt.node).reverse());
    setShown(this.attempts, this.#known.size > 0);
  };
}

/** An attempt that is over, with its log, which is loaded when somebody opens it. */
class Attempt {
  #client;
  #path;
  #number;
  #summary = element("summary");
  #log;
  #isLoaded = false;
  #note = element("p", { class: "hint" });
  node;

  /**
   * @param {JobClient} client
   * @param {string} path
   * @param {number} number
   */
  constructor(client, path, number) {
    this.#client = client;
    this.#path = path;
    this.#number = number;
    this.#log = new Log(() => drawSoon(this.#draw), 200, `Log of attempt ${number}`);
    this.node = element("details", {}, this.#summary, this.#note, this.#log.node);
    this.node.addEventListener("toggle", () => void this.#load());
  }

  /** @param {TimelineEvent[]} events Those of this attempt. */
  draw(events) {
    const began = events.find((event) => event.kind === "started");
    const ended = events.find((event) => event.kind !== "started" && event.kind !== "cancel_requested");
    const seconds = began && ended ? (Date.parse(ended.at) - Date.parse(began.at)) / 1000 : null;
    const took = seconds === null ? "" : ` after ${duration(seconds, true)}`;
    setText(this.#summary, `Attempt ${this.#number} ended${took}`);
  }

  #draw = () => this.#log.draw();

  async #load() {
    if (this.#isLoaded || !this.node.open) return;
    this.#isLoaded = true;
    setText(this.#note, "Loading");
    try {
      await this.#loadPages();
      setText(this.#note, "");
    } catch (error) {
      this.#isLoaded = false;
      setText(this.#note, `The log could not be loaded: ${/** @type {Error} */ (error).message}`);
    }
    setShown(this.#note, this.#note.textContent !== "");
    drawSoon(this.#draw);
  }

  async #loadPages() {
    let after = `${this.#number}-0`;
    for (;;) {
      const query = new URLSearchParams({ after, kind: "log", limit: String(PAGE) });
      const page = await this.#client.request("GET", `${this.#path}/entries?${query}`);
      for (const entry of page.items)
        if (entry.id.startsWith(`${this.#number}-`)) this.#log.add(entry.lines);
      if (page.next === null || !page.next.startsWith(`${this.#number}-`)) return;
      after = page.next;
    }
  }
}

/**
 * @param {TimelineEvent} event
 * @param {string} first When the job was created.
 */
function eventNode(event, first) {
  const since = (Date.parse(event.at) - Date.parse(first)) / 1000;
  return element(
    "li",
    { "data-kind": event.kind },
    element("time", { datetime: event.at, title: fullTime(event.at) }, timeOfDay(event.at)),
    element("span", { class: "since" }, since >= 0.1 ? `+${duration(since, true)}` : ""),
    element("span", { class: "text" }, words(event)),
  );
}

/**
 * What happened, in words.
 *
 * @param {TimelineEvent} event
 * @returns {string}
 */
function words({ kind, attempt, detail }) {
  const error = detail?.error ? `: ${detail.error.type}: ${detail.error.message}` : "";
  const worker = detail?.worker ? ` on ${host(detail.worker)}` : "";
  switch (kind) {
    case "created":
      return "Created";
    case "started":
      return `Attempt ${attempt} began${worker}`;
    case "retried":
      return `Attempt ${attempt} failed${error}. It is tried again${delay(detail)}`;
    case "completed":
      return "Completed";
    case "failed":
      return `Failed${error}`;
    case "cancelled":
      return "Cancelled";
    case "cancel_requested":
      return "Somebody asked to cancel it";
    case "requeued":
      return "Somebody asked to run it again";
    case "released":
      return "Its worker shut down and handed it back";
    case "lost":
      return "Its worker was lost";
    case "waiting":
      return "It waits for its parts";
    case "resumed":
      return "Its parts are done, and it goes on";
    case "webhook":
      return "A webhook tells of its end";
    case "replaced":
      return "Other tasks took its place";
    default:
      return kind;
  }
}

/**
 * @param {string} worker `<host>:<process>:<claim>`; the claim is for programs.
 */
const host = (worker) => worker.split(":").slice(0, 2).join(", process ");

/** @param {any} detail */
function delay(detail) {
  return detail?.delay > 0 ? ` in ${duration(detail.delay)}` : "";
}
