// @ts-check
/** A clock that a test turns, and a server that says what a test tells it to. */

import { JobClient } from "../src/index.js";

/** @typedef {import("../src/index.js").ClientOptions} ClientOptions */

/** Let everything run that is ready. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Time that passes only by `advance` and `sleep`. */
export class FakeClock {
  time = 1_700_000_000_000;
  /** @type {Map<number, {at: number, callback: () => void}>} */
  timers = new Map();
  #last = 0;

  now = () => this.time;

  /**
   * @param {() => void} callback
   * @param {number} ms
   */
  setTimeout = (callback, ms) => {
    this.#last += 1;
    this.timers.set(this.#last, { at: this.time + Math.max(0, ms), callback });
    return this.#last;
  };

  /** @param {any} timer */
  clearTimeout = (timer) => {
    this.timers.delete(timer);
  };

  /**
   * Let time pass: every timer runs when it is due.
   *
   * @param {number} ms
   */
  async advance(ms) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const due = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined || due[1].at > end) break;
      this.timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].callback();
      await settle();
    }
    this.time = end;
  }

  /**
   * Put the machine to sleep: time passes, and no timer runs before it has woken.
   *
   * @param {number} ms Less than 0: the clock is set back, which timers do not go by.
   */
  async sleep(ms) {
    await settle();
    this.time += ms;
    for (const timer of this.timers.values())
      timer.at = ms > 0 ? Math.max(timer.at, this.time) : timer.at + ms;
  }
}

/** One WebSocket, seen from the server. */
export class FakeSocket {
  /** @type {any[]} */
  sent = [];
  isClosed = false;
  /** @type {() => void} */
  onopen = () => {};
  /** @type {(event: {data: string}) => void} */
  onmessage = () => {};
  /** @type {(event: {code: number}) => void} */
  onclose = () => {};

  /** @param {string} url */
  constructor(url) {
    this.url = url;
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.isClosed = true;
  }

  /**
   * Accept it, and say something.
   *
   * @param {...object} messages
   */
  async open(...messages) {
    this.onopen();
    await this.say(...messages);
  }

  /** @param {...object} messages */
  async say(...messages) {
    for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
    await settle();
  }

  /** @param {number} code */
  async shut(code) {
    this.isClosed = true;
    this.onclose({ code });
    await settle();
  }

  /** What the client asked for, by op. @param {string} op */
  asked(op) {
    return this.sent.filter((request) => request.op === op);
  }
}

/** One request by `fetch`, seen from the server. */
export class FakeRequest {
  isAborted = false;
  /** @type {(response: Response) => void} */
  #respond = () => {};
  /** @type {(error: unknown) => void} */
  #fail = () => {};
  /** @type {ReadableStreamDefaultController<Uint8Array> | null} */
  #stream = null;
  response = new Promise((resolve, reject) => {
    this.#respond = resolve;
    this.#fail = reject;
  });

  /**
   * @param {string} url
   * @param {RequestInit} init
   */
  constructor(url, init) {
    this.url = url;
    this.path = new URL(url, "http://jobs.test").pathname;
    this.method = init.method;
    this.headers = new Headers(init.headers);
    this.body = typeof init.body === "string" ? JSON.parse(init.body) : null;
    init.signal?.addEventListener("abort", () => {
      this.isAborted = true;
      this.break(init.signal?.reason);
    });
  }

  /**
   * @param {number} status
   * @param {unknown} [body]
   * @param {Record<string, string>} [headers]
   */
  async answer(status, body, headers = {}) {
    const text = body === undefined ? null : JSON.stringify(body);
    this.#respond(new Response(text, { status, headers }));
    await settle();
  }

  /** Break it off. @param {unknown} [error] */
  break(error = new TypeError("network error")) {
    this.#fail(error);
    try {
      this.#stream?.error(error);
    } catch {
      // It was over.
    }
    return settle();
  }

  /**
   * Answer with an event stream, and say something.
   *
   * @param {...(object | string)} messages As `say` takes them.
   */
  async open(...messages) {
    const body = new ReadableStream({
      start: (controller) => {
        this.#stream = controller;
      },
    });
    this.#respond(new Response(body));
    await this.say(...messages);
  }

  /** @param {...(object | string)} messages Texts are sent as they are. */
  async say(...messages) {
    for (const message of messages) {
      const text = typeof message === "string" ? message : `data: ${JSON.stringify(message)}\n\n`;
      this.#stream?.enqueue(new TextEncoder().encode(text));
    }
    await settle();
  }

  /** End the stream as a server does. */
  async shut() {
    this.#stream?.close();
    await settle();
  }
}

/** The server and the network before it. */
export class FakeServer {
  /** @type {FakeSocket[]} */
  sockets = [];
  /** @type {FakeRequest[]} */
  requests = [];

  WebSocket = /** @type {any} */ (
    ((/** @type {FakeSocket[]} */ sockets) =>
      class extends FakeSocket {
        /** @param {string} url */
        constructor(url) {
          super(url);
          sockets.push(this);
        }
      })(this.sockets)
  );

  /** @type {any} */
  fetch = async (/** @type {string} */ url, /** @type {RequestInit} */ init) => {
    const request = new FakeRequest(url, init);
    this.requests.push(request);
    return request.response;
  };

  /** The newest socket. @returns {FakeSocket} */
  get socket() {
    return /** @type {FakeSocket} */ (this.sockets.at(-1));
  }

  /** The newest request. @returns {FakeRequest} */
  get request() {
    return /** @type {FakeRequest} */ (this.requests.at(-1));
  }
}

/**
 * A client of a fake server on fake time; chance is always in the middle.
 *
 * @param {ClientOptions} [options]
 */
export function start(options = {}) {
  const server = new FakeServer();
  const clock = new FakeClock();
  const client = new JobClient({
    url: "http://jobs.test",
    clock,
    random: () => 0.5,
    fetch: server.fetch,
    WebSocket: server.WebSocket,
    ...options,
  });
  return { server, clock, client };
}

// -- messages -----------------------------------------------------------------------------------

/**
 * A job's view.
 *
 * @param {Record<string, unknown>} [fields]
 * @returns {any}
 */
export const jobView = (fields = {}) => ({
  job_id: "a",
  task: "demo.count",
  queue: "default",
  status: "processing",
  version: 2,
  progress: null,
  result: null,
  error: null,
  attempt: 1,
  max_attempts: null,
  run_at: null,
  cancel_requested: false,
  stalled: false,
  owner: "",
  tags: {},
  parent_id: null,
  children: null,
  created_at: "2024-11-15T10:30:00.000Z",
  started_at: null,
  updated_at: "2024-11-15T10:30:00.000Z",
  completed_at: null,
  ...fields,
});

/** @param {string} [job_id] */
export const subscribed = (job_id = "a") => ({ type: "subscribed", job_id, recovered: true });

/**
 * @param {string} id The cursor; its attempt is the view's.
 * @param {Record<string, unknown>} [fields] Of the view.
 */
export const job = (id, fields = {}) => ({
  type: "job",
  id,
  job: jobView({ attempt: Number(id.split("-")[0]), ...fields }),
});

/**
 * @param {number} seq Also how many items are done.
 * @param {Record<string, unknown>} [fields] Of the message.
 */
export const progress = (seq, fields = {}) => ({
  type: "progress",
  id: "1-0",
  job_id: "a",
  attempt: 1,
  seq,
  progress: { current: seq, total: 10 },
  ...fields,
});

/**
 * @param {string} id
 * @param {string} [job_id]
 */
export const output = (id, job_id = "a") => ({ type: "output", id, job_id, text: `${id};` });

/**
 * @param {string} id
 * @param {string} [job_id]
 */
export const log = (id, job_id = "a") => ({
  type: "log",
  id,
  job_id,
  lines: [{ at: "2024-11-15T10:30:00.000Z", level: "info", text: id }],
});

/**
 * @param {string} id Without "-end".
 * @param {string} [job_id]
 */
export const end = (id, job_id = "a") => ({ type: "end", id: `${id}-end`, job_id });
