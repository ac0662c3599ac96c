// @ts-check
/** The pages in a real browser, against everything that `livejobs up` starts. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch } from "./browser.mjs";
import { up } from "./system.mjs";

/** @typedef {import("playwright-core").Page} Page */

const fromClient = createRequire(
  fileURLToPath(new URL("../../client-js/package.json", import.meta.url)),
);
const AXE = await readFile(fromClient.resolve("axe-core/axe.min.js"), "utf-8");
const MINUTE = 60_000;
const SETTINGS = { CELERY_WORKER_CONCURRENCY: "2", LIVEJOBS_WEBHOOK_NETWORKS: "127.0.0.0/8" };

/** @type {import("./system.mjs").System} */
let system;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {import("playwright-core").BrowserContext} */
let context;
/** @type {Page} */
let page;
/** What the page complained of: policies, scripts that failed. @type {string[]} */
let complaints = [];

before(
  async () => {
    [browser, system] = await Promise.all([launch(), up(SETTINGS)]);
  },
  { timeout: 3 * MINUTE },
);

after(async () => {
  await browser?.close();
  await system?.stop();
});

beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  page = await context.newPage();
  complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    const isOurs = !message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && isOurs) complaints.push(message.text());
  });
});

afterEach(async () => {
  await context.close();
  assert.deepEqual(complaints, []);
});

async function signIn() {
  await page.goto(`${system.url}/`);
  await page.fill("#key", system.key);
  await page.click("button.primary");
  await page.waitForURL(`${system.url}/`);
}

/**
 * @param {Record<string, unknown>} kwargs Of `demo.count`.
 * @param {Record<string, string>} [tags]
 * @param {string} [webhook] Who is told of its end.
 * @returns {Promise<string>} Its id.
 */
async function start(kwargs, tags = {}, webhook = "") {
  const body = { task: "demo.count", kwargs, tags, webhook_url: webhook };
  return (await system.call("POST", "/v1/jobs", body)).job_id;
}

/** @param {string} jobId */
const row = (jobId) => page.locator(`[data-job="${jobId}"]`);

/** @param {string} status */
const shown = (status) => page.locator(`.details[data-status="${status}"]`);

// -- signing in ------------------------------------------------------------------------------------

test("the printed link signs in once, and does not stay in the address", async () => {
  await page.goto(system.page);
  assert.equal(page.url(), `${system.url}/`);
  await page.locator("#connection[data-mood=live]").waitFor();
  const cookies = await context.cookies();
  assert.equal(cookies[0]?.httpOnly, true);
  const other = await browser.newContext();
  const stranger = await other.newPage();
  await stranger.goto(system.page);
  assert.match(stranger.url(), /\/sign-in\?/);
  assert.match(await stranger.locator("#why").innerText(), /used before/);
  await other.close();
});

test("a wrong key is refused in words, and a right one leads to the page asked for", async () => {
  const jobId = await start({ steps: 1, seconds: 0 });
  await page.goto(`${system.url}/jobs/${jobId}`);
  await page.fill("#key", "lj_wrong");
  await page.click("button.primary");
  await page.locator("#problem:not([hidden])").waitFor();
  await page.fill("#key", system.key);
  await page.click("button.primary");
  await page.waitForURL(`${system.url}/jobs/${jobId}`);
  await shown("completed").waitFor();
});

test("signing out ends all tabs of the browser", async () => {
  await signIn();
  const second = await context.newPage();
  await second.goto(`${system.url}/`);
  await second.locator("#connection[data-mood=live]").waitFor();
  await page.click("#sign-out");
  await Promise.all([page.waitForURL(/sign-in/), second.waitForURL(/sign-in/)]);
  assert.deepEqual(await context.cookies(), []);
});

// -- starting and watching -------------------------------------------------------------------------

test("a started task appears, runs and ends by itself", async () => {
  await signIn();
  await page.fill("#task", "demo.count");
  await page.fill("#arguments", '{"steps": 20, "seconds": 2}');
  await page.click("#task-form button");
  await shown("processing").waitFor();
  await page.locator(".peek [aria-valuenow]:not([aria-valuenow='0'])").waitFor();
  await shown("completed").waitFor();
  assert.equal(await page.locator(".peek .log li").count(), 20);
  assert.equal(await page.locator(".peek .meter-percent").innerText(), "100 %");
  assert.match(await page.locator(".peek .json:visible").innerText(), /"counted": 20/);
  await page.locator(".row[data-status=completed]").first().waitFor();
});

test("a job with parts shows them and their bars, and goes on after the last", async () => {
  await signIn();
  const wanted = { task: "demo.split", kwargs: { parts: 3, steps: 20, seconds: 8 } };
  const { job_id } = await system.call("POST", "/v1/jobs", wanted);
  await page.goto(`${system.url}/jobs/${job_id}`);
  const parts = page.locator(".details-main .rows .row");
  await parts.nth(2).waitFor();
  await page.locator(".rows [data-status=processing] [aria-valuenow]").first().waitFor();
  await shown("completed").waitFor();
  await page.locator(".rows .row[data-status=completed]").nth(2).waitFor();
  assert.equal(await parts.count(), 3);
  assert.equal(await page.locator(".details-main .part .hint:visible").first().innerText(), "3 of 3 are over");
  assert.match(await page.locator(".json:visible").innerText(), /"counted": 60/);
  await parts.first().locator("a").click();
  await page.getByText("The job that this is a part of").waitFor();
});

test("arguments that are no JSON are refused before anything is sent", async () => {
  await signIn();
  await page.fill("#task", "demo.count");
  await page.fill("#arguments", "steps=3");
  await page.click("#task-form button");
  assert.match(await page.locator("#start-problem").innerText(), /not JSON/);
  await page.fill("#task", "shop.unknown");
  await page.fill("#arguments", "");
  await page.click("#task-form button");
  await page.locator("#start-problem", { hasText: "does not start shop.unknown" }).waitFor();
});

test("a dropped file is ingested", async () => {
  await signIn();
  const dropped = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["A page about otters.\n".repeat(50)], "otters.txt"));
    return transfer;
  });
  await page.dispatchEvent("#drop", "dragover", { dataTransfer: dropped });
  assert.equal(await page.getAttribute("#drop", "data-over"), "true");
  await page.dispatchEvent("#drop", "drop", { dataTransfer: dropped });
  await shown("completed").waitFor();
  assert.equal(await page.locator(".peek .details-subject").innerText(), "otters.txt");
  assert.equal(await page.locator("#drop").getAttribute("data-over"), null);
});

test("a dropped PDF of 5 MB shows its progress several times a second, until 100 %", async () => {
  await signIn();
  const pdf = largePdf(5 * 1024 * 1024);
  await page.evaluate(() => {
    const told = /** @type {any} */ (window);
    told.seen = new Set();
    new MutationObserver(() => {
      const done = document.querySelector(".peek[hidden], .peek .facts dd")?.textContent;
      const doing = document.querySelector(".peek .meter-doing")?.textContent;
      told.seen.add(`${doing} ${done}`);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await page.setInputFiles("#files", { name: "large.pdf", mimeType: "application/pdf", buffer: pdf });
  await shown("completed").waitFor({ timeout: 2 * MINUTE });
  assert.equal(await page.locator(".peek .meter-percent").innerText(), "100 %");
  const jobId = await page.locator(".row").first().getAttribute("data-job");
  const job = await system.call("GET", `/v1/jobs/${jobId}`);
  const took = (Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000;
  const seen = await page.evaluate(() => /** @type {any} */ (window).seen.size);
  assert.ok(seen > 2 * took, `${seen} different pictures in ${took} s`);
});

/**
 * @param {number} bytes
 * @returns {Buffer} A PDF with a text of about that size.
 */
function largePdf(bytes) {
  const line = "(Otters sleep on their backs and hold hands, so that none of them drifts away.) Tj T*\n";
  const text = `BT /F1 8 Tf 10 TL 40 800 Td\n${line.repeat(70)}ET\n`;
  const pages = Math.ceil(bytes / text.length);
  const kids = Array.from({ length: pages }, (_, page) => `${4 + 2 * page} 0 R`).join(" ");
  const objects = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    `<< /Type /Pages /Count ${pages} /Kids [${kids}] >>`,
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
  ];
  for (let page = 0; page < pages; page += 1) {
    objects.push(
      "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] " +
        `/Resources << /Font << /F1 3 0 R >> >> /Contents ${5 + 2 * page} 0 R >>`,
      `<< /Length ${text.length} >>\nstream\n${text}endstream`,
    );
  }
  let file = "%PDF-1.4\n";
  const offsets = objects.map((object, index) => {
    const offset = file.length;
    file += `${index + 1} 0 obj\n${object}\nendobj\n`;
    return `${String(offset).padStart(10, "0")} 00000 n \n`;
  });
  const size = objects.length + 1;
  const table = `xref\n0 ${size}\n0000000000 65535 f \n${offsets.join("")}`;
  const end = `trailer\n<< /Size ${size} /Root 1 0 R >>\nstartxref\n${file.length}\n%%EOF\n`;
  return Buffer.from(file + table + end, "latin1");
}

test("a job is cancelled and run again, where that can be done", async () => {
  await signIn();
  const jobId = await start({ steps: 500, seconds: 100 });
  await page.goto(`${system.url}/jobs/${jobId}`);
  await shown("processing").waitFor();
  assert.equal(await page.getByRole("button", { name: "Run again" }).isVisible(), false);
  await page.getByRole("button", { name: "Cancel" }).click();
  await shown("cancelled").waitFor();
  assert.equal(await page.getByRole("button", { name: "Cancel" }).isVisible(), false);
  await page.locator(".timeline [data-kind=cancelled]").waitFor();
  await page.getByRole("button", { name: "Run again" }).click();
  await shown("processing").waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await shown("cancelled").waitFor();
});

test("the logs of earlier attempts are there to be opened", async () => {
  await signIn();
  const jobId = await start({ steps: 6, seconds: 0.3, fail_at: 4, retries: 1 });
  await page.goto(`${system.url}/jobs/${jobId}`);
  await shown("failed").waitFor();
  assert.match(await page.locator(".details-attempt").innerText(), /attempt 2/);
  assert.match(await page.locator(".failure").innerText(), /step 4 was asked to fail/);
  await page.getByText("Attempt 1 ended").click();
  await page.locator(".attempts .log li").nth(2).waitFor();
  // The traceback is for admins, and comes by REST.
  await page.getByText("Traceback", { exact: true }).click();
  assert.match(await page.locator(".failure pre").innerText(), /CountFailed/);
});

test("who is told of the end is shown with what they answered, and told again", async () => {
  /** @type {unknown[]} */
  const ids = [];
  const receiver = createServer((request, answer) => {
    ids.push(request.headers["webhook-id"]);
    answer.writeHead(ids.length === 1 ? 500 : 204).end();
  });
  await new Promise((resolve) => receiver.listen(0, "127.0.0.1", () => resolve(null)));
  try {
    const { port } = /** @type {import("node:net").AddressInfo} */ (receiver.address());
    const hook = `http://127.0.0.1:${port}/`;
    const jobId = await start({ steps: 1, seconds: 0 }, {}, hook);
    await signIn();
    await page.goto(`${system.url}/jobs/${jobId}`);
    await page.getByText("is told in").filter({ hasText: "answered 500" }).waitFor();
    await page.getByRole("button", { name: "Send now" }).click();
    await page.getByText("has it (204)").waitFor();
    await page.getByRole("button", { name: "Send again" }).click();
    await page.locator(".webhooks [data-status=completed] + [data-status=completed]").waitFor();
    assert.equal(ids.length, 3);
    assert.equal(new Set(ids).size, 1);
  } finally {
    receiver.close();
  }
});

test("a receiver that is gone is told again where somebody asks", async () => {
  let answered = 0;
  let release = () => {};
  const isAwaited = new Promise((resolve) => (release = () => resolve(null)));
  const receiver = createServer(async (_, answer) => {
    answered += 1;
    const status = answered === 1 ? 410 : 204;
    await isAwaited;
    answer.writeHead(status).end();
  });
  await new Promise((resolve) => receiver.listen(0, "127.0.0.1", () => resolve(null)));
  try {
    const { port } = /** @type {import("node:net").AddressInfo} */ (receiver.address());
    const jobId = await start({ steps: 1, seconds: 0 }, {}, `http://127.0.0.1:${port}/`);
    await signIn();
    await page.goto(`${system.url}/jobs/${jobId}`);
    // The page follows the sending before it fails.
    await page.getByText(/is (being )?told/).waitFor();
    release();
    await page.getByText("was not told").waitFor();
    // The same sending is run again, and its page must not be left with what it saw first.
    await page.getByRole("button", { name: "Send again" }).click();
    await page.getByText("has it (204)").waitFor();
    assert.equal(answered, 2);
    assert.equal(await page.locator(".webhooks li").count(), 1);
  } finally {
    receiver.close();
  }
});

test("of a long log the end is shown, and more of it where somebody asks", async () => {
  await signIn();
  const jobId = await start({ steps: 450, seconds: 0.5 });
  await page.goto(`${system.url}/jobs/${jobId}`);
  await shown("completed").waitFor();
  const lines = page.locator(".details-main .log li");
  await page.getByText("step 450 of 450").waitFor();
  assert.equal(await lines.count(), 200);
  await page.getByText("Show earlier lines (250)").click();
  await page.getByText("Show earlier lines (50)").click();
  await page.getByText("step 1 of 450").waitFor();
  assert.equal(await lines.count(), 450);
});

test("a job that is not there is said to be so", async () => {
  await signIn();
  await page.goto(`${system.url}/jobs/no-such-job`);
  await page.getByText("There is no such job, or it is not yours.").waitFor();
});

// -- the list --------------------------------------------------------------------------------------

test("the list is filtered, also for what comes later, and keeps that in its address", async () => {
  const [apple] = [await start({ steps: 1, seconds: 0 }, { fruit: "apple" })];
  const pear = await start({ steps: 1, seconds: 0 }, { fruit: "pear" });
  await signIn();
  await row(apple).waitFor();
  await page.fill("[name=tag]", "fruit=pear");
  await row(apple).waitFor({ state: "detached" });
  await row(pear).waitFor();
  const [another, fitting] = [
    await start({ steps: 1, seconds: 0 }, { fruit: "plum" }),
    await start({ steps: 1, seconds: 0 }, { fruit: "pear" }),
  ];
  await row(fitting).waitFor();
  assert.equal(await row(another).count(), 0);
  await page.reload();
  await row(pear).waitFor();
  assert.equal(await page.inputValue("[name=tag]"), "fruit=pear");
  assert.equal(await row(apple).count(), 0);
  await page.click("#clear");
  await row(apple).waitFor();
});

test("admins switch to everybody's jobs", async () => {
  const said = await system.run("keys", "create", "--owner", "carol");
  const key = String(/lj_\w{12}_[\w-]{43}/.exec(said)?.[0]);
  const body = { task: "demo.count", kwargs: { steps: 1, seconds: 0 } };
  const hers = (await system.call("POST", "/v1/jobs", body, key)).job_id;
  const mine = await start({ steps: 1, seconds: 0 });
  await signIn();
  await row(mine).waitFor();
  assert.equal(await row(hers).count(), 0);
  await page.getByLabel("Everybody’s").check();
  await row(hers).waitFor();
  await page.getByLabel("Mine").check();
  await row(hers).waitFor({ state: "detached" });
});

test("arrow keys go from job to job, and Enter opens one", async () => {
  const ids = [await start({ steps: 1, seconds: 0 }), await start({ steps: 1, seconds: 0 })];
  await signIn();
  await row(String(ids[0])).waitFor();
  assert.equal(await page.locator(".row-link[tabindex='0']").count(), 1);
  await page.locator(".row-link[tabindex='0']").focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  const focused = await page.evaluate(() =>
    document.activeElement?.closest("[data-job]")?.getAttribute("data-job"),
  );
  assert.equal(focused, ids[0]);
  await page.keyboard.press("Enter");
  await page.locator(".peek:not([hidden])").waitFor();
  assert.equal(await row(String(ids[0])).locator("[aria-current=true]").count(), 1);
});

test("a hidden page draws nothing, and shows the truth at once when it is seen", async () => {
  await signIn();
  const jobId = await start({ steps: 10, seconds: 1 });
  await row(jobId).waitFor();
  await hide(true);
  const frozen = await row(jobId).innerHTML();
  await untilOver(jobId);
  // A frame later it would have been drawn.
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
  assert.equal(await row(jobId).innerHTML(), frozen);
  await hide(false);
  await page.locator(`[data-job="${jobId}"][data-status=completed]`).waitFor();
});

/** @param {boolean} isHidden The page is told so; a headless browser hides none. */
async function hide(isHidden) {
  await page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
}

/** @param {string} jobId */
async function untilOver(jobId) {
  let status = "";
  while (status !== "completed") {
    const job = await system.call("GET", `/v1/jobs/${jobId}`);
    status = job.status;
  }
}

// -- for everybody ---------------------------------------------------------------------------------

/**
 * Every page, in the state in which it shows most.
 *
 * @param {(what: string) => Promise<void>} look
 */
async function eachPage(look) {
  await page.goto(`${system.url}/sign-in`);
  await look("sign-in");
  await signIn();
  const nobody = "http://127.0.0.1:1024/";
  const fails = { steps: 6, seconds: 0.3, fail_at: 4, retries: 1 };
  const failed = await start(fails, { a: "b" }, nobody);
  const running = await start({ steps: 300, seconds: 30 });
  await page.goto(`${system.url}/jobs/${failed}`);
  await shown("failed").waitFor();
  await page.locator(".timeline [data-kind=failed]").waitFor();
  await page.getByText("is told in").waitFor();
  await look("a job that failed");
  await page.goto(`${system.url}/`);
  await row(running).locator(".row-percent:not(:empty)").waitFor();
  if ((page.viewportSize()?.width ?? 0) > 1000) {
    await row(running).click();
    await page.locator(".peek .log li").first().waitFor();
  }
  await look("the list");
  await page.fill("[name=q]", "nothing is called so");
  await page.getByText("No job fits").waitFor();
  await look("an empty list");
  await system.call("POST", `/v1/jobs/${running}/cancel`);
}

for (const theme of /** @type {const} */ (["light", "dark"])) {
  test(`axe finds nothing on any page, ${theme}`, async () => {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
    await eachPage(async (what) => {
      await page.evaluate(AXE);
      const found = await page.evaluate("axe.run()");
      const told = found.violations.map(
        (/** @type {any} */ each) => `${each.id}: ${each.nodes[0].html} ${each.nodes[0].failureSummary}`,
      );
      assert.deepEqual(told, [], what);
    });
  });
}

test("no page is wider than a narrow screen", async () => {
  await page.setViewportSize({ width: 320, height: 640 });
  await eachPage(async (what) => {
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.equal(width, 320, what);
  });
});

test("the theme is that of the system until somebody chooses, and then stays", async () => {
  await page.emulateMedia({ colorScheme: "light" });
  await signIn();
  const paper = () => page.evaluate(() => getComputedStyle(document.body).color);
  const light = await paper();
  await page.click("#theme");
  assert.notEqual(await paper(), light);
  const dark = await paper();
  await page.reload();
  assert.equal(await paper(), dark);
  await page.click("#theme");
  assert.equal(await paper(), light);
});
