// @ts-check
/** When the connection is lost, by whom it is refused, and when it comes back. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { end, job, output, settle, start, subscribed } from "./fakes.js";

/** @typedef {import("../src/index.js").ClientOptions} ClientOptions */

/**
 * A client that watches job a, and has asked the server for it.
 *
 * @param {ClientOptions} [options]
 */
async function connecting(options) {
  const all = start(options);
  const watch = all.client.watch("a");
  await settle();
  return { ...all, watch };
}

/**
 * A client that watches job a over an open socket.
 *
 * @param {ClientOptions} [options]
 */
async function live(options) {
  const all = await connecting(options);
  await all.server.socket.open(subscribed(), job("1-0"));
  return all;
}

/**
 * How long it takes until the client asks for another socket, in ms.
 *
 * @param {Awaited<ReturnType<typeof connecting>>} all
 */
async function waits({ clock, server }) {
  const { length } = server.sockets;
  let ms = 0;
  for (; server.sockets.length === length; ms += 50) {
    assert.ok(ms < 60_000, "it came back within a minute");
    await clock.advance(50);
  }
  return ms;
}

test("nothing is connected before something is watched, nor after", async () => {
  const { server, client, clock, watch } = await live();
  assert.equal(start().server.sockets.length, 0);
  watch.close();
  await clock.advance(999);
  assert.equal(server.socket.isClosed, false, "a page may be redrawing");
  await clock.advance(1);
  assert.equal(server.socket.isClosed, true);
  assert.equal(client.state.status, "idle");
  assert.equal(clock.timers.size, 0);
});

test("the state tells how the connection is, and by which transport", async () => {
  const { server, client } = await connecting();
  /** @type {string[]} */
  const states = [client.state.status];
  client.on("state", ({ status, transport }) => states.push(`${status} ${transport}`));
  await server.socket.open(subscribed(), job("1-0"));
  await server.socket.say({ type: "degraded", degraded: true });
  assert.equal(client.state.degraded, true);
  await server.socket.shut(1006);
  assert.equal(client.state.degraded, false);
  assert.match(String(client.state.error), /1006/);
  client.close();
  assert.deepEqual(states, [
    "connecting",
    "live websocket",
    "live websocket",
    "connecting null",
    "idle null",
  ]);
});

test("a lost connection resumes each job by its cursor", async () => {
  const all = await live();
  await all.server.socket.say(output("1-1"), output("1-2"));
  await all.server.socket.shut(1006);
  await waits(all);
  await all.server.socket.open();
  assert.equal(all.server.socket.asked("subscribe")[0].after, "1-2");
  await all.server.socket.say(subscribed(), job("1-2"), output("1-2"), output("1-3"));
  assert.deepEqual(
    all.watch.entries.map(({ id }) => id),
    ["1-1", "1-2", "1-3"],
  );
});

test("after a good connection it comes back within half a second, at random", async () => {
  for (const [chance, ms] of /** @type {const} */ ([
    [0, 0],
    [0.5, 250],
    [0.99, 500],
  ])) {
    const all = await live({ random: () => chance });
    await all.server.socket.shut(1006);
    // At chance 0 it is back before any time has passed.
    if (ms === 0) assert.equal(all.server.sockets.length, 2);
    else assert.equal(await waits(all), ms);
  }
});

test("each failure doubles the wait, up to half a minute, and success ends that", async () => {
  /** @type {number[]} */
  const asked = [];
  /** @type {(() => number)[]} */
  const now = [];
  const all = start({
    token: () => {
      asked.push(now[0]?.() ?? 0);
      return asked.length < 9 ? Promise.reject(new TypeError("no network")) : "good";
    },
  });
  now.push(all.clock.now);
  const watch = all.client.watch("a");
  await all.clock.advance(46_000);
  const delays = asked.slice(2).map((time, index) => time - (asked[index + 1] ?? 0));
  assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  assert.equal(all.client.state.status, "offline");
  await all.server.socket.open(subscribed(), job("1-0"));
  await all.server.socket.shut(1006);
  assert.equal(await waits({ ...all, watch }), 250);
});

test("a token is taken at each connect", async () => {
  const tokens = ["one", "two"];
  const all = await live({ token: async () => tokens.shift() });
  assert.deepEqual(all.server.socket.sent[0], { op: "auth", token: "one" });
  await all.server.socket.shut(4401);
  await waits(all);
  await all.server.socket.open();
  assert.deepEqual(all.server.socket.sent[0], { op: "auth", token: "two" });
});

test("without a token no credentials are shown: cookies have to do", async () => {
  const { server } = await live();
  assert.deepEqual(server.socket.asked("auth"), []);
});

test("credentials that are refused at each connect are shown ever less often", async () => {
  const all = await connecting({ token: () => "expired" });
  let sockets = 0;
  for (let minute = 0; minute < 10; minute += 1) {
    for (const until = all.clock.time + 60_000; all.clock.time < until; ) {
      if (!all.server.socket.isClosed) {
        sockets += 1;
        all.server.socket.onopen();
        await all.server.socket.shut(4401);
      }
      await all.clock.advance(1000);
    }
  }
  assert.ok(sockets < 50, `${sockets} in ten minutes`);
  assert.equal(all.server.requests.length, 0, "no other transport would help");
  assert.equal(all.client.state.status, "offline");
});

test("a token that never comes does not hold it up for ever", async () => {
  let asked = 0;
  const { clock } = await connecting({
    token: () => {
      asked += 1;
      return new Promise(() => {});
    },
  });
  await clock.advance(24_000);
  assert.equal(asked, 1);
  await clock.advance(3_000);
  assert.equal(asked, 2);
});

test("a connection without a byte for 25 s is dead", async () => {
  const all = await live();
  const first = all.server.socket;
  await all.clock.advance(20_000);
  await first.say({ type: "ping" });
  await all.clock.advance(24_900);
  assert.equal(all.server.sockets.length, 1);
  await all.clock.advance(1_100);
  assert.equal(first.isClosed, true);
  assert.equal(all.server.sockets.length, 2);
});

test("nothing from a connection that was given up is heard", async () => {
  const all = await live();
  const first = all.server.socket;
  await all.clock.advance(26_000);
  assert.equal(all.server.sockets.length, 2);
  await first.say(job("1-0", { version: 9 }));
  assert.equal(all.watch.view?.version, 2);
});

test("after a sleep it connects at once, as soon as the first timer runs", async () => {
  const all = await live();
  await all.clock.sleep(3_600_000);
  assert.equal(all.server.sockets.length, 1);
  await all.clock.advance(0);
  assert.equal(all.server.sockets.length, 2);
});

test("a sleep during a wait ends the wait", async () => {
  const all = await connecting({ token: () => Promise.reject(new Error("away")) });
  await all.clock.advance(60_000);
  let asked = 0;
  const others = await connecting({
    token: async () => {
      asked += 1;
      throw new Error("away");
    },
  });
  await others.clock.advance(30_000);
  const before = asked;
  await others.clock.sleep(60_000);
  await others.clock.advance(0);
  assert.equal(asked, before + 1);
});

test("a clock that is set back does not stop it", async () => {
  const all = await live();
  await all.clock.sleep(-3_600_000);
  await all.clock.advance(1000);
  assert.equal(all.server.sockets.length, 2);
  const waiting = await live();
  await waiting.server.socket.shut(4429);
  await waiting.clock.sleep(-3_600_000);
  waiting.client.connect();
  await settle();
  assert.equal(waiting.server.sockets.length, 2);
});

test("network and tab coming back end the wait, the network also a connection", async (context) => {
  const target = new EventTarget();
  const before = globalThis.addEventListener;
  context.after(() => Object.assign(globalThis, { addEventListener: before }));
  /** @type {AbortSignal[]} */
  const listening = [];
  const addEventListener = (/** @type {Parameters<EventTarget["addEventListener"]>} */ ...all) => {
    listening.push(/** @type {any} */ (all[2]).signal);
    target.addEventListener(...all);
  };
  Object.assign(globalThis, { addEventListener });
  const all = await live({ random: () => 0.99 });
  await all.server.socket.shut(1006);
  target.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(all.server.sockets.length, 2);
  await all.server.socket.open(subscribed(), job("1-0"));
  target.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(all.server.sockets.length, 2);
  target.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(all.server.sockets.length, 3);
  assert.equal(all.server.sockets[1]?.isClosed, true);
  all.client.close();
  assert.ok(listening.every(({ aborted }) => aborted), "a closed client listens no more");
});

test("the wait that the server asked for is never cut short", async () => {
  const all = await live({ random: () => 0 });
  await all.server.socket.say({ type: "drain", reconnect_after_ms: 2310 });
  await all.server.socket.shut(1012);
  all.client.connect();
  await all.clock.advance(2309);
  assert.equal(all.server.sockets.length, 1);
  await all.clock.advance(1);
  assert.equal(all.server.sockets.length, 2);
});

test("a server that drains but stays is left for another when that is there", async () => {
  const all = await live();
  const first = all.server.socket;
  await first.say({ type: "drain", reconnect_after_ms: 2000 });
  await all.clock.advance(3000);
  assert.equal(all.server.sockets.length, 2);
  assert.equal(first.isClosed, false);
  await all.server.socket.open(subscribed(), job("1-0"));
  assert.equal(first.isClosed, true);
  assert.equal(all.client.state.transport, "websocket");
});

for (const code of [1012, 1013, 4429]) {
  test(`after ${code} it leaves the server a second or two`, async () => {
    const all = await live();
    await all.server.socket.shut(code);
    assert.equal(await waits(all), 1500);
  });
}

for (const code of [4400, 4404]) {
  test(`after ${code} it does not come back, and every watch is told`, async () => {
    const all = await live();
    await all.server.socket.shut(code);
    await assert.rejects(all.watch.done, { name: "RequestError", status: code });
    assert.equal(all.client.state.status, "stopped");
    await all.clock.advance(60_000);
    assert.equal(all.server.sockets.length, 1);
    all.client.watch("b");
    await settle();
    assert.equal(all.server.sockets.length, 2, "until something else is asked for");
  });
}

test("a job that ended is not asked for again", async () => {
  const all = await live();
  all.client.watch("b");
  await all.server.socket.say(job("1-0", { version: 3, status: "completed" }), end("1-0"));
  await all.server.socket.shut(1006);
  await waits(all);
  await all.server.socket.open();
  assert.deepEqual(
    all.server.socket.sent.map((request) => request.job_id),
    ["b"],
  );
});
