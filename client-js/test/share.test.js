// @ts-check
/** Tabs that share a connection; their locks and channels are stand-ins of a few lines. */

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { JobClient } from "../src/index.js";
import { FakeClock, FakeServer, end, job, log, output, settle, subscribed } from "./fakes.js";

/** Locks as `navigator.locks` has them: one holder at a time, the others in their order. */
class FakeLocks {
  /** @type {Map<string, (() => void)[]>} */
  #queues = new Map();

  /**
   * @param {string} name
   * @param {any} options
   * @param {any} [callback]
   */
  request(name, options, callback = options) {
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(name) ?? [];
      this.#queues.set(name, queue);
      const turn = async () => {
        await null;
        resolve(await callback());
        queue.shift();
        queue[0]?.();
      };
      options.signal?.addEventListener("abort", () => {
        if (queue.indexOf(turn) > 0) queue.splice(queue.indexOf(turn), 1);
        reject(options.signal.reason);
      });
      queue.push(turn);
      if (queue.length === 1) void turn();
    });
  }
}

/** Tells every other channel of its name; none of those that were cut off. */
class FakeChannel {
  /** @type {Set<FakeChannel>} */
  static all = new Set();
  /** @type {(event: {data: any}) => void} */
  onmessage = () => {};

  /** @param {string} name */
  constructor(name) {
    this.name = name;
    FakeChannel.all.add(this);
  }

  /** @param {any} note */
  postMessage(note) {
    const data = structuredClone(note);
    for (const other of FakeChannel.all)
      if (other !== this && other.name === this.name)
        queueMicrotask(() => {
          if (FakeChannel.all.has(other)) other.onmessage({ data });
        });
  }

  close() {
    FakeChannel.all.delete(this);
  }
}

before(() => {
  Object.defineProperty(globalThis, "navigator", {
    value: { locks: new FakeLocks() },
    configurable: true,
  });
  Object.assign(globalThis, { BroadcastChannel: FakeChannel });
});

let browsers = 0;

/** Tabs of one browser, each test's its own. */
function browser() {
  const server = new FakeServer();
  const clock = new FakeClock();
  const share = `browser ${(browsers += 1)}`;
  const tab = () =>
    new JobClient({
      url: "http://jobs.test",
      share,
      clock,
      random: () => 0.5,
      fetch: server.fetch,
      WebSocket: server.WebSocket,
    });
  return { server, clock, tab };
}

/** @param {{entries: readonly {id: string}[]}} watch */
const ids = ({ entries }) => entries.map(({ id }) => id);

/** The module is loaded when it is first asked for. */
const loaded = () => import("../src/share.js");

test("tabs share one connection, and each shows all", async () => {
  const { server, tab } = browser();
  const [one, two, three] = [tab(), tab(), tab()];
  const watches = [one.watch("a"), two.watch("a"), three.watch("b")];
  await loaded();
  await settle();
  assert.equal(server.sockets.length, 1);
  await server.socket.open(
    subscribed(),
    job("1-0"),
    output("1-1"),
    subscribed("b"),
    job("1-0", { job_id: "b" }),
    log("1-1", "b"),
  );
  assert.deepEqual(watches.map(ids), [["1-1"], ["1-1"], ["1-1"]]);
  assert.deepEqual(
    [one, two, three].map(({ state }) => `${state.status} ${state.transport}`),
    ["live websocket", "live websocket", "live websocket"],
  );
  assert.deepEqual(
    server.socket.asked("subscribe").map(({ job_id }) => job_id),
    ["a", "b"],
  );
});

test("a tab that joins has the full state at once, and then all that comes", async () => {
  const { server, tab } = browser();
  tab().watch("a");
  tab().feed("mine");
  await loaded();
  await settle();
  const feed = { type: "subscribed", feed: "mine", since: "then" };
  await server.socket.open(subscribed(), feed, job("1-0"), output("1-1"), output("1-2"));
  const late = tab();
  const [watch, jobs] = [late.watch("a"), late.feed("mine")];
  await settle();
  assert.deepEqual(ids(watch), ["1-1", "1-2"]);
  assert.equal(jobs.jobs.length, 1);
  assert.equal(jobs.since, "then");
  await server.socket.say(output("1-3"));
  assert.deepEqual(ids(watch), ["1-1", "1-2", "1-3"]);
  assert.equal(server.socket.sent.length, 2, "without a word to the server");
});

test("a tab that joins after the end is told of it", async () => {
  const { server, tab } = browser();
  tab().feed("mine");
  tab().watch("a");
  await loaded();
  await settle();
  const last = job("1-1", { status: "completed", version: 3, result: 7 });
  await server.socket.open(subscribed(), output("1-1"), last, end("1-1"));
  assert.equal(await tab().watch("a").done, 7);
});

test("when the leader closes, another tab goes on at once, and nothing is lost", async () => {
  const { server, clock, tab } = browser();
  const one = tab();
  const two = tab();
  one.watch("a");
  const watch = two.watch("a");
  await loaded();
  await settle();
  await server.socket.open(subscribed(), job("1-0"), output("1-1"));
  one.close();
  await clock.advance(1000);
  assert.equal(server.sockets[0]?.isClosed, true);
  assert.equal(server.sockets.length, 2);
  await server.socket.open(subscribed(), job("1-2"), output("1-1"), output("1-2"));
  assert.deepEqual(ids(watch), ["1-1", "1-2"]);
  assert.equal(two.state.status, "live");
});

test("what no tab watches any more is left, also where a tab just vanished", async () => {
  const { server, clock, tab } = browser();
  tab().watch("a");
  await loaded();
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  const other = tab();
  other.watch("b");
  const leaving = tab();
  const watch = leaving.watch("c");
  await settle();
  assert.equal(server.socket.asked("subscribe").length, 3);
  watch.close();
  await clock.advance(3000);
  assert.equal(server.socket.sent.at(-1)?.job_id, "c");
  other.close();
  await clock.advance(3000);
  assert.deepEqual(
    server.socket.asked("unsubscribe").map(({ job_id }) => job_id),
    ["c", "b"],
  );
});

test("every tab is told that the connection is lost, and that it is back", async () => {
  const { server, clock, tab } = browser();
  const clients = [tab(), tab()];
  for (const client of clients) client.watch("a");
  await loaded();
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  await server.socket.shut(1006);
  for (const { state } of clients) {
    assert.notEqual(state.status, "live");
    assert.equal(/** @type {any} */ (state.error).status, 1006);
  }
  await clock.advance(500);
  await server.socket.open(subscribed(), job("1-0"));
  for (const { state } of clients) assert.equal(state.status, "live");
});

test("a job that one tab runs again is live in all", async () => {
  const { server, tab } = browser();
  const [one, two] = [tab(), tab()];
  const watches = [one.watch("a"), two.watch("a")];
  one.watch("b");
  await loaded();
  await settle();
  const failed = job("1-1", { status: "failed", version: 3 });
  await server.socket.open(subscribed(), output("1-1"), failed, end("1-1"));
  const retried = two.retry("a");
  await settle();
  await server.request.answer(202, job("1-1", { status: "pending", version: 4 }).job);
  await retried;
  await server.socket.say(subscribed(), job("2-0", { version: 5 }), output("2-1"));
  assert.deepEqual(watches.map(ids), [["2-1"], ["2-1"]]);
});

test("where tabs cannot share, each has its own connection", async (context) => {
  const { navigator } = globalThis;
  context.after(() =>
    Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true }),
  );
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  const { server, clock, tab } = browser();
  tab().watch("a");
  await loaded();
  await clock.advance(2000);
  assert.equal(server.sockets.length, 1);
});
