// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { RequestError } from "../src/index.js";
import { job, progress, settle, start, subscribed } from "./fakes.js";

test("watching a job twice shares one subscription, until both have closed it", async () => {
  const { server, client, clock } = start();
  const first = client.watch("a");
  const second = client.watch("a");
  assert.equal(first, second);
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  assert.equal(server.socket.asked("subscribe").length, 1);
  first.close();
  await clock.advance(5000);
  assert.equal(client.peek("job a"), second);
  second.close();
  await clock.advance(1000);
  assert.equal(client.peek("job a"), undefined);
});

test("a watch that is closed and wanted again at once has never left", async () => {
  const { server, client, clock } = start();
  const first = client.watch("a");
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  first.close();
  await clock.advance(500);
  const second = client.watch("a");
  assert.equal(second, first);
  assert.equal(second.view?.status, "processing");
  await clock.advance(5000);
  assert.equal(server.socket.isClosed, false);
  assert.equal(server.socket.asked("subscribe").length, 1);
});

test("whoever wants log and output gets them though another one did not", async () => {
  const { server, client } = start();
  client.watch("a", { entries: false });
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  client.watch("a");
  client.watch("a", { entries: false });
  assert.deepEqual(
    server.socket.asked("subscribe").map(({ entries }) => entries),
    ["none", "all"],
  );
});

test("closing a watch ends what waits for it", async () => {
  const { client, clock } = start();
  const watch = client.watch("a");
  const reading = (async () => {
    for await (const message of watch) assert.fail(message.type);
  })();
  watch.close();
  await clock.advance(1000);
  await reading;
  await assert.rejects(watch.done, { name: "JobError", code: "closed" });
});

test("closing the client ends everything", async () => {
  const { server, client, clock } = start();
  const watch = client.watch("a");
  const feed = client.feed("mine");
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  await clock.advance(100);
  client.close();
  await assert.rejects(watch.done, { code: "closed" });
  assert.ok(watch.isOver && feed.isOver && server.socket.isClosed);
  assert.equal(clock.timers.size, 0);
});

test("problems are told to the client, whatever they are about", async () => {
  const { server, client } = start();
  /** @type {string[]} */
  const codes = [];
  client.on("problem", ({ code }) => codes.push(code));
  client.watch("a");
  await settle();
  await server.socket.open({ type: "problem", code: "unavailable", message: "Later." });
  assert.deepEqual(codes, ["unavailable"]);
});

test("a task is started by POST, under a key", async () => {
  const { server, client } = start({ token: () => "secret" });
  const enqueued = client.enqueue("demo.count", { args: [3], tags: { doc: "a" } });
  await settle();
  const { request } = server;
  assert.deepEqual([request.method, request.path], ["POST", "/v1/jobs"]);
  assert.deepEqual(request.body, { task: "demo.count", args: [3], tags: { doc: "a" } });
  assert.equal(request.headers.get("Authorization"), "Bearer secret");
  assert.ok(request.headers.get("Idempotency-Key"));
  await request.answer(202, { job_id: "a", status: "pending", token: "t" });
  assert.deepEqual(await enqueued, { job_id: "a", status: "pending", token: "t" });
});

test("a task is started once, however often that has to be tried", async () => {
  const { server, client, clock } = start();
  const refused = assert.rejects(client.enqueue("demo.count", { idempotencyKey: "mine" }), {
    name: "RequestError",
    code: "database_unavailable",
  });
  await settle();
  await server.request.break();
  await clock.advance(1000);
  await server.request.answer(503, {}, { "Retry-After": "5" });
  await clock.advance(4990);
  assert.equal(server.requests.length, 2);
  await clock.advance(10);
  await server.request.answer(409, { code: "request_in_flight" });
  await clock.advance(4000);
  assert.deepEqual(
    server.requests.map(({ headers }) => headers.get("Idempotency-Key")),
    ["mine", "mine", "mine", "mine"],
  );
  await server.request.answer(503, { code: "database_unavailable", detail: "Away." });
  await refused;
});

test("a refusal is an error with the problem's words, and is not tried again", async () => {
  const { server, client, clock } = start();
  const refused = assert.rejects(client.enqueue("demo.count"), (error) => {
    assert.ok(error instanceof RequestError);
    assert.deepEqual([error.status, error.code], [403, "task_not_allowed"]);
    assert.equal(error.message, "Not by REST.");
    return true;
  });
  await settle();
  await server.request.answer(403, { code: "task_not_allowed", detail: "Not by REST." });
  await refused;
  await clock.advance(60_000);
  assert.equal(server.requests.length, 1);
});

test("a proxy's page is an error too", async () => {
  const { server, client } = start();
  const refused = assert.rejects(client.request("GET", "/v1/jobs"), {
    status: 404,
    code: "",
    message: "status 404",
  });
  await settle();
  await server.request.answer(404);
  await refused;
});

test("a cancelled job is shown as the answer says, at once", async () => {
  const { server, client } = start();
  const watch = client.watch("a/b");
  await settle();
  const cancelled = client.cancel("a/b");
  await settle();
  assert.equal(server.request.url, "http://jobs.test/v1/jobs/a%2Fb/cancel");
  const view = job("1-0", { job_id: "a/b", cancel_requested: true, version: 3 }).job;
  await server.request.answer(202, view);
  assert.deepEqual(await cancelled, view);
  assert.equal(watch.view?.cancel_requested, true);
  await server.socket.open(subscribed("a/b"), progress(1, { job_id: "a/b" }));
  assert.equal(watch.view?.progress?.current, 1);
});

test("any other request goes with the same credentials", async () => {
  const { server, client } = start({ token: "secret" });
  const listed = client.request("GET", "/v1/jobs?status=failed");
  await settle();
  assert.equal(server.request.url, "http://jobs.test/v1/jobs?status=failed");
  assert.equal(server.request.headers.get("Authorization"), "Bearer secret");
  await server.request.answer(200, { items: [], next: null });
  assert.deepEqual(await listed, { items: [], next: null });
  const removed = client.request("DELETE", "/v1/jobs/a");
  await settle();
  await server.request.answer(204);
  assert.equal(await removed, null);
});
