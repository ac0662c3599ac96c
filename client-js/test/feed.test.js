// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { job, progress, settle, start } from "./fakes.js";

/**
 * @param {string} job_id
 * @param {object} [fields] Of the view.
 */
const jobOf = (job_id, fields = {}) => job("1-0", { job_id, ...fields });

/** @param {string} feed */
const begun = (feed) => ({ type: "subscribed", feed, since: "2024-11-15T10:30:00.000Z" });

/** @param {string} name */
async function watching(name = "mine") {
  const all = start();
  const feed = all.client.feed(name);
  await settle();
  await all.server.socket.open(begun(name));
  return { ...all, feed, socket: all.server.socket };
}

/** @param {{jobs: readonly {job_id: string}[]}} feed */
const ids = ({ jobs }) => jobs.map(({ job_id }) => job_id);

test("a feed lists its jobs, the newest first, as they are now", async () => {
  const { feed, socket } = await watching();
  await socket.say(
    jobOf("old", { created_at: "2024-11-15T10:00:00.000Z" }),
    jobOf("new", { created_at: "2024-11-15T11:00:00.000Z" }),
  );
  assert.deepEqual(ids(feed), ["new", "old"]);
  const before = feed.jobs;
  assert.equal(feed.jobs, before, "the same list until something changes");
  await socket.say(progress(3, { job_id: "old" }));
  assert.equal(feed.jobs[1]?.progress?.current, 3);
  assert.equal(before[1]?.progress, null);
  assert.equal(feed.jobs[0], before[0], "what has not changed stays the same object");
});

test("a feed never shows an older view or older progress", async () => {
  const { feed, socket } = await watching();
  await socket.say(jobOf("a", { version: 5 }), progress(3), progress(2), jobOf("a", { version: 4 }));
  assert.equal(feed.jobs[0]?.version, 5);
  assert.equal(feed.jobs[0]?.progress?.current, 3);
  await socket.say(jobOf("a", { version: 5, progress: { current: 1 } }));
  assert.equal(feed.jobs[0]?.progress?.current, 3);
  await socket.say(begun("mine"), jobOf("a", { version: 5, progress: { current: 7 } }));
  assert.equal(feed.jobs[0]?.progress?.current, 7, "after a reading anew");
});

test("a feed that is resumed hands back where it was", async () => {
  const { server, clock, socket } = await watching();
  await socket.say({ ...begun("mine"), since: "later" });
  await socket.shut(1006);
  await clock.advance(500);
  await server.socket.open();
  assert.deepEqual(server.socket.sent, [{ op: "subscribe", feed: "mine", since: "later" }]);
});

test("a feed that was away for too long forgets what it knew", async () => {
  const { feed, socket } = await watching();
  await socket.say(jobOf("a"), jobOf("b"));
  await socket.say({ ...begun("mine"), recovered: false }, jobOf("b"));
  assert.deepEqual(ids(feed), ["b"]);
});

test("listeners of a feed are called once for what comes together", async () => {
  const { clock, feed, socket } = await watching();
  let changes = 0;
  feed.subscribe(() => (changes += 1));
  await socket.say(jobOf("a"), jobOf("b"), progress(1), progress(2));
  await clock.advance(100);
  assert.equal(changes, 1);
  await socket.say(progress(2));
  await clock.advance(100);
  assert.equal(changes, 1, "and not for what is old");
});

test("each feed takes what belongs to it", async () => {
  const { client, feed: tagged, socket } = await watching("tag:doc=a=b");
  const children = client.feed("children:p");
  const all = client.feed("all");
  await socket.say(
    jobOf("a", { tags: { doc: "a=b" } }),
    jobOf("b", { tags: { doc: "a" }, parent_id: "p" }),
    jobOf("c"),
  );
  assert.deepEqual(ids(tagged), ["a"]);
  assert.deepEqual(ids(children), ["b"]);
  assert.equal(all.jobs.length, 3);
});

test("a job that is deleted leaves the feeds, and ends its watch", async () => {
  const { client, feed, socket } = await watching();
  const watch = client.watch("a");
  await socket.say(jobOf("a"), jobOf("b"));
  await socket.say({ type: "problem", code: "unknown_job", message: "Gone.", job_id: "a" });
  assert.deepEqual(ids(feed), ["b"]);
  await assert.rejects(watch.done, { code: "unknown_job" });
});

test("a feed that is refused ends with an error", async () => {
  const { client, feed, socket, server } = await watching("all");
  /** @type {string[]} */
  const problems = [];
  feed.on("problem", ({ code }) => problems.push(code));
  await socket.say({ type: "problem", code: "forbidden_feed", message: "Not yours.", feed: "all" });
  assert.equal(feed.error?.message, "Not yours.");
  assert.deepEqual(problems, ["forbidden_feed"]);
  assert.equal(client.state.status, "idle");
  assert.equal(server.socket.isClosed, true);
});

test("a feed tells a watched job that it runs once more", async () => {
  const { client, socket } = await watching();
  const watch = client.watch("a");
  await socket.say({ type: "subscribed", job_id: "a", recovered: true });
  await socket.say(jobOf("a", { status: "failed" }), { type: "end", id: "1-0-end", job_id: "a" });
  assert.equal(watch.snapshot.ended, true);
  await socket.say(jobOf("a", { status: "pending", version: 3 }));
  assert.equal(watch.snapshot.ended, false);
  assert.equal(socket.asked("subscribe").length, 3);
});

test("what feed and watch are told of one job does not cost an entry", async () => {
  const { client, socket } = await watching();
  const watch = client.watch("a");
  await socket.say({ type: "subscribed", job_id: "a", recovered: true }, jobOf("a"));
  // By the feed's channel, ahead of the entries that it counts.
  await socket.say(progress(5, { id: "1-2" }));
  for (const id of ["1-1", "1-2"]) await socket.say({ type: "output", id, job_id: "a", text: id });
  assert.deepEqual(
    watch.entries.map(({ id }) => id),
    ["1-1", "1-2"],
  );
});

test("views from elsewhere are taken in by the same rules", async () => {
  const { feed, socket } = await watching();
  await socket.say(jobOf("a", { version: 5 }));
  feed.add([jobOf("a", { version: 4 }).job, jobOf("b").job]);
  assert.deepEqual(
    feed.jobs.map(({ job_id, version }) => `${job_id} ${version}`).sort(),
    ["a 5", "b 2"],
  );
});

test("of very many jobs the quietest are forgotten", async () => {
  const { feed, socket } = await watching();
  await socket.say(jobOf("first"), jobOf("second"));
  for (let count = 0; count < 998; count += 1) await socket.onmessage(said(jobOf(`job ${count}`)));
  await socket.say(progress(1, { job_id: "first" }), jobOf("last"));
  assert.equal(feed.jobs.length, 1000);
  assert.ok(ids(feed).includes("first"));
  assert.ok(!ids(feed).includes("second"));
});

/** @param {object} message */
const said = (message) => ({ data: JSON.stringify(message) });

test("iterating a feed begins with what it holds, and ends when it is closed", async () => {
  const { clock, feed, socket } = await watching();
  await socket.say(jobOf("a"));
  /** @type {string[]} */
  const seen = [];
  const reading = (async () => {
    for await (const message of feed) seen.push(message.type);
  })();
  await settle();
  await socket.say(progress(1), jobOf("b"));
  feed.close();
  await clock.advance(1000);
  await reading;
  assert.deepEqual(seen, ["job", "progress", "job"]);
});

test("a poll carries a feed's mark on, also where it says nothing else", async () => {
  const { server, client, clock } = start({ WebSocket: /** @type {any} */ (null) });
  client.feed("mine");
  await clock.advance(1000);
  await server.request.break();
  await clock.advance(2000);
  await server.request.break();
  await clock.advance(4000);
  assert.equal(server.request.path, "/v1/poll");
  await server.request.answer(200, { messages: [], since: "now" });
  await clock.advance(500);
  assert.deepEqual(server.request.body.subscribe, [{ feed: "mine", since: "now" }]);
});
