// @ts-check
/** What is known of one job: the newest view, and nothing older ever again. */

import { isFinal } from "./messages.js";

/** @typedef {import("./messages.js").JobMessage} JobMessage */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./messages.js").ProgressMessage} ProgressMessage */

/** Takes in views and progress; `view` is replaced, never changed. */
export class Picture {
  /** @type {JobView | null} */
  view = null;
  /** The view's; set to 0, whichever view comes next is taken. */
  version = 0;
  /** Of the newest progress. */
  seq = 0;
  /** The next view answers a subscription, so one of the same version may hold newer progress. */
  isDue = false;

  /**
   * @param {JobMessage | ProgressMessage} message
   * @returns {boolean} Whether it told anything new.
   */
  take(message) {
    const old = this.view;
    if (message.type == "job") {
      const { job } = message;
      if (!(job.version >= this.version + (this.isDue ? 0 : 1))) return false;
      this.isDue = false;
      if (job.attempt != old?.attempt) this.seq = 0;
      this.view = job;
      this.version = job.version;
      return true;
    }
    const { attempt, seq, progress } = message;
    if (!old || attempt < old.attempt) return false;
    // The last progress of an attempt is in its last view; a straggler would move the bar back.
    if (attempt == old.attempt && (seq <= this.seq || isFinal(old))) return false;
    this.seq = seq;
    this.view = { ...old, attempt, progress };
    return true;
  }
}
