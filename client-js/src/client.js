// @ts-check
/** The client: what is watched over the one connection, and requests to the server. */

import { sleep, systemClock } from "./clock.js";
import { Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { JobError } from "./errors.js";
import { Feed } from "./feed.js";
import { call } from "./http.js";
import { jobMessage } from "./messages.js";
import { Watch } from "./watch.js";

/** @typedef {import("./clock.js").Clock} Clock */
/** @typedef {import("./connection.js").ConnectionState} ConnectionState */
/** @typedef {import("./errors.js").RequestError} RequestError */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */
/** @typedef {import("./subscription.js").Kind} Subscription */

/** @typedef {string | null | undefined} Token */

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] Where livejobs is, without `/v1`: "" (the default) is this origin,
 *   "/jobs" an app that mounts it there; outside of browsers it is to be absolute.
 * @property {Token | (() => Token | Promise<Token>)} [token] Shown as bearer token; a function is
 *   asked at each connect and each request. Without it, cookies of the same origin have to do.
 * @property {boolean | string} [share] Use one connection for all tabs of this browser; a text
 *   names who is signed in, where tabs may be of several people.
 * @property {typeof globalThis.fetch} [fetch]
 * @property {typeof globalThis.WebSocket} [WebSocket] Where there is none, event streams serve.
 * @property {Clock} [clock]
 * @property {() => number} [random] From 0 up to 1.
 */

/**
 * Options with nothing left out.
 *
 * @typedef {Required<Omit<ClientOptions, "token">> & {token: () => Promise<Token>}} Settled
 */

/**
 * What may be said of a new job.
 *
 * @typedef {object} JobOptions
 * @property {unknown[]} [args] The task's arguments.
 * @property {Record<string, unknown>} [kwargs] Its named arguments.
 * @property {Record<string, string>} [tags] To find the job by.
 * @property {number} [priority] 0 to 9.
 * @property {string} [run_at] Not before, ISO 8601 with its zone.
 * @property {number} [expires_in] Seconds after which it fails if it has not begun.
 * @property {string} [idempotencyKey] Of two requests with the same key, the second makes no job.
 */

/** How often a request that can be repeated is tried. */
const TRIES = 4;

/** Watches jobs, starts them, and asks for them to be cancelled or run again. */
export class JobClient extends Emitter {
  /** How the connection is, replaced at each change; events `state` and `change`. */
  state = /** @type {ConnectionState} */ ({});

  #connection;
  #closing = new AbortController();

  /** @param {ClientOptions} [options] */
  constructor({ url = "", token, ...options } = {}) {
    super();
    /** @type {Settled} */
    const settled = {
      share: false,
      clock: systemClock,
      random: Math.random,
      fetch: (...request) => fetch(...request),
      WebSocket: globalThis.WebSocket,
      ...options,
      token: async () => (typeof token == "function" ? token() : token),
      url: url.replace(/\/$/, ""),
    };
    this.#connection = new Connection(
      settled,
      (message) => this.#take(message),
      (state) => this.#told(state),
    );
    for (const event of ["online", "visibilitychange"])
      globalThis.addEventListener?.(event, () => this.connect(event == "online"), this.#closing);
  }

  /**
   * Watch a job. Asking twice gives the same object; each call wants a `close()` of its own.
   *
   * @param {string} id The job's.
   * @param {{entries?: boolean}} [options] false: only the view; log and output are not sent,
   *   unless somebody else here wants them.
   * @returns {Watch}
   */
  watch(id, { entries = true } = {}) {
    let watch = /** @type {Watch | undefined} */ (this.peek(`job ${id}`));
    if (!watch || watch.error) watch = new Watch(this.#connection, id);
    const wantsMore = entries && !watch.hasEntries;
    watch.hasEntries ||= entries;
    return watch.hold(wantsMore);
  }

  /**
   * Watch many jobs. Asking twice gives the same object; each call wants a `close()` of its own.
   *
   * @param {string} name `mine`, `all` (admins), `tag:key=value` or `children:<job id>`.
   * @returns {Feed}
   */
  feed(name) {
    let feed = /** @type {Feed | undefined} */ (this.peek(`feed ${name}`));
    if (!feed || feed.error) feed = new Feed(this.#connection, name);
    return feed.hold();
  }

  /**
   * @param {string} key `job <id>` or `feed <name>`.
   * @returns {Subscription | undefined} What is watched already.
   */
  peek(key) {
    return this.#connection.subscriptions.get(key);
  }

  /**
   * Start a task. It is tried again where the network or the server fails, under the same key, so
   * that there is one job in the end.
   *
   * @param {string} task Its name.
   * @param {JobOptions} [options]
   * @returns {Promise<{job_id: string, status: import("./messages.js").Status, token: string}>}
   * @throws {RequestError} The server refused.
   */
  async enqueue(task, { idempotencyKey = `${Date.now()}-${Math.random()}`, ...options } = {}) {
    const { clock, random } = this.#connection.options;
    const headers = { "Idempotency-Key": idempotencyKey };
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.request("POST", "/v1/jobs", { task, ...options }, headers);
      } catch (error) {
        const { status = 503, afterMs = 0 } = /** @type {Partial<RequestError>} */ (error);
        if (tries == TRIES || !/5..|409|429/.test(`${status}`)) throw error;
        await sleep(clock, Math.max(afterMs, random() * 1000 * 2 ** tries));
      }
    }
  }

  /**
   * Ask for a job to be cancelled.
   *
   * @param {string} id
   * @returns {Promise<JobView>} As it is now: it may run for a while yet.
   * @throws {RequestError} It cannot be: `job_conflict`.
   */
  cancel(id) {
    return this.#change(id, "cancel");
  }

  /**
   * Run a failed or cancelled job again, under the same id; what watches it goes on.
   *
   * @param {string} id
   * @returns {Promise<JobView>}
   * @throws {RequestError} It cannot be: `job_conflict`.
   */
  retry(id) {
    return this.#change(id, "retry");
  }

  /**
   * @param {string} id
   * @param {string} action
   * @returns {Promise<JobView>}
   */
  async #change(id, action) {
    const job = await this.request("POST", `/v1/jobs/${encodeURIComponent(id)}/${action}`);
    this.#take(jobMessage(job));
    return job;
  }

  /**
   * Send any other request, with the same credentials.
   *
   * @param {string} method
   * @param {string} path Such as "/v1/jobs?status=failed".
   * @param {unknown} [body] Sent as JSON.
   * @param {Record<string, string>} [headers]
   * @returns {Promise<any>} The answer's JSON; null where it has none.
   * @throws {RequestError} The server refused.
   */
  async request(method, path, body, headers = {}) {
    const init = { method, headers, body: body ? JSON.stringify(body) : null };
    const { options } = this.#connection;
    const response = await call(options, await options.token(), path, init);
    return response.status == 204 ? null : response.json();
  }

  /**
   * Connect now instead of after the wait; it happens by itself when network or tab come back.
   *
   * @param {boolean} [anew] Also where a connection is there.
   */
  connect(anew) {
    this.#connection.wake(anew);
  }

  /** End everything that is watched, and the connection. */
  close() {
    this.#closing.abort();
    for (const subscription of [...this.#connection.subscriptions.values()]) subscription.forget();
  }

  /** @param {ServerMessage} message */
  #take(message) {
    const { type, job, feed, code, job_id = job?.job_id } = /** @type {any} */ (message);
    this.emit("message", message);
    const about = this.peek(feed ? `feed ${feed}` : `job ${job_id}`);
    if (type != "problem") about?.take(message);
    else {
      if (feed || code == "unknown_job")
        about?.finish(new JobError(/** @type {any} */ (message).message, code));
      about?.emit(type, message);
      this.emit(type, message);
    }
    // What is said of a job may be for a feed that it is in.
    if (!feed && /job|prog|unknown_job/.test(code ?? type))
      for (const other of this.#connection.subscriptions.values())
        if (other instanceof Feed) other.take(/** @type {any} */ (message));
  }

  /** @param {ConnectionState} state */
  #told(state) {
    this.state = state;
    if (state.status == "stopped")
      for (const subscription of [...this.#connection.subscriptions.values()])
        if (!subscription.isOver) subscription.finish(state.error);
    this.emit("state", state);
    this.emit("change");
  }
}
