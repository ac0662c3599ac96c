// @ts-check
/** One job as it is watched: its newest view, every entry of its attempt, and its end. */

import { JobError } from "./errors.js";
import { isFinal, jobMessage } from "./messages.js";
import { Picture } from "./picture.js";
import { Subscription } from "./subscription.js";

/** @typedef {import("./messages.js").EntryMessage} EntryMessage */
/** @typedef {import("./messages.js").JobMessage} JobMessage */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./messages.js").LogLine} LogLine */
/** @typedef {import("./messages.js").OneJobMessage} OneJobMessage */
/** @typedef {import("./messages.js").ProgressMessage} ProgressMessage */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */
/** @typedef {import("./messages.js").SubscribedMessage} SubscribedMessage */

/**
 * A job at one moment; a new object at each change.
 *
 * @typedef {object} Snapshot
 * @property {JobView | null} view Null before the first one came.
 * @property {EntryMessage[]} entries Of the present attempt, in order.
 * @property {boolean} recovered False: entries before these are past retention.
 * @property {boolean} ended The job is over, and everything about it is here.
 * @property {Error | null} error Why it cannot be watched, such as `unknown_job`.
 */

/** A job that is watched. Events: `change`, `log`, `output`, `restart`, `end`, `problem`. */
export class Watch extends Subscription {
  /** Whether log and output are wanted. */
  hasEntries = false;
  #picture = new Picture();
  /** @type {EntryMessage[]} */
  #entries = [];
  #attempt = 0;
  #n = 0;
  #recovered = true;
  /** The server has begun to answer. */
  #isJoined = false;
  /** Its first entry is still to come. */
  #isEntryDue = false;
  /** @type {Snapshot | null} */
  #snapshot = null;
  /** @type {(result: unknown) => void} */
  #resolve = () => {};
  /** @type {(error: Error) => void} */
  #reject = () => {};
  /**
   * The job's result, once it has completed; rejects with a `JobError` where it failed, was
   * cancelled, or is not there. After a retry it is another promise.
   */
  done = this.#promise();
  /** @type {import("./messages.js").EndMessage | null} */
  #ended = null;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {string} id The job's.
   */
  constructor(connection, id) {
    super(connection, `job ${id}`);
    this.id = id;
  }

  /** The newest view, replaced at each change; null before the first one came. */
  get view() {
    return this.#picture.view;
  }

  /** Log and output of the present attempt, in order. */
  get entries() {
    return this.snapshot.entries;
  }

  /** All of it; the same object until something changes. */
  get snapshot() {
    return (this.#snapshot ??= {
      view: this.view,
      entries: [...this.#entries],
      recovered: this.#recovered,
      ended: !!this.#ended,
      error: this.error,
    });
  }

  /** @returns {Promise<any>} */
  #promise() {
    const promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody has to look at it.
    promise.catch(() => {});
    return promise;
  }

  request() {
    return {
      job_id: this.id,
      after: `${this.#attempt}-${this.#n}`,
      version: this.#picture.version,
      seq: this.#picture.seq,
      entries: this.hasEntries ? "all" : "none",
    };
  }

  past() {
    const messages = [this.view && jobMessage(this.view), ...this.#entries, this.#ended];
    return messages.filter((message) => message != null);
  }

  /**
   * Call a function whenever something happens; for log and output, also with what there is.
   *
   * @param {string} name
   * @param {import("./emitter.js").Listener} listener
   * @returns {() => void} Undoes it.
   */
  on(name, listener) {
    for (const entry of this.#entries) if (entry.type == name) listener(entry);
    return super.on(name, listener);
  }

  /**
   * Take in what the server says; what is older than what is known is dropped.
   *
   * @param {SubscribedMessage | OneJobMessage} message About this job.
   */
  take(message) {
    if (message.type == "subscribed") {
      this.#isJoined = this.#isEntryDue = this.#picture.isDue = true;
      this.#recovered &&= message.recovered;
      this.#snapshot = null;
      return;
    }
    const [attempt = 0, n = 0] = `${message.id}`.split("-").map(Number);
    if (attempt > this.#attempt) this.#restart(attempt);
    if (message.type == "job" || message.type == "progress") {
      if (this.#takesPicture(message)) this.#tell(message);
    } else if (this.#isJoined && attempt == this.#attempt) {
      if (message.type == "end") this.#end(message);
      else if (this.#takesEntry(n)) {
        this.#entries.push(message);
        this.#tell(message);
      }
    }
  }

  /** @param {number} attempt Everything about earlier ones is forgotten. */
  #restart(attempt) {
    this.#attempt = attempt;
    this.#n = 0;
    this.#entries = [];
    this.#recovered = true;
    this.emit("restart", attempt);
  }

  /**
   * @param {JobMessage | ProgressMessage} message
   * @returns {boolean} Whether it told anything new.
   */
  #takesPicture(message) {
    if (!this.#picture.take(message)) return false;
    if (this.#ended && !isFinal(this.view)) {
      // Somebody runs it once more.
      this.#ended = null;
      this.done = this.#promise();
      this.ask();
    }
    return true;
  }

  /**
   * @param {number} n
   * @returns {boolean} Whether the entry is the next one.
   */
  #takesEntry(n) {
    if (n <= this.#n) return false;
    if (n > this.#n + 1 && !this.#isEntryDue) {
      this.ask();
      return false;
    }
    this.#n = n;
    this.#isEntryDue = false;
    return true;
  }

  ask() {
    this.#isJoined = false;
    super.ask();
  }

  /** @param {import("./messages.js").EndMessage} message */
  #end(message) {
    const { view } = this;
    if (!view || !isFinal(view)) {
      // Somebody runs it once more, or the view is of a database that was put back.
      this.#picture.version = 0;
      return this.ask();
    }
    this.#ended = message;
    const { status, error, result } = view;
    if (status == "completed") this.#resolve(result);
    else this.#reject(new JobError(error?.message ?? status, error?.code ?? status, view));
    this.#snapshot = null;
    this.emit("message", message);
    this.finish();
    this.emit("end", view);
  }

  /** @param {Error | null} [error] */
  finish(error) {
    this.#reject(error ?? new JobError("closed", "closed", this.view));
    this.#snapshot = null;
    super.finish(error);
  }

  /** @param {OneJobMessage} message */
  #tell(message) {
    this.#snapshot = null;
    this.emit("message", message);
    this.emit(message.type, message);
    this.emit("change");
  }
}
