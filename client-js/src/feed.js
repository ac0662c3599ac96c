// @ts-check
/** Many jobs at once: those of an owner, with a tag, or of a parent. */

import { jobMessage } from "./messages.js";
import { Picture } from "./picture.js";
import { Subscription } from "./subscription.js";

/** @typedef {import("./messages.js").FeedSubscribedMessage} FeedSubscribedMessage */
/** @typedef {import("./messages.js").JobMessage} JobMessage */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./messages.js").ProblemMessage} ProblemMessage */
/** @typedef {import("./messages.js").ProgressMessage} ProgressMessage */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */

/** Listeners are called once for everything that comes in so short a time. */
const TOGETHER_MS = 50;
/** Jobs kept; beyond that, those of which nothing was heard for longest are forgotten. */
const MOST_JOBS = 1_000;

/** A feed that is watched. Events: `change`, `problem`. */
export class Feed extends Subscription {
  /** Where to resume, as the server said. @type {string | undefined} */
  since;
  /** @type {Map<string, Picture>} */
  #pictures = new Map();
  /** @type {readonly JobView[] | null} */
  #jobs = null;
  /** @type {unknown} */
  #notice = null;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {string} feed `mine`, `all`, `tag:key=value` or `children:<job id>`.
   */
  constructor(connection, feed) {
    super(connection, `feed ${feed}`);
    this.feed = feed;
  }

  /** The jobs, the newest first; the same list until something changes. */
  get jobs() {
    return (this.#jobs ??= [...this.#pictures.values()]
      .map(({ view }) => /** @type {JobView} */ (view))
      .sort((a, b) => (a.created_at < b.created_at ? 1 : -1)));
  }

  request() {
    return { feed: this.feed, since: this.since };
  }

  past() {
    return this.jobs.map(jobMessage);
  }

  /**
   * Take in views from elsewhere, such as a page of `GET /v1/jobs`.
   *
   * @param {Iterable<JobView>} views
   */
  add(views) {
    for (const view of views) this.take(jobMessage(view));
  }

  /**
   * Take in what the server says; what is older than what is known is dropped.
   *
   * @param {FeedSubscribedMessage | JobMessage | ProgressMessage | ProblemMessage} message A
   *   problem is about a job that is there no more.
   */
  take(message) {
    if (message.type == "subscribed") {
      this.since = message.since;
      // It was away for too long: which jobs have ended meanwhile is not told.
      if (message.recovered == false) this.#pictures.clear();
      for (const picture of this.#pictures.values()) picture.isDue = true;
      return this.#tell();
    }
    const { type, job, job_id = job.job_id } = /** @type {any} */ (message);
    if (type == "problem") {
      // It has been deleted.
      if (this.#pictures.delete(job_id)) this.#tell();
      return;
    }
    const known = this.#pictures.get(job_id);
    const picture = known ?? new Picture();
    if (!known && !(job && this.#includes(job))) return;
    if (!picture.take(/** @type {any} */ (message))) return;
    // What was spoken of last comes last, so the first is the one to be forgotten.
    this.#pictures.delete(job_id);
    this.#pictures.set(job_id, picture);
    const [oldest] = this.#pictures.keys();
    if (oldest && this.#pictures.size > MOST_JOBS) this.#pictures.delete(oldest);
    this.#tell(message);
  }

  /**
   * Messages do not say which feed they are for.
   *
   * @param {JobView} job
   * @returns {boolean} Whether it belongs here.
   */
  #includes(job) {
    const tags = Object.entries(job.tags).map((tag) => `tag:${tag.join("=")}`);
    return ["mine", "all", `children:${job.parent_id}`, ...tags].includes(this.feed);
  }

  /** @param {ServerMessage} [message] */
  #tell(message) {
    this.#jobs = null;
    if (message) this.emit("message", message);
    this.#notice ??= this.clock.setTimeout(() => {
      this.#notice = null;
      this.emit("change");
    }, TOGETHER_MS);
  }
}
