// @ts-check
/** What goes over each transport, and how one takes the place of another. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { end, job, output, settle, start, subscribed } from "./fakes.js";

/** @typedef {import("../src/index.js").ClientOptions} ClientOptions */

const TOKEN = { token: () => "secret" };

/**
 * A client whose sockets are refused, so that it has asked for an event stream.
 *
 * @param {ClientOptions} [options]
 */
async function withoutSockets(options = TOKEN) {
  const all = start(options);
  const watch = all.client.watch("a");
  await settle();
  await all.server.socket.shut(1006);
  await all.clock.advance(250);
  await all.server.socket.shut(1006);
  await all.clock.advance(500);
  return { ...all, watch };
}

/**
 * A client that has sent its first poll.
 *
 * @param {ClientOptions} [options]
 */
async function withPollsOnly(options) {
  const all = await withoutSockets(options);
  await all.server.request.break();
  await all.clock.advance(1000);
  await all.server.request.break();
  await all.clock.advance(2000);
  return all;
}

/** @param {unknown[]} messages */
const answer = (...messages) => ({ messages, since: "2024-11-15T10:30:00.000Z" });

test("a socket is opened beside the base, and asked for each job", async () => {
  const { server, client } = start({ ...TOKEN, url: "https://jobs.test/base/" });
  client.watch("a");
  client.watch("b", { entries: false });
  client.feed("mine");
  await settle();
  assert.equal(server.socket.url, "wss://jobs.test/base/v1/ws");
  assert.equal(server.socket.sent.length, 0, "nothing before it is open");
  await server.socket.open();
  const known = { after: "0-0", version: 0, seq: 0 };
  assert.deepEqual(server.socket.sent, [
    { op: "auth", token: "secret" },
    { op: "subscribe", job_id: "a", entries: "all", ...known },
    { op: "subscribe", job_id: "b", entries: "none", ...known },
    { op: "subscribe", feed: "mine" },
  ]);
  await server.socket.say(subscribed());
  client.watch("c");
  assert.equal(server.socket.asked("subscribe").at(-1).job_id, "c");
  assert.equal(server.sockets.length, 1);
});

test("what nobody watches any more is unsubscribed", async () => {
  const { server, client, clock } = start();
  client.watch("a");
  const b = client.watch("b");
  await settle();
  await server.socket.open(subscribed());
  b.close();
  await clock.advance(1000);
  assert.equal(server.socket.sent.at(-1).op, "unsubscribe");
  assert.equal(server.socket.sent.at(-1).job_id, "b");
});

test("a transport that fails to open twice gives way to the next, and the last to the first", async () => {
  const { server, client, clock } = await withPollsOnly();
  assert.deepEqual(
    server.requests.map(({ path }) => path),
    ["/v1/events", "/v1/events", "/v1/poll"],
  );
  assert.equal(server.sockets.length, 2);
  assert.equal(client.state.status, "offline");
  await server.request.break();
  await clock.advance(4000);
  await server.request.break();
  await clock.advance(8000);
  assert.equal(server.sockets.length, 3);
});

test("what is away is looked for by the transport that was live, not by all of them again", async () => {
  const { server, client, clock } = await withPollsOnly();
  await server.request.answer(200, answer(subscribed(), job("1-0")));
  assert.equal(client.state.transport, "polling");
  const sockets = server.sockets.length;
  await clock.advance(500);
  for (let failures = 0; failures < 6; failures += 1) {
    assert.equal(server.request.path, "/v1/poll");
    const { length } = server.requests;
    await server.request.break();
    while (server.requests.length == length) await clock.advance(500);
  }
  await server.request.answer(200, answer(subscribed(), job("1-0")));
  assert.equal(client.state.transport, "polling");
  assert.equal(server.sockets.length, sockets);
});

test("a socket that is let in and then hears nothing gives way at once", async () => {
  const { server, client, clock } = start();
  client.watch("a");
  await settle();
  server.socket.onopen();
  await clock.advance(8_500);
  assert.equal(server.socket.isClosed, true);
  assert.equal(server.request.path, "/v1/events");
});

test("where there are no sockets at all, event streams serve", async () => {
  const { server, client, clock } = start({ WebSocket: /** @type {any} */ (null) });
  client.watch("a");
  await clock.advance(1000);
  assert.equal(server.request.path, "/v1/events");
});

test("a socket that opened and was lost is tried again by itself", async () => {
  const { server, client, clock } = start();
  client.watch("a");
  for (let round = 0; round < 4; round += 1) {
    await clock.advance(500);
    await server.socket.open(subscribed());
    await server.socket.shut(1006);
  }
  await clock.advance(500);
  assert.deepEqual([server.sockets.length, server.requests.length], [5, 0]);
});

test("only failures in a row count against a transport", async () => {
  const { server, client, clock } = start();
  client.watch("a");
  await settle();
  for (let round = 0; round < 3; round += 1) {
    await server.socket.shut(1006);
    await clock.advance(1000);
    await server.socket.open(subscribed());
    await server.socket.shut(1006);
    await clock.advance(1000);
  }
  assert.equal(server.requests.length, 0);
});

test("an event stream is asked for by POST, with the token in a header", async () => {
  const { server, client, watch } = await withoutSockets();
  const { request } = server;
  assert.equal(request.method, "POST");
  assert.equal(request.url, "http://jobs.test/v1/events");
  assert.equal(request.headers.get("Authorization"), "Bearer secret");
  assert.deepEqual(request.body, {
    subscribe: [{ job_id: "a", after: "0-0", version: 0, seq: 0, entries: "all" }],
  });
  await request.open(": livejobs\nretry: 1000\n\n", subscribed(), job("1-0"));
  assert.equal(watch.view?.status, "processing");
  assert.deepEqual([client.state.status, client.state.transport], ["live", "sse"]);
});

test("an event stream may be cut anywhere, with any line ends", async () => {
  const { server, watch } = await withoutSockets();
  await server.request.open(": livejobs\n");
  const last = { ...output("1-2"), text: "\u65e5 \u00e9" };
  const ends = ["\n", "\r\n", "\n", "\r\n"];
  const text = [subscribed(), job("1-0"), output("1-1"), last]
    .map((message, index) => `id: 1-0\ndata: ${JSON.stringify(message)}\n\n`
      .replaceAll("\n", ends[index] ?? ""))
    .join("");
  for (const character of text) await server.request.say(character);
  assert.deepEqual(
    watch.entries.map((entry) => /** @type {any} */ (entry).text),
    ["1-1;", "\u65e5 \u00e9"],
  );
});

test("a watch that is added opens the stream anew, with the cursors, once for all", async () => {
  const { server, client, clock } = await withoutSockets();
  const first = server.request;
  await first.open(": livejobs\n\n", subscribed(), job("1-0"), output("1-1"));
  client.watch("b");
  client.watch("c");
  await clock.advance(50);
  assert.equal(first.isAborted, true);
  assert.equal(server.requests.length, 2);
  assert.deepEqual(
    server.request.body.subscribe.map((/** @type {any} */ item) => [item.job_id, item.after]),
    [
      ["a", "1-1"],
      ["b", "0-0"],
      ["c", "0-0"],
    ],
  );
  assert.equal(client.state.status, "live");
});

test("a watch that is dropped leaves the stream as it is", async () => {
  const { server, client, clock } = await withoutSockets();
  await server.request.open(": livejobs\n\n", subscribed(), job("1-0"));
  const other = client.watch("b");
  await clock.advance(50);
  await server.request.open(": livejobs\n\n");
  other.close();
  await clock.advance(2000);
  assert.equal(server.requests.length, 2);
  assert.equal(server.request.isAborted, false);
});

test("a stream that the server ends is opened again after the time it named", async () => {
  const { server, clock } = await withoutSockets();
  await server.request.open(": livejobs\nretry: 1000\n\n", subscribed(), job("1-0"));
  await server.request.say("retry: 3000\n\n");
  await server.request.shut();
  await clock.advance(2990);
  assert.equal(server.requests.length, 1);
  await clock.advance(10);
  assert.equal(server.requests.length, 2);
});

test("a stream of which nothing comes through, not even its head, gives way to polling", async () => {
  for (const open of [false, true]) {
    const { server, clock } = await withoutSockets();
    if (open) await server.request.open();
    await clock.advance(9_000);
    assert.equal(server.requests[0]?.isAborted, true);
    assert.equal(server.request.path, "/v1/poll");
  }
});

test("the first poll is answered at once, the next ones are held", async () => {
  const { server, client, clock, watch } = await withPollsOnly();
  assert.equal(server.request.body.wait, 0);
  const { length } = server.requests;
  await server.request.answer(200, answer(subscribed(), job("1-0"), output("1-1")));
  assert.deepEqual([client.state.status, client.state.transport], ["live", "polling"]);
  assert.equal(watch.entries.length, 1);
  await clock.advance(490);
  assert.equal(server.requests.length, length, "two polls a second at most");
  await clock.advance(10);
  assert.deepEqual(server.request.body, {
    subscribe: [{ job_id: "a", after: "1-1", version: 2, seq: 0, entries: "all" }],
    wait: 20,
  });
  await clock.advance(20_000);
  await server.request.answer(200, answer(subscribed()));
  assert.equal(client.state.status, "live", "no news is no trouble");
});

test("a watch that is added breaks a held poll off", async () => {
  const { server, client, clock } = await withPollsOnly();
  await server.request.answer(200, answer(subscribed(), job("1-0")));
  await clock.advance(500);
  const held = server.request;
  client.watch("b");
  await clock.advance(600);
  assert.equal(held.isAborted, true);
  assert.equal(server.request.body.subscribe.length, 2);
});

test("polling ends with the jobs", async () => {
  const { server, client, clock } = await withPollsOnly();
  const last = job("1-0", { version: 3, status: "completed" });
  await server.request.answer(200, answer(subscribed(), last, end("1-0")));
  const { length } = server.requests;
  await clock.advance(60_000);
  assert.equal(server.requests.length, length);
  assert.equal(client.state.status, "idle");
});

for (const [status, headers, ms] of /** @type {const} */ ([
  [429, { "Retry-After": "7" }, 7000],
  [503, { "Retry-After": "3" }, 3000],
])) {
  test(`after ${status} it comes back when it may, by the same transport`, async () => {
    const { server, clock } = await withoutSockets({ random: () => 0.01 });
    assert.equal(server.request.path, "/v1/events");
    await server.request.answer(status, { code: "busy", detail: "Busy." }, headers);
    await clock.advance(ms - 10);
    assert.equal(server.requests.length, 1);
    await clock.advance(10);
    assert.equal(server.request.path, "/v1/events");
    assert.equal(server.requests.length, 2);
  });
}

test("401 is answered by a new token, and ever more slowly", async () => {
  let tokens = 0;
  const { server, clock } = await withoutSockets({ token: () => `token ${(tokens += 1)}` });
  for (const ms of [1000, 2000, 4000, 8000, 15_000, 15_000]) {
    const { length } = server.requests;
    await server.request.answer(401, { code: "unauthenticated" });
    await clock.advance(ms - 10);
    assert.equal(server.requests.length, length, `not before ${ms} ms`);
    await clock.advance(10);
    assert.equal(server.requests.length, length + 1, `after ${ms} ms`);
    assert.equal(server.request.path, "/v1/events", "no other transport would help");
  }
  assert.equal(server.request.headers.get("Authorization"), `Bearer token ${tokens}`);
});

test("422 stops it: another try would be refused as well", async () => {
  const { server, client, clock, watch } = await withoutSockets();
  await server.request.answer(422, { code: "invalid_request", detail: "job_id is too long" });
  await assert.rejects(watch.done, { name: "RequestError", status: 422, code: "invalid_request" });
  assert.equal(client.state.status, "stopped");
  await clock.advance(60_000);
  assert.equal(server.requests.length, 1);
});

test("a better transport is tried again later, beside the one that works", async () => {
  const { server, client, clock, watch } = await withoutSockets();
  const stream = server.request;
  await stream.open(": livejobs\n\n", subscribed(), job("1-0"), output("1-1"));
  await clock.advance(5_000);
  assert.equal(server.sockets.length, 3);
  await server.socket.shut(1006);
  await stream.say(output("1-2"));
  assert.deepEqual([client.state.status, client.state.transport], ["live", "sse"]);
  await clock.advance(9_000);
  assert.equal(server.sockets.length, 3, "the next time it waits longer");
  await clock.advance(2_000);
  assert.equal(server.sockets.length, 4);
  await stream.say(": ping\n\n");
  await server.socket.open();
  assert.equal(server.socket.asked("subscribe")[0].after, "1-2");
  assert.equal(stream.isAborted, false, "not before the other is there");
  await server.socket.say(subscribed(), job("1-2"), output("1-3"));
  assert.equal(stream.isAborted, true);
  assert.equal(client.state.transport, "websocket");
  assert.equal(watch.entries.length, 3);
  await clock.advance(20_000);
  assert.equal(server.sockets.length, 4);
});

test("from polling the way up is by event streams", async () => {
  const { server, client, clock } = await withPollsOnly();
  await server.request.answer(200, answer(subscribed(), job("1-0")));
  await clock.advance(5_000);
  const paths = server.requests.slice(-2).map(({ path }) => path);
  assert.ok(paths.includes("/v1/events"));
  const stream = server.requests.filter(({ path }) => path === "/v1/events").at(-1);
  await stream?.open(": livejobs\n\n");
  assert.equal(client.state.transport, "sse");
});

test("the network coming back begins with sockets again", async () => {
  const { server, client } = await withPollsOnly();
  await server.request.answer(200, answer(subscribed(), job("1-0")));
  const { length } = server.sockets;
  client.connect(true);
  await settle();
  assert.equal(server.sockets.length, length + 1);
});
