// @ts-check
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { isFinal } from "../src/index.js";
import { jobView, settle, start } from "./fakes.js";

/** Written by the Python tests out of the server's own models: one file for each type. */
const FIXTURES = new URL("../../tests/fixtures/messages/", import.meta.url);

/** What every server of version 1 sends. */
const TYPES = ["subscribed", "job", "progress", "log", "output", "end", "ping", "pong", "problem"];

/** What the client does with a message beyond taking it for a sign of life. */
const EVENTS = ["job", "progress", "log", "output", "end", "problem"];

/** @returns {Map<string, any[]>} Examples by type. */
function fixtures() {
  const files = readdirSync(FIXTURES).filter((name) => name.endsWith(".json"));
  return new Map(
    files.map((name) => [
      name.replace(/\.json$/, ""),
      JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8")),
    ]),
  );
}

/** @param {any} message */
const jobOf = (message) => message.job_id ?? message.job?.job_id ?? "a";

/**
 * What a client that watches a message's job tells of it, if it is the first it hears.
 *
 * @param {any} message
 */
async function told(message) {
  const { server, client } = start();
  const id = jobOf(message);
  const attempt = Number((message.id ?? "0-0").split("-")[0]);
  const status = message.type === "end" ? "completed" : "processing";
  const view = jobView({ job_id: id, version: 0, attempt, status });
  const watch = client.watch(id);
  await settle();
  const known = { type: "job", id: `${attempt}-0`, job: view };
  await server.socket.open({ type: "subscribed", job_id: id, recovered: true }, known);
  /** @type {string[]} */
  const events = [];
  for (const name of EVENTS) {
    watch.on(name, () => events.push(name));
    if (name === "problem") client.on(name, () => events.push(name));
  }
  await server.socket.say(message);
  return { events, watch, client };
}

test("every message that the server writes is understood", async () => {
  const examples = fixtures();
  for (const type of TYPES) assert.ok(examples.has(type), `no example of ${type}`);
  for (const [type, messages] of examples) {
    assert.ok(messages.length > 0, `no example in ${type}.json`);
    for (const message of messages) {
      assert.equal(message.type, type);
      const { events, client } = await told(message);
      assert.equal(new Set(events).has(type), EVENTS.includes(type), JSON.stringify(message));
      const isTheLast = type === "end" || (type === "problem" && message.job_id);
      assert.equal(client.state.status, isTheLast ? "idle" : "live");
    }
  }
});

test("what the server says is what the watch shows", async () => {
  for (const message of fixtures().get("job") ?? [])
    assert.deepEqual((await told(message)).watch.view, message.job);
  for (const message of fixtures().get("progress") ?? [])
    assert.deepEqual((await told(message)).watch.view?.progress, message.progress);
  for (const type of ["log", "output"])
    for (const message of fixtures().get(type) ?? [])
      assert.deepEqual((await told(message)).watch.entries, [message]);
});

test("messages of types and with fields from the future do no harm", async () => {
  for (const message of [{ type: "weather", job_id: "a" }, { type: "constructor" }]) {
    const { events, client } = await told(message);
    assert.deepEqual(events, []);
    assert.equal(client.state.status, "live");
  }
});

test("rubbish is passed over, and the connection stays", async () => {
  const { server, client } = start();
  const watch = client.watch("a");
  client.feed("mine");
  await settle();
  await server.socket.open({ type: "subscribed", job_id: "a", recovered: true });
  for (const text of [
    "",
    "{",
    "null",
    "7",
    "[]",
    "{}",
    '{"type":1}',
    '{"type":"job"}',
    '{"type":"job","id":"1-0","job":null}',
    '{"type":"job","id":"1-0","job":{}}',
    '{"type":"job","id":"1-0","job":{"job_id":"a","tags":{}}}',
    '{"type":"progress","job_id":"a"}',
    '{"type":"progress","id":"x-y","job_id":"a"}',
    '{"type":"log","job_id":"a"}',
    '{"type":"output","id":7,"job_id":"a"}',
    '{"type":"end","job_id":"a"}',
    '{"type":"problem"}',
  ])
    server.socket.onmessage({ data: text });
  await settle();
  assert.equal(watch.view, null);
  assert.deepEqual(watch.entries, []);
  assert.equal(watch.snapshot.ended, false);
  assert.equal(client.state.status, "live");
});

test("a job is final in three of five statuses", () => {
  const statuses = /** @type {const} */ ([
    "pending",
    "processing",
    "completed",
    "failed",
    "cancelled",
  ]);
  const final = statuses.filter((status) => isFinal(jobView({ status })));
  assert.deepEqual(final, ["completed", "failed", "cancelled"]);
  assert.equal(isFinal(null), false);
});
