// @ts-check
/**
 * Measures how smoothly the list is drawn while many jobs change: how long frames take, and how long
 * the page's own work in them. Prints the figures, which mean something on a quiet machine:
 *
 *     make bench-page ARGS="[jobs] [changes of each a second] [seconds]"
 *
 * The page and everything else come from a real server; only the feed is made up here, since no one
 * machine runs so many jobs beside a browser.
 */

import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { launch } from "./browser.mjs";
import { up } from "./system.mjs";

const fromClient = createRequire(fileURLToPath(new URL("../../client-js/package.json", import.meta.url)));
/** @type {typeof import("ws")} */
const { WebSocketServer } = fromClient("ws");

const [jobs = 500, perSecond = 4, seconds = 15] = process.argv.slice(2).map(Number);
const TICK_MS = 10;

/** @param {number} number */
function view(number) {
  const at = new Date(Date.UTC(2025, 0, 1) + number * 1000).toISOString();
  return {
    job_id: `job-${number}`, task: "shop.import", queue: "celery", status: "processing", version: 2,
    progress: null, result: null, error: null, attempt: 1, max_attempts: 4, run_at: null,
    cancel_requested: false, stalled: false, owner: "local", tags: { number: String(number) },
    parent_id: null, children: null, created_at: at, started_at: at, updated_at: at,
    completed_at: null,
  };
}

/**
 * @param {number} number
 * @param {number} seq
 */
function progress(number, seq) {
  const current = (seq * 3 + number) % 1000;
  return {
    type: "progress", id: "1-0", job_id: `job-${number}`, attempt: 1, seq,
    progress: {
      current, total: 1000, fraction: current / 1000, stage: "import", message: `row ${current}`,
      rate: 12.5 + (seq % 7), eta_seconds: (1000 - current) / 12.5, data: {},
    },
  };
}

/** @param {import("ws").WebSocket} socket */
function feed(socket) {
  const send = (/** @type {object} */ message) => socket.send(JSON.stringify(message));
  socket.once("message", () => {
    send({ type: "subscribed", feed: "mine", recovered: true, since: new Date().toISOString() });
    for (let number = 0; number < jobs; number += 1) send({ type: "job", id: "1-0", job: view(number) });
    const begun = performance.now();
    let sent = 0;
    const timer = setInterval(() => {
      const due = ((performance.now() - begun) / 1000) * jobs * perSecond;
      for (; sent < due; sent += 1) send(progress(sent % jobs, Math.floor(sent / jobs) + 1));
    }, TICK_MS);
    socket.once("close", () => clearInterval(timer));
  });
}

/**
 * A server that passes everything on to livejobs, and answers WebSockets itself.
 *
 * @param {string} target
 * @returns {Promise<import("node:http").Server>}
 */
async function inFrontOf(target) {
  const server = createServer((asked, answer) => {
    const onward = request(target + asked.url, { method: asked.method, headers: asked.headers });
    onward.on("response", (got) => {
      answer.writeHead(got.statusCode ?? 502, got.headers);
      got.pipe(answer);
    });
    asked.pipe(onward);
  });
  new WebSocketServer({ server }).on("connection", feed);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  return server;
}

/** In the page: times between frames, and of long tasks, in ms. */
async function measure(/** @type {number} */ forMs) {
  /** @type {number[]} */
  const gaps = [];
  /** @type {number[]} */
  const long = [];
  new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: "longtask" });
  const end = performance.now() + forMs;
  let last = performance.now();
  while (last < end) {
    const now = await new Promise((resolve) => requestAnimationFrame(resolve));
    gaps.push(now - last);
    last = now;
  }
  return { gaps: gaps.slice(1), long };
}

/**
 * @param {number[]} values
 * @param {number} share
 */
function quantile(values, share) {
  const sorted = [...values].sort((one, other) => one - other);
  return Number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
}

const system = await up();
const server = await inFrontOf(system.url);
const address = /** @type {import("node:net").AddressInfo} */ (server.address());
const url = `http://127.0.0.1:${address.port}`;
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.goto(`${url}/`);
  await page.fill("#key", system.key);
  await page.click("button.primary");
  await page.locator(".row").nth(jobs - 1).waitFor({ state: "attached" });
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable");
  const busy = async () => {
    const { metrics } = await client.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  };
  const before = await busy();
  const { gaps, long } = await page.evaluate(measure, seconds * 1000);
  const after = await busy();
  const spent = (/** @type {string} */ name) =>
    (((after[name] ?? 0) - (before[name] ?? 0)) / seconds) * 100;
  process.stdout.write(
    `${jobs} jobs, each changing ${perSecond} times a second, for ${seconds} s\n` +
      `frames a second    ${(gaps.length / seconds).toFixed(1)}\n` +
      `frame time         median ${quantile(gaps, 0.5).toFixed(1)} ms, 95 % ${quantile(gaps, 0.95).toFixed(1)} ms, ` +
      `99 % ${quantile(gaps, 0.99).toFixed(1)} ms, worst ${quantile(gaps, 1).toFixed(1)} ms\n` +
      `tasks over 50 ms   ${long.length}\n` +
      `main thread        ${spent("TaskDuration").toFixed(0)} % busy: script ${spent("ScriptDuration").toFixed(0)} %, ` +
      `style ${spent("RecalcStyleDuration").toFixed(0)} %, layout ${spent("LayoutDuration").toFixed(0)} %\n`,
  );
} finally {
  await browser.close();
  server.closeAllConnections();
  server.close();
  await system.stop();
}
