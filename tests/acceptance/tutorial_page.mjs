// @ts-check
/**
 * Uses the tutorial's page as its reader does: press, watch the retry, reload, see the end.
 * Prints what was seen as JSON.
 *
 * node tutorial_page.mjs URL
 */

import { launch } from "../browser/browser.mjs";

const [, , url = ""] = process.argv;
const browser = await launch();
try {
  const page = await browser.newPage();
  /** @type {string[]} */
  const mistakes = [];
  page.on("pageerror", (error) => mistakes.push(String(error)));
  page.on("console", (message) => {
    // The browser asks for an icon by itself, and the tutorial has none.
    if (message.type() == "error" && !message.location().url.endsWith("/favicon.ico"))
      mistakes.push(message.text());
  });
  page.setDefaultTimeout(40_000);
  await page.goto(url);
  // What the bar shows for a moment only is noted down by the page itself.
  await page.evaluate(() => {
    const seen = Object.assign(window, { seen: /** @type {unknown[][]} */ ([]) }).seen;
    addEventListener("job-change", (event) => {
      const { status, attempt, progress } = /** @type {CustomEvent} */ (event).detail;
      seen.push([attempt, status, progress?.current ?? null]);
    });
  });
  const bar = page.locator("job-progress");
  await page.waitForFunction(() => customElements.get("job-progress"));
  const idle = {
    text: (await bar.innerText()).trim(),
    isMoving: (await bar.getAttribute("indeterminate")) !== null,
    status: await bar.getAttribute("status"),
  };
  await page.getByRole("button").click();
  await page.waitForFunction(() =>
    /** @type {any} */ (window).seen.some((/** @type {number[]} */ [attempt]) => attempt == 2),
  );
  await page.locator("pre", { hasText: "loaf 2 is out" }).waitFor();
  const seen = await page.evaluate(() => /** @type {any} */ (window).seen);
  await page.reload();
  await page.locator('job-progress[status="completed"]').waitFor();
  await page.locator("pre", { hasText: "loaf 6 is out" }).waitFor();
  const log = await page.locator("pre").innerText();
  const shown = {
    idle,
    seen,
    percent: await bar.locator("[part=percent]").innerText(),
    label: await page.getByRole("progressbar").getAttribute("aria-label"),
    log: log.trim().split("\n"),
    mistakes,
  };
  process.stdout.write(JSON.stringify(shown));
} finally {
  await browser.close();
}
