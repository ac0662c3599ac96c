// @ts-check
/**
 * One connection for all tabs of a browser. The tab that holds a lock leads: it has a client of its
 * own that watches whatever any tab wants, and hands every message on over a BroadcastChannel. Each
 * tab keeps its own picture, with the same rules as over a connection of its own, so it does not
 * matter who leads, and a new leader begins from nothing.
 */

import { JobClient } from "./client.js";

/** @typedef {import("./connection.js").ConnectionState} ConnectionState */
/** @typedef {import("./messages.js").ServerMessage} ServerMessage */
/** @typedef {import("./session.js").Ending} Ending */
/** @typedef {import("./session.js").Item} Item */
/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./subscription.js").Kind} Subscription */

/**
 * What tabs say to each other. A tab: `want`, everything it watches, and `fresh`, that of it which
 * it has not been told of; `wake`, somebody looks at it. The leader: `lead`, that it has begun to;
 * `messages`, for the tab `to` or for all; `state`, how its connection is.
 *
 * @typedef {object} Note
 * @property {string} from
 * @property {string} [to]
 * @property {Item[]} [want]
 * @property {Item[]} [fresh]
 * @property {boolean} [wake]
 * @property {boolean} [lead]
 * @property {ServerMessage[]} [messages]
 * @property {Omit<ConnectionState, "error"> & {error: {message: string} | null}} [state]
 */

let tabs = 0;

/**
 * Take part in the connection that the tabs share, and lead it when it is this tab's turn.
 *
 * @param {Session} session
 * @returns {Promise<Ending>}
 * @throws {Error} This browser, or an origin that is not secure, does not let tabs share.
 */
export function shared(session) {
  const { locks } = navigator;
  const name = `livejobs ${session.options.url} ${session.options.share}`;
  const id = `${name} ${session.options.random()} ${(tabs += 1)}`;
  const channel = new BroadcastChannel(name);
  /** @type {Leader | null} */
  let leader = null;
  /** @param {Omit<Note, "from">} note */
  const say = (note) => {
    leader?.hear({ from: id, ...note });
    channel.postMessage({ from: id, ...note });
  };
  /** @param {Item[]} fresh */
  const want = (fresh) => say({ want: session.items(), fresh });
  /** @param {Note} note */
  const hear = (note) => {
    if (note.lead) want(session.items());
    if (!note.state && !note.messages) return;
    if (note.to && note.to != id) return;
    if (note.state) session.shown = { ...note.state, error: errorOf(note.state.error) };
    session.heard();
    if (note.state) session.connection.opened(session);
    for (const message of note.messages ?? []) session.connection.hear(message, session);
    session.isUseful = true;
  };
  channel.onmessage = ({ data }) => {
    leader?.hear(data);
    hear(data);
  };
  session.changed = (op, item) => want(op == "subscribe" ? [item] : []);
  const seen = () => say({ wake: true });
  globalThis.addEventListener?.("visibilitychange", seen);

  return new Promise((resolve, reject) => {
    const leaving = new AbortController();
    /** @type {() => void} */
    let release = () => {};
    const held = new Promise((done) => (release = () => done(undefined)));
    session.stop = () => {
      globalThis.removeEventListener?.("visibilitychange", seen);
      leader?.close();
      channel.close();
      leaving.abort();
      release();
      resolve({});
    };
    // Held for as long as this tab is there: the leader notices when it is not.
    locks.request(id, () => held);
    locks
      .request(name, { signal: leaving.signal }, () => {
        leader = new Leader(session, id, (note) => {
          channel.postMessage(note);
          hear(note);
        });
        leader.begin();
        return held;
      })
      .catch(reject);
    want(session.items());
  });
}

/** Watches on behalf of all tabs. */
class Leader {
  #client;
  #tell;
  #id;
  /** What each tab holds, by key. @type {Map<string, Map<string, Subscription>>} */
  #tabs = new Map();

  /**
   * @param {Session} session Of the tab that leads.
   * @param {string} id That tab's.
   * @param {(note: Note) => void} tell Tells all tabs.
   */
  constructor(session, id, tell) {
    this.#id = id;
    this.#tell = (/** @type {Omit<Note, "from">} */ note) => tell({ from: id, ...note });
    this.#client = new JobClient({ ...session.options, share: false });
    this.#client.on("message", (message) => this.#tell({ messages: [message] }));
    this.#client.on("state", () => this.#tell({ state: this.#state() }));
  }

  /** Ask all tabs what they want. */
  begin() {
    this.#tell({ lead: true });
  }

  close() {
    this.#client.close();
  }

  /** @param {Note} note Said by any tab. */
  hear({ from, want, fresh = [], wake }) {
    if (wake) this.#client.connect();
    if (!want) return;
    const held = this.#tabs.get(from) ?? this.#meet(from);
    const wanted = new Map(want.map((item) => [keyOf(item), item]));
    for (const [key, subscription] of held) {
      if (wanted.has(key)) continue;
      held.delete(key);
      subscription.close();
    }
    const messages = fresh.flatMap((item) => this.#hold(held, item));
    this.#tell({ to: from, messages, state: this.#state() });
  }

  /** How the connection is; channels let nothing pass of an error but its message. */
  #state() {
    const { error, ...state } = this.#client.state;
    return { ...state, error: error && { ...error, message: error.message } };
  }

  /**
   * @param {Map<string, Subscription>} held What the tab has.
   * @param {Item} item What it asks for, perhaps once more.
   * @returns {ServerMessage[]} All that is known of it; what is not comes from the server.
   */
  #hold(held, item) {
    const { job_id, feed, version = 0, entries } = /** @type {any} */ (item);
    const before = held.get(keyOf(item));
    if (feed) {
      const found = this.#client.feed(feed);
      held.set(keyOf(item), found);
      before?.close();
      const { since } = found;
      return since ? [{ type: "subscribed", feed, since }, ...found.past()] : [];
    }
    const watch = this.#client.watch(job_id, { entries: entries == "all" });
    held.set(keyOf(item), watch);
    before?.close();
    const { recovered, view } = watch.snapshot;
    if (!view) return [];
    if (watch.isOver && version > view.version) {
      // Somebody runs it once more, and this tab heard of it first.
      watch.ask();
      return [];
    }
    return [{ type: "subscribed", job_id, recovered }, ...watch.past()];
  }

  /** @param {string} from A tab that is not known yet. */
  #meet(from) {
    /** @type {Map<string, Subscription>} */
    const held = new Map();
    this.#tabs.set(from, held);
    // Granted when the tab is gone, in whichever way.
    if (from != this.#id) navigator.locks.request(from, () => this.#forget(from));
    return held;
  }

  /** @param {string} from */
  #forget(from) {
    for (const subscription of this.#tabs.get(from)?.values() ?? []) subscription.close();
    this.#tabs.delete(from);
  }
}

/**
 * @param {{message: string} | null} error
 * @returns {Error | null}
 */
const errorOf = (error) => error && Object.assign(new Error(error.message), error);

/** @param {Item} item */
const keyOf = ({ job_id, feed }) => (feed ? `feed ${feed}` : `job ${job_id}`);
