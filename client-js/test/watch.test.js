// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { JobError } from "../src/index.js";
import { end, job, log, output, progress, settle, start, subscribed } from "./fakes.js";

/** A client that watches job a over an open socket. */
async function watching() {
  const all = start();
  const watch = all.client.watch("a");
  await settle();
  await all.server.socket.open(subscribed(), job("1-0"));
  return { ...all, watch, socket: all.server.socket };
}

/** @param {readonly {id: string}[]} entries */
const ids = (entries) => entries.map((entry) => entry.id);

/** @param {AsyncIterable<{type: string, id?: string}>} messages */
async function collect(messages) {
  const seen = [];
  for await (const message of messages) seen.push(`${message.type} ${message.id}`);
  return seen;
}

const completed = (/** @type {object} */ fields = {}) => ({ status: "completed", ...fields });

test("a watch shows each view, and replaces it by another object", async () => {
  const { socket, watch } = await watching();
  const first = watch.view;
  assert.equal(first?.status, "processing");
  await socket.say(progress(1));
  assert.deepEqual(watch.view?.progress, { current: 1, total: 10 });
  assert.equal(first?.progress, null);
  assert.notEqual(watch.view, first);
});

test("an older view is never shown", async () => {
  const { socket, watch } = await watching();
  await socket.say(job("1-0", completed({ version: 5 })), subscribed(), job("1-0", { version: 4 }));
  assert.equal(watch.view?.version, 5);
});

test("a view of the same version counts only as the answer to a subscription", async () => {
  const { socket, watch } = await watching();
  await socket.say(progress(3), job("1-0", { progress: { current: 1, total: 10 } }));
  assert.equal(watch.view?.progress?.current, 3);
  await socket.say(subscribed(), job("1-0", { progress: { current: 7, total: 10 } }));
  assert.equal(watch.view?.progress?.current, 7);
});

test("of progress the larger seq of the attempt wins", async () => {
  const { socket, watch } = await watching();
  await socket.say(progress(5), progress(4), progress(5, { progress: { current: 99 } }));
  assert.equal(watch.view?.progress?.current, 5);
  await socket.say(job("2-0", { version: 3 }), progress(6));
  assert.equal(/** @type {any} */ (watch.view).progress, null);
  await socket.say(progress(1, { attempt: 2, id: "2-0" }));
  assert.equal(watch.view?.progress?.current, 1);
});

test("progress that comes after the last view is too late", async () => {
  const { socket, watch } = await watching();
  const last = { current: 10, total: 10 };
  await socket.say(job("1-0", completed({ version: 3, progress: last })), progress(9));
  assert.deepEqual(watch.view?.progress, last);
});

test("entries come once and in order", async () => {
  const { socket, watch } = await watching();
  await socket.say(output("1-1"), log("1-2"), output("1-2"), output("1-1"), output("1-3"));
  assert.deepEqual(ids(watch.entries), ["1-1", "1-2", "1-3"]);
});

test("a hole in the entries is asked for, and nothing is shown across it", async () => {
  const { socket, watch } = await watching();
  await socket.say(output("1-1"), output("1-3"), output("1-4"));
  assert.deepEqual(ids(watch.entries), ["1-1"]);
  assert.equal(socket.asked("subscribe").at(-1).after, "1-1");
  await socket.say(subscribed(), job("1-4"), output("1-2"), output("1-3"), output("1-4"));
  assert.deepEqual(ids(watch.entries), ["1-1", "1-2", "1-3", "1-4"]);
});

test("entries that come before the answer to the subscription are not for it", async () => {
  const { server, client } = start();
  const watch = client.watch("a");
  await settle();
  const last = job("1-1", completed());
  await server.socket.open(last, output("1-1"), end("1-1"));
  assert.deepEqual([watch.entries.length, watch.snapshot.ended], [0, false]);
  await server.socket.say(subscribed(), last, output("1-1"), end("1-1"));
  assert.deepEqual([watch.entries.length, watch.snapshot.ended], [1, true]);
});

test("entries past retention are left out, and that is told", async () => {
  const { socket, watch } = await watching();
  await socket.say({ ...subscribed(), recovered: false }, job("1-9"), output("1-8"), log("1-9"));
  assert.deepEqual(ids(watch.entries), ["1-8", "1-9"]);
  assert.equal(watch.snapshot.recovered, false);
});

test("when the attempt grows, output starts afresh", async () => {
  const { socket, watch } = await watching();
  /** @type {number[]} */
  const attempts = [];
  watch.on("restart", (attempt) => attempts.push(attempt));
  await socket.say(output("1-1"), job("2-0", { version: 3 }), output("1-2"), output("2-1"));
  assert.deepEqual(ids(watch.entries), ["2-1"]);
  assert.deepEqual(attempts, [2]);
});

test("an entry of a new attempt that comes before its view starts it too", async () => {
  const { socket, watch } = await watching();
  await socket.say(output("1-1"), output("2-1"));
  assert.deepEqual(ids(watch.entries), ["2-1"]);
});

test("a watch ends with its job: done has the result", async () => {
  const { socket, watch, client } = await watching();
  const seen = collect(watch);
  await socket.say(output("1-1"), job("1-1", completed({ version: 3, result: 42 })), end("1-1"));
  assert.equal(await watch.done, 42);
  assert.equal(watch.snapshot.ended, true);
  assert.deepEqual(await seen, ["job 1-0", "output 1-1", "job 1-1", "end 1-1-end"]);
  assert.equal(socket.isClosed, true, "nothing is watched any more");
  assert.equal(client.state.status, "idle");
});

test("done rejects with the job's error", async () => {
  const { socket, watch } = await watching();
  const error = { type: "ValueError", message: "no such page", code: "no_page" };
  await socket.say(job("1-0", { status: "failed", version: 3, error }), end("1-0"));
  await assert.rejects(watch.done, (reason) => {
    assert.ok(reason instanceof JobError);
    assert.equal(reason.message, "no such page");
    assert.equal(reason.code, "no_page");
    assert.deepEqual(reason.view?.error, error);
    return true;
  });
});

test("done of a cancelled job rejects, and nobody has to look at it", async () => {
  const { socket, watch } = await watching();
  await socket.say(job("1-0", { status: "cancelled", version: 3 }), end("1-0"));
  // Were the rejection nobody's, the test run would fail by now.
  await settle();
  await assert.rejects(watch.done, { name: "JobError", code: "cancelled" });
});

test("an end that the view does not know of is no end: it is asked again", async () => {
  const { socket, watch } = await watching();
  await socket.say(end("1-0"));
  assert.equal(watch.snapshot.ended, false);
  assert.equal(socket.asked("subscribe").length, 2);
  await socket.say(subscribed(), job("1-0", completed({ version: 1 })), end("1-0"));
  assert.equal(watch.snapshot.ended, true);
});

test("an end of an earlier attempt is none", async () => {
  const { socket, watch } = await watching();
  await socket.say(job("2-0", { version: 3 }), end("1-0"));
  assert.equal(watch.snapshot.ended, false);
});

test("a job that is run once more goes on where it is watched", async () => {
  const { server, client, watch } = await watching();
  await server.socket.say(output("1-1"), job("1-1", { status: "failed", version: 3 }), end("1-1"));
  await assert.rejects(watch.done);
  const retried = client.retry("a");
  await settle();
  await server.request.answer(202, job("1-1", { status: "pending", version: 4 }).job);
  assert.equal((await retried).version, 4);
  assert.equal(watch.view?.status, "pending");
  assert.equal(watch.snapshot.ended, false);
  await server.socket.open(subscribed(), job("2-0", { version: 5 }), output("2-1"));
  assert.equal(server.socket.asked("subscribe")[0].after, "1-1");
  await server.socket.say(job("2-1", completed({ version: 6, result: "ok" })), end("2-1"));
  assert.equal(await watch.done, "ok");
  assert.deepEqual(ids(watch.entries), ["2-1"]);
});

test("an unknown job ends its watch with an error, and no other", async () => {
  const { client, socket, watch } = await watching();
  const other = client.watch("b");
  /** @type {string[]} */
  const problems = [];
  other.on("problem", (problem) => problems.push(problem.code));
  const problem = { type: "problem", code: "unknown_job", message: "No such job.", job_id: "b" };
  await socket.say(problem);
  await assert.rejects(other.done, { name: "JobError", code: "unknown_job" });
  await assert.rejects(collect(other), { code: "unknown_job" });
  assert.deepEqual(problems, ["unknown_job"]);
  assert.equal(watch.snapshot.error, null);
  assert.notEqual(client.watch("b"), other, "asking again is a new watch");
});

test("listeners of log and output hear what there was, and everything after", async () => {
  const { socket, watch } = await watching();
  await socket.say(output("1-1"), log("1-2"));
  /** @type {string[]} */
  const heard = [];
  const undo = watch.on("output", ({ id }) => heard.push(id));
  await socket.say(output("1-3"));
  undo();
  await socket.say(output("1-4"));
  assert.deepEqual(heard, ["1-1", "1-3"]);
});

test("whoever iterates later gets everything too", async () => {
  const { socket, watch } = await watching();
  await socket.say(output("1-1"), progress(1));
  const late = collect(watch);
  await settle();
  await socket.say(job("1-1", completed({ version: 3 })), end("1-1"));
  assert.deepEqual(await late, ["job 1-0", "output 1-1", "job 1-1", "end 1-1-end"]);
  const last = await collect(watch);
  assert.deepEqual(last, ["job 1-0", "output 1-1", "end 1-1-end"], "and after the end");
});

test("subscribe is bound, tells of each change, and returns its undo", async () => {
  const { socket, watch } = await watching();
  const { subscribe } = watch;
  let changes = 0;
  const undo = subscribe(() => (changes += 1));
  const before = watch.snapshot;
  assert.equal(watch.snapshot, before, "the same object until something changes");
  await socket.say(progress(1), output("1-1"), progress(1));
  assert.equal(changes, 2);
  assert.notEqual(watch.snapshot, before);
  undo();
  await socket.say(progress(2));
  assert.equal(changes, 2);
});

test("a listener that throws stops nobody else", async (context) => {
  const { socket, watch } = await watching();
  const thrown = new Error("of the page");
  /** @type {unknown[]} */
  const uncaught = [];
  // What the test runner itself listens for has to stand aside for a moment.
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => uncaught.push(error));
  context.after(() => {
    process.removeAllListeners("uncaughtException");
    for (const listener of listeners) process.on("uncaughtException", listener);
  });
  let heard = 0;
  watch.subscribe(() => {
    throw thrown;
  });
  watch.subscribe(() => (heard += 1));
  await socket.say(progress(1));
  assert.equal(heard, 1);
  assert.deepEqual(uncaught, [thrown]);
});
