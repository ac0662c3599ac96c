// @ts-check
/** What a job's watch and a feed have in common: who holds it, who is told, and iteration. */

import { Emitter } from "./emitter.js";

/** @typedef {import("./session.js").Item} Item */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */

/**
 * What each kind of it can do: say what to ask the server for, take in what the server says, and
 * tell a newcomer all that is known.
 *
 * @typedef {Subscription
 *   & {request(): Item, take(message: any): void, past(): ServerMessage[]}} Kind
 */

/** A subscription that nobody holds is kept for so long: a page may be redrawing. */
const LINGER_MS = 1_000;

/** Held by as many as asked for it; the last one to close it ends it. */
export class Subscription extends Emitter {
  /** Why it ended before its time; null where it did not. @type {Error | null} */
  error = null;
  /** Nothing more will come. */
  isOver = false;
  #holders = 0;
  /** @type {unknown} */
  #timer;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {string} key Its name there.
   */
  constructor(connection, key) {
    super();
    this.connection = connection;
    this.clock = connection.options.clock;
    this.key = key;
  }

  /**
   * One more holds it.
   *
   * @param {boolean} [wantsMore] The server is to be asked again.
   * @returns {this}
   */
  hold(wantsMore) {
    this.#holders += 1;
    this.clock.clearTimeout(this.#timer);
    const { subscriptions } = this.connection;
    if (wantsMore || subscriptions.get(this.key) != /** @type {any} */ (this)) {
      subscriptions.set(this.key, /** @type {any} */ (this));
      this.ask();
    }
    return this;
  }

  /** Ask the server for it, perhaps once more. */
  ask() {
    this.isOver = false;
    this.connection.changed("subscribe", /** @type {any} */ (this).request());
  }

  /** One of those who hold it lets it go; call it once for each `client.watch()` or `feed()`. */
  close() {
    this.#holders -= 1;
    if (!this.#holders) this.#timer = this.clock.setTimeout(() => this.forget(), LINGER_MS);
  }

  /** Nobody holds it any more. */
  forget() {
    const { subscriptions } = this.connection;
    if (subscriptions.get(this.key) == /** @type {any} */ (this)) subscriptions.delete(this.key);
    if (!this.isOver) this.finish();
  }

  /**
   * Nothing more will come.
   *
   * @param {Error | null} [error] Why it ended before its time; null: it is complete, or closed.
   */
  finish(error = null) {
    this.error = error;
    this.isOver = true;
    this.connection.changed("unsubscribe", /** @type {any} */ (this).request());
    this.emit("message", null);
    this.emit("change");
  }

  /**
   * Every message, beginning with what is known already, until the end.
   *
   * @returns {AsyncGenerator<ServerMessage, void, void>}
   * @throws {Error} It ended before its time.
   */
  async *[Symbol.asyncIterator]() {
    /** @type {(ServerMessage | null)[]} */
    const queue = /** @type {any} */ (this).past();
    if (this.isOver) queue.push(null);
    let wake = () => {};
    const undo = this.on("message", (message) => {
      queue.push(message);
      wake();
    });
    try {
      for (;;) {
        for (let message; (message = queue.shift()) !== undefined; ) {
          if (message) yield message;
          else if (this.error) throw this.error;
          else return;
        }
        await new Promise((resolve) => (wake = () => resolve(0)));
      }
    } finally {
      undo();
    }
  }
}
