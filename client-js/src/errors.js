// @ts-check
/** What can go wrong: a job that did not complete, and a request that the server refused. */

/** @typedef {import("./messages.js").JobView} JobView */

/** A job did not complete: it failed, was cancelled, or cannot be watched. */
export class JobError extends Error {
  name = "JobError";

  /**
   * @param {string} message In words for people.
   * @param {string} code A stable word for programs: of the job's error where it has one, else
   *   `failed`, `cancelled`, `unknown_job`, `closed` (the watch was, before the end), or why a feed
   *   was refused.
   * @param {JobView | null} [view] The job; null where nothing is known of it.
   */
  constructor(message, code, view = null) {
    super(message);
    this.code = code;
    this.view = view;
  }
}

/** The server refused a request, or ended the connection. */
export class RequestError extends Error {
  name = "RequestError";

  /**
   * @param {number} status Of the HTTP answer, or the code that closed a WebSocket; 0 where an
   *   event stream was ended.
   * @param {any} [problem] The problem document of RFC 9457; {} where there was none. Its `code` is
   *   the error's, "" where it has none.
   * @param {number} [afterMs] How long the server asked to stay away, in ms.
   */
  constructor(status, problem = {}, afterMs = 0) {
    super(problem.detail ?? `status ${status}`);
    /** @type {string} */
    this.code = problem.code ?? "";
    this.status = status;
    this.problem = problem;
    this.afterMs = afterMs;
  }
}
