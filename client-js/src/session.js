// @ts-check
/** One connection from its beginning to its end, by whichever transport. */

/**
 * Something to ask the server for, as all transports send it.
 *
 * @typedef {{job_id?: string, feed?: string, after?: string, since?: string,
 *   token?: string}} Item
 */

/**
 * How a transport ended: the code that closed a socket or the status of a refusal, and the wait
 * that the server asked for, in ms.
 *
 * @typedef {{status?: number, afterMs?: number}} Ending
 */

/** @typedef {import("./connection.js").ConnectionState} ConnectionState */

/** @typedef {(session: Session) => Promise<Ending>} Transport */

/** The server speaks at least every 15 s; a connection silent for longer than this is dead. */
const SILENCE_MS = 25_000;
/** A proxy that keeps everything to itself for so long will not do. */
const OPEN_MS = 8_000;

/** What a transport works with. */
export class Session {
  /** Whether anything came in. */
  isOpen = false;
  /** Whether a message came in. */
  isUseful = false;
  isOver = false;
  /** Whether the server takes its news from the database for now. */
  isDegraded = false;
  /** Where another tab has the connection: how that is. @type {ConnectionState | undefined} */
  shown;
  /** When the server that is going away wants to be left; 0: it stays. */
  leaveAt = 0;
  /** Undefined until it is there, "" where there is none. @type {string | undefined} */
  token;

  /** Lets go of everything; set by the transport. */
  stop() {}

  /**
   * Is called when a watch is added or dropped; set by the transport.
   *
   * @param {"subscribe" | "unsubscribe" | "auth"} _op
   * @param {Item} _item
   */
  changed(_op, _item) {}

  /**
   * End it from this side.
   *
   * @param {Error} [_reason] What `run` then throws.
   */
  end(_reason) {}

  /**
   * @param {import("./connection.js").Connection} connection Is told when it opens, and of every
   *   message.
   * @param {number} rung Which transport it is, for the connection.
   */
  constructor(connection, rung) {
    this.connection = connection;
    this.options = connection.options;
    this.rung = rung;
    /** When it is dead, if nothing comes in until then. */
    this.deadline = this.options.clock.now() + SILENCE_MS;
  }

  /** @returns {Item[]} Everything that is watched, each with where to resume. */
  items() {
    return this.connection.items();
  }

  /**
   * Hold the connection until it is over.
   *
   * @param {Transport} transport
   * @returns {Promise<Ending>}
   * @throws {Error} It broke off, was refused, or ended from this side.
   */
  run(transport) {
    // Neither a token that never comes nor a transport that hangs holds up the end.
    const { token, clock } = this.options;
    return new Promise((resolve, reject) => {
      this.end = (reason) => {
        this.isOver = true;
        this.stop();
        reject(reason);
      };
      const begun = token().then((shown) => {
        this.token = shown ?? "";
        this.deadline = clock.now() + OPEN_MS;
        return this.isOver ? {} : transport(this);
      });
      begun.then(resolve, reject);
    });
  }

  /**
   * Something came in.
   *
   * @param {string} [text] A message's; undefined: anything else.
   */
  heard(text) {
    if (this.isOver) return;
    this.deadline = this.options.clock.now() + SILENCE_MS;
    if (!this.isOpen) {
      this.isOpen = true;
      this.connection.opened(this);
    }
    if (!text) return;
    try {
      this.connection.hear(JSON.parse(text), this);
      this.isUseful = true;
    } catch {
      // It is no message; that is not worth the connection.
    }
  }
}
