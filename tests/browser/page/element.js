// @ts-check
/**
 * The page of the tests of `<job-progress>`: it puts one in, and keeps account of what it told the page
 * in `heard`.
 */

import { JobClient } from "/client.js";
import { JobProgress } from "/client/element.js";

const client = new JobClient({ token: async () => (await fetch("/page/token")).text() });
const bar = new JobProgress();
bar.client = client;

/** Its events, as they came: the name, and the job's status or what is wrong. @type {string[][]} */
const heard = [];
for (const name of ["job-change", "job-end", "job-problem"])
  document.addEventListener(name, (event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    heard.push([name, detail.status ?? detail.code]);
  });

/** @param {Record<string, string>} attributes */
function show(attributes) {
  for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, value);
  document.querySelector("main")?.append(bar);
}

/** @param {string} selector */
const find = (selector) => /** @type {HTMLElement} */ (bar.shadowRoot?.querySelector(selector));

/** What people see of it, and what screen readers are told. */
function shown() {
  const progressbar = find("[role=progressbar][part=bar]");
  return {
    status: bar.getAttribute("status"),
    indeterminate: bar.hasAttribute("indeterminate"),
    fill: find("[part=fill]").style.width,
    text: find("[part=text]").textContent,
    percent: find("[part=percent]").textContent,
    label: progressbar.getAttribute("aria-label"),
    now: progressbar.getAttribute("aria-valuenow"),
    said: progressbar.getAttribute("aria-valuetext"),
    announced: find("[role=status]").textContent,
  };
}

Object.assign(globalThis, { heard, show, shown, view: () => bar.view });
