// @ts-check
/** Numbers, times and states in words, as the pages show them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../../server/livejobs_server/web/static/format.js";

const NOW = Date.parse("2025-01-01T12:00:00Z");

/**
 * @param {object} [changes]
 * @returns {any}
 */
function job(changes = {}) {
  return {
    status: "processing",
    attempt: 1,
    cancel_requested: false,
    stalled: false,
    children: null,
    run_at: null,
    progress: null,
    started_at: "2025-01-01T11:59:30Z",
    completed_at: null,
    tags: {},
    ...changes,
  };
}

test("time spans have two units at most, and no digit more than tells something", () => {
  const spans = [0, 8.4, 59.6, 61, 3599, 3600, 7_620, 86_400, 273_600];
  assert.deepEqual(
    spans.map((seconds) => format.duration(seconds)),
    ["0 s", "8 s", "1 min 00 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 07 min", "1 d 0 h", "3 d 4 h"],
  );
  assert.deepEqual(
    [0, 0.04, 0.42, 9.94, 9.96].map((seconds) => format.duration(seconds, true)),
    ["< 0.1 s", "< 0.1 s", "0.4 s", "9.9 s", "10 s"],
  );
});

test("100 % means that it is done", () => {
  assert.equal(format.percent(0.9999), "99 %");
  assert.equal(format.percent(0.29), "29 %");
  assert.equal(format.percent(1), "100 %");
  assert.equal(format.percent(null), "");
  assert.equal(format.fractionOf(job({ status: "completed" })), 1);
  assert.equal(format.fractionOf(job({ progress: { fraction: 1.7 } })), 1);
  assert.equal(format.fractionOf(job()), null);
  const children = { total: 8, completed: 4, failed: 1, cancelled: 1 };
  assert.equal(format.fractionOf(job({ children })), 0.75);
  assert.equal(format.fractionOf(job({ children, progress: { fraction: 0.1 } })), 0.1);
});

test("rates are told by the second or by the minute", () => {
  assert.deepEqual(
    [null, 0, -1, 0.05, 0.5, 12.34, 1234].map((rate) => format.rate(rate)),
    ["", "", "", "3.0/min", "0.5/s", "12.3/s", "1,234/s"],
  );
});

test("amounts are told with their total where it is known", () => {
  assert.equal(format.amount(job({ current: 1500, total: 20000 })), "1,500 of 20,000");
  assert.equal(format.amount(job({ current: 1.25, total: null })), "1.3");
});

test("a job's state is said in a word", () => {
  const states = [
    [{}, "Running"],
    [{ stalled: true }, "Silent"],
    [{ cancel_requested: true }, "Stopping"],
    [{ children: { total: 2, completed: 1, failed: 0, cancelled: 0 } }, "Waiting for its parts"],
    [{ children: { total: 2, completed: 1, failed: 1, cancelled: 0 } }, "Running"],
    [{ status: "pending", attempt: 0 }, "Waiting"],
    [{ status: "pending", attempt: 1 }, "Trying again"],
    [{ status: "pending", attempt: 0, run_at: "2025-01-01T13:00:00Z" }, "Scheduled"],
    [{ status: "pending", attempt: 0, run_at: "2025-01-01T11:00:00Z" }, "Waiting"],
    [{ status: "cancelled", cancel_requested: true }, "Cancelled"],
  ];
  for (const [changes, words] of states)
    assert.equal(format.statusWords(job(/** @type {object} */ (changes)), NOW), words);
});

test("the time since is told in one unit", () => {
  const times = ["12:00:01", "11:59:58", "11:59:20", "11:55:00", "09:00:00"];
  assert.deepEqual(
    times.map((time) => format.ago(`2025-01-01T${time}Z`, NOW)),
    ["now", "now", "40 s ago", "5 min ago", "3 h ago"],
  );
  assert.match(format.ago("2024-12-24T12:00:00Z", NOW), /Dec 24/);
});

test("how long a job ran ends with it", () => {
  assert.equal(format.secondsRun(job(), NOW), 30);
  assert.equal(format.secondsRun(job({ completed_at: "2025-01-01T11:59:32Z" }), NOW), 2);
  assert.equal(format.secondsRun(job({ started_at: null }), NOW), null);
});

test("what a job is about is its document, then its tags", () => {
  assert.equal(format.subject(job({ tags: { z: "1", document: "a.pdf" } })), "a.pdf  z=1");
  assert.equal(format.subject(job()), "");
});

test("sizes are told as people say them", () => {
  assert.deepEqual([900, 2048, 5.5 * 1024 ** 2, 50 * 1024 ** 2].map(format.size), [
    "900 bytes",
    "2 kB",
    "5.5 MB",
    "50 MB",
  ]);
});
