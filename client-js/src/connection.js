// @ts-check
/**
 * The one connection of a client: which transport, when to come back, when to give it up for dead.
 *
 * Everything waits on deadlines by the clock on the wall, looked at once a second: so a laptop
 * that slept, whose timers stood still, is noticed as soon as it wakes.
 */

import { RequestError } from "./errors.js";
import { polling } from "./polling.js";
import { Session } from "./session.js";
import { eventStream } from "./sse.js";
import { webSocket } from "./websocket.js";

/** @typedef {import("./client.js").Settled} Settled */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */
/** @typedef {import("./session.js").Ending} Ending */
/** @typedef {import("./session.js").Item} Item */
/** @typedef {import("./subscription.js").Kind} Subscription */

/**
 * How the connection is.
 *
 * @typedef {object} ConnectionState
 * @property {"idle" | "connecting" | "live" | "offline" | "stopped"} status idle: nothing is
 *   watched; offline: the last try failed, the next one comes by itself; stopped: the server said
 *   that another try would be refused as well.
 * @property {"websocket" | "sse" | "polling" | null} transport While live.
 * @property {boolean} degraded Updates come from the server's database for now, one a second.
 * @property {Error | null} error Why the last connection ended; null while live.
 */

/** @type {import("./session.js").Transport} */
const shared = async (session) => (await import("./share.js")).shared(session);
const NAMES = /** @type {const} */ (["websocket", "sse", "polling"]);

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
/** So often in a row a transport may fail to open before the next one is tried. */
const FAILED_OPENINGS = 2;
/** How soon a better transport is tried again, at first and at most. */
const FIRST_PROBE_MS = 5_000;
const LAST_PROBE_MS = 600_000;
const TICK_MS = 1_000;
/** Closing codes with which the server asks for some time: restart, trouble, too many requests. */
const BUSY = /101[23]|4429/;
/** Refusals that say nothing about the transport. */
const ANSWERS = /^(101[23]|4...|5..|401|429)$/;
/** Refusals that another try would meet as well. */
const LAST_WORDS = /^4(00|22|400|404)$/;

/** The wait after one of BUSY, up to twice that. */
const FIRST_BUSY_MS = 1_000;

const SILENCE = new Error("silence");

/** Keeps a connection open for as long as the server is to be asked for anything. */
export class Connection {
  /** Everything that somebody holds, by key. @type {Map<string, Subscription>} */
  subscriptions = new Map();
  #state = "";
  #told;
  #take;
  #transports;
  /** Openings that failed, as a number of steps down the transports. */
  #step = 0;
  /** Where the transport stands that was live last. */
  #home = 0;
  /** Connections in a row that brought nothing. */
  #failures = 0;
  /** @type {Session | null} */
  #session = null;
  /** What is to replace it once it is open. @type {Session | null} */
  #probe = null;
  #probeMs = 0;
  #probeAt = Infinity;
  #retryAt = 0;
  /** The server wants to be left alone until then. */
  #notBefore = 0;
  #tickedAt = 0;
  /** @type {unknown} */
  #timer;
  #isStopped = false;
  /** @type {Error | null} */
  #error = null;

  /**
   * @param {Settled} options
   * @param {(message: ServerMessage) => void} take Called with every message.
   * @param {(state: ConnectionState) => void} told Called with every new state.
   */
  constructor(options, take, told) {
    this.options = options;
    this.#transports = [webSocket, eventStream, polling];
    if (options.share) this.#transports.unshift(shared);
    this.#take = take;
    this.#told = told;
    this.#tell();
  }

  /** @returns {Item[]} What to ask the server for: all that is held and not over. */
  items() {
    const all = [...this.subscriptions.values()];
    return all.filter(({ isOver }) => !isOver).map((subscription) => subscription.request());
  }

  /**
   * Something is to be asked for, perhaps once more, or nothing more is needed of it.
   *
   * @param {"subscribe" | "unsubscribe"} op
   * @param {Item} item
   */
  changed(op, item) {
    if (op == "subscribe") this.#isStopped = false;
    if (!this.items().length) this.#drop();
    for (const session of [this.#session, this.#probe]) session?.changed(op, item);
    this.#tick();
  }

  /**
   * Something may be better now: connect at once, as far as the server allows.
   *
   * @param {boolean} [anew] Also where a connection is there: it may be dead without showing it.
   */
  wake(anew) {
    if (anew) {
      this.#drop();
      this.#step = this.#failures = 0;
    }
    this.#isStopped = false;
    this.#retryAt = this.#notBefore;
    this.#tick();
  }

  #drop() {
    const sessions = [this.#session, this.#probe];
    this.#session = this.#probe = null;
    for (const session of sessions) session?.end();
  }

  /** Look at all deadlines, and come back for the next one. */
  #tick() {
    const { clock } = this.options;
    const now = clock.now();
    clock.clearTimeout(this.#timer);
    const wasSetBack = now < this.#tickedAt;
    this.#tickedAt = now;
    if (wasSetBack) this.#notBefore = this.#retryAt = 0;
    if (wasSetBack || (this.#session?.isOpen && now >= this.#session.deadline)) this.#drop();
    for (const session of [this.#session, this.#probe])
      if (session && now >= session.deadline) session.end(SILENCE);
    if (this.items().length && !this.#isStopped) {
      if (!this.#session && now >= this.#retryAt)
        this.#session = this.#open((this.#step / FAILED_OPENINGS) | 0);
      else if (this.#session?.isOpen && !this.#probe && now >= this.#probeAt) this.#replace();
      const waitMs = this.#session ? TICK_MS : this.#retryAt - now;
      this.#timer = clock.setTimeout(() => this.#tick(), Math.min(TICK_MS, waitMs));
    }
    this.#tell();
  }

  /** Open a better transport beside the present one, or the same where its server goes away. */
  #replace() {
    const { rung, leaveAt } = /** @type {Session} */ (this.#session);
    this.#probeAt = Infinity;
    this.#probe = this.#open(leaveAt ? rung : rung - 1);
  }

  /** @param {number} rung */
  #open(rung) {
    const session = new Session(this, rung);
    const transport = /** @type {import("./session.js").Transport} */ (this.#transports[rung]);
    session.run(transport).then(
      (ending) => this.#over(session, ending),
      (error = {}) => this.#over(session, error, error),
    );
    return session;
  }

  /** @param {Session} session Something came in, for the first time. */
  opened(session) {
    if (session == this.#probe) {
      this.#session?.end();
      this.#session = session;
      this.#probe = null;
    } else {
      this.#probeMs = FIRST_PROBE_MS;
    }
    this.#step = this.#home = session.rung * FAILED_OPENINGS;
    this.#error = null;
    this.#planProbe();
    this.#tell();
  }

  #planProbe() {
    this.#probeAt = this.#session?.rung ? this.options.clock.now() + this.#probeMs : Infinity;
    this.#probeMs = Math.min(LAST_PROBE_MS, this.#probeMs * 2);
  }

  /**
   * @param {ServerMessage} message
   * @param {Session} session
   */
  hear(message, session) {
    if (message.type == "degraded") session.isDegraded = message.degraded;
    else if (message.type == "drain")
      session.leaveAt = this.#probeAt = this.options.clock.now() + message.reconnect_after_ms;
    else return this.#take(message);
    this.#tell();
  }

  /**
   * A session is over: decide when to come back, and by which transport.
   *
   * @param {Session} session
   * @param {Ending} ending
   * @param {Error} [error] Why; by default, that the server has closed it.
   */
  #over(session, { status = 0, afterMs = 0 }, error = new RequestError(status)) {
    session.end();
    if (session == this.#probe) {
      this.#probe = null;
      this.#planProbe();
    }
    if (session != this.#session) return;
    this.#session = null;
    this.#error = error;
    this.#isStopped = LAST_WORDS.test(`${status}`);
    if (session.token != undefined && !session.isOpen && !ANSWERS.test(`${status}`)) {
      // A proxy that let it in and then kept it waiting will do so again. After the last transport
      // comes the one that was live: what fails with every transport is not the transport.
      this.#step += error == SILENCE ? FAILED_OPENINGS - (this.#step % FAILED_OPENINGS) : 1;
      if (!this.#transports[(this.#step / FAILED_OPENINGS) | 0]) this.#step = this.#home;
    }
    // Full jitter, but not before the server wants it.
    const { clock, random } = this.options;
    const now = clock.now();
    this.#failures = session.isUseful ? 0 : this.#failures + 1;
    const ceilingMs = FIRST_DELAY_MS * 2 ** (this.#failures && this.#failures - 1);
    if (BUSY.test(`${status}`) && !session.leaveAt) afterMs = FIRST_BUSY_MS * (1 + random());
    this.#notBefore = Math.max(now + afterMs, session.leaveAt);
    const jitterMs = random() * Math.min(LONGEST_DELAY_MS, ceilingMs);
    this.#retryAt = Math.max(this.#notBefore, now + jitterMs);
    this.#tick();
  }

  #tell() {
    const session = this.#session;
    const isLive = !!session && session.isOpen;
    const waiting = this.#failures ? "offline" : "connecting";
    const resting = this.#isStopped ? "stopped" : this.items().length ? waiting : "idle";
    /** @type {ConnectionState} */
    const state = session?.shown ?? {
      status: isLive ? "live" : resting,
      transport: (isLive && NAMES.at(session.rung - this.#transports.length)) || null,
      degraded: isLive && session.isDegraded,
      error: this.#error,
    };
    const key = Object.values(state).join();
    if (key == this.#state) return;
    this.#state = key;
    this.#told(state);
  }
}
