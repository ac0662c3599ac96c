// @ts-check
/**
 * Makes the pictures of the pages in `docs/images` from real processes: `make screenshots`.
 *
 * Each page is shown light and dark, wide and narrow, with jobs that really run meanwhile; and there
 * are frames of a moving picture.
 */

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { launch } from "./browser.mjs";
import { up } from "./system.mjs";

/** @typedef {import("./system.mjs").System} System */
/** @typedef {import("playwright-core").Page} Page */

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const IMAGES = join(ROOT, "docs", "images");
const DOCUMENTS = join(ROOT, "worker", "livejobs_worker", "demo");

const FRAMES = join(IMAGES, "frames");
const FRAME_COUNT = 40;
/** About; each takes some time itself. `shrink.py` shows them at this pace. */
const FRAME_MS = 200;
const MOVING = { width: 1040, height: 600 };
const SIZES = { wide: { width: 1280, height: 820 }, narrow: { width: 390, height: 844 } };
const THEMES = /** @type {const} */ (["light", "dark"]);
const ANSWER =
  "A job is a row in your database, and the row is the truth. Every change is committed before " +
  "anyone is told of it. Whoever comes late is shown the state as it is, and then every later " +
  "change, in order. ";

/** What is seen on the list when the pictures are taken, the oldest first. */
const PAST = [
  { task: "demo.count", kwargs: { steps: 12, seconds: 1.2 }, tags: { report: "September" } },
  { task: "demo.count", kwargs: { steps: 30, seconds: 3, fail_at: 20 }, tags: { import: "orders" } },
  { task: "demo.say", kwargs: { text: ANSWER, seconds: 2 }, tags: { question: "What is a job?" } },
];
const RETRIED = {
  task: "demo.count",
  kwargs: { steps: 40, seconds: 2.4, fail_at: 31, retries: 2 },
  tags: { import: "customers" },
};
const RUNNING = [
  { task: "demo.count", kwargs: { steps: 900, seconds: 120 }, tags: { import: "products" } },
  { task: "demo.count", kwargs: { steps: 5000, seconds: 70 }, tags: { export: "invoices" } },
  { task: "demo.say", kwargs: { text: ANSWER.repeat(6), seconds: 60 }, tags: { question: "How?" } },
];

/** One with parts, some of which are over when the pictures are taken, and some run. */
const SPLIT = {
  task: "demo.split",
  kwargs: { parts: 24, steps: 60, seconds: 6 },
  tags: { import: "archive" },
};

/** What is started while the moving picture is taken. */
const APPEARING = {
  task: "demo.count",
  kwargs: { steps: 300, seconds: 6 },
  tags: { import: "prices" },
};

/**
 * @param {System} system
 * @param {object} job
 * @returns {Promise<string>} Its id.
 */
async function start(system, job) {
  return (await system.call("POST", "/v1/jobs", job)).job_id;
}

/**
 * @param {System} system
 * @param {string} jobId
 */
async function untilOver(system, jobId) {
  for (;;) {
    const job = await system.call("GET", `/v1/jobs/${jobId}`);
    if (!["pending", "processing"].includes(job.status)) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/**
 * @param {System} system
 * @param {string} jobId
 * @param {number} fraction
 */
async function untilDone(system, jobId, fraction) {
  for (;;) {
    const { progress } = await system.call("GET", `/v1/jobs/${jobId}`);
    if ((progress?.fraction ?? 0) >= fraction) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** @param {System} system */
async function ingest(system) {
  const form = new FormData();
  for (const name of ["field-guide.pdf", "runbook.docx", "how-it-works.md"])
    form.append("files", new Blob([await readFile(join(DOCUMENTS, name))]), name);
  const { jobs } = await system.call("POST", "/v1/rag/ingest", form);
  for (const job of jobs) await untilOver(system, job.job_id);
}

/**
 * Jobs in every state.
 *
 * @param {System} system
 * @returns {Promise<{said: string, retried: string}>} Ids of those that are shown in full.
 */
async function fill(system) {
  for (const job of PAST) await untilOver(system, await start(system, job));
  await ingest(system);
  const retried = await start(system, RETRIED);
  await untilOver(system, retried);
  const cancelled = await start(system, RUNNING[0] ?? {});
  await system.call("POST", `/v1/jobs/${cancelled}/cancel`);
  const tomorrow = new Date(Date.now() + 95 * 60_000).toISOString();
  await start(system, { ...PAST[0], run_at: tomorrow, tags: { report: "October" } });
  const running = [];
  for (const job of RUNNING) running.push(await start(system, job));
  const said = String(running.at(-1));
  await untilDone(system, said, 0.25);
  return { said, retried };
}

/**
 * @param {Page} page
 * @param {string} name
 */
async function shoot(page, name) {
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: join(IMAGES, `${name}.png`), animations: "disabled" });
}

/**
 * @param {Page} page Of which the sign-in is shown.
 * @param {System} system
 */
async function signIn(page, system) {
  await page.fill("#key", system.key);
  await page.click("button.primary");
  await page.waitForURL(`${system.url}/`);
  await page.locator("#connection[data-mood=live]").waitFor();
}

/**
 * A job with parts, in one theme and one size.
 *
 * @param {import("playwright-core").Browser} browser
 * @param {System} system
 * @param {string} split
 * @param {"light" | "dark"} theme
 * @param {keyof typeof SIZES} size
 */
async function shootParts(browser, system, split, theme, size) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: theme });
  const page = await context.newPage();
  await page.goto(`${system.url}/`);
  await signIn(page, system);
  await page.goto(`${system.url}/jobs/${split}`);
  await page.locator(".rows .row[data-status=completed]").first().waitFor();
  await page.locator(".rows .row[data-status=processing] [aria-valuenow]").nth(1).waitFor();
  await shoot(page, `parts-${size}-${theme}`);
  await context.close();
}

/**
 * All other pages in one theme and one size.
 *
 * @param {import("playwright-core").Browser} browser
 * @param {System} system
 * @param {{said: string, retried: string}} jobs
 * @param {"light" | "dark"} theme
 * @param {keyof typeof SIZES} size
 */
async function shootAll(browser, system, jobs, theme, size) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: theme });
  const page = await context.newPage();
  const name = (/** @type {string} */ what) => `${what}-${size}-${theme}`;
  await page.goto(`${system.url}/`);
  await shoot(page, name("sign-in"));
  await signIn(page, system);
  if (size === "wide") await page.click(`[data-job="${jobs.said}"]`);
  await page.locator(`[data-job="${jobs.said}"] .row-percent:not(:empty)`).waitFor();
  if (size === "wide") await page.locator(".peek .tail").first().waitFor();
  await shoot(page, name("jobs"));
  await page.goto(`${system.url}/jobs/${jobs.retried}`);
  await page.locator(".timeline li").first().waitFor();
  await shoot(page, name("job"));
  await context.close();
}

/**
 * The frames of the moving picture: jobs that run, and one that is started meanwhile.
 *
 * @param {import("playwright-core").Browser} browser
 * @param {System} system
 * @param {string} said The job that is shown beside the list.
 */
async function shootMoving(browser, system, said) {
  const context = await browser.newContext({ viewport: MOVING, colorScheme: "light" });
  const page = await context.newPage();
  await page.goto(`${system.url}/`);
  await signIn(page, system);
  await page.click(`[data-job="${said}"]`);
  await page.locator(".peek .tail").first().waitFor();
  await mkdir(FRAMES, { recursive: true });
  for (let frame = 0; frame < FRAME_COUNT; frame += 1) {
    if (frame == 4) await start(system, APPEARING);
    await page.screenshot({ path: join(FRAMES, `${String(frame).padStart(3, "0")}.png`) });
    await page.waitForTimeout(FRAME_MS);
  }
  await context.close();
}

const browser = await launch();
const system = await up({ CELERY_WORKER_CONCURRENCY: "4" });
try {
  await mkdir(IMAGES, { recursive: true });
  const jobs = await fill(system);
  await shootMoving(browser, system, jobs.said);
  const sizes = /** @type {(keyof typeof SIZES)[]} */ (Object.keys(SIZES));
  for (const theme of THEMES)
    for (const size of sizes) await shootAll(browser, system, jobs, theme, size);
  const split = await start(system, SPLIT);
  for (const theme of THEMES)
    for (const size of sizes) await shootParts(browser, system, split, theme, size);
} finally {
  await browser.close();
  await system.stop();
}
