// @ts-check
/**
 * Opens a page, presses its button and waits until its bar is at the end.
 * Prints what the bar says, and what the browser complained about, as JSON.
 *
 * node press_and_wait.mjs URL
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
    // The browser asks for an icon by itself, and the page has none.
    if (message.type() == "error" && !message.location().url.endsWith("/favicon.ico"))
      mistakes.push(message.text());
  });
  const sockets = [];
  page.on("websocket", (socket) => sockets.push(socket.url()));
  await page.goto(url);
  await page.getByRole("button").click();
  await page.locator('job-progress[status="completed"]').waitFor({ timeout: 40_000 });
  const percent = await page.locator("job-progress [part=percent]").innerText();
  process.stdout.write(JSON.stringify({ percent, sockets: sockets.length, mistakes }));
} finally {
  await browser.close();
}
