// @ts-check
/** The page of the tests of React's hooks, as an app would use them; esbuild bundles it. */

import { JobClient, JobError } from "livejobs";
import { JobClientContext, useJob, useJobs } from "livejobs/react";
import { StrictMode, createElement } from "react";
import { createRoot } from "react-dom/client";

const client = new JobClient({ token: async () => (await fetch("/page/token")).text() });

/** @param {{id: string | null, entries: boolean}} props */
function Job({ id, entries: withEntries }) {
  const { view, entries, ended, error } = useJob(id, { entries: withEntries });
  const shown = {
    id: view?.job_id ?? null,
    status: view?.status ?? null,
    current: view?.progress?.current ?? null,
    entries: entries.length,
    ended,
    error: error instanceof JobError ? error.code : null,
  };
  return createElement("output", null, JSON.stringify(shown));
}

function Jobs() {
  const jobs = useJobs("mine").map(({ job_id, status }) => [job_id, status]);
  return createElement("pre", null, JSON.stringify(jobs));
}

const root = createRoot(/** @type {HTMLElement} */ (document.querySelector("main")));

/** @param {string | null} id @param {{entries?: boolean, jobs?: boolean}} [options] */
function draw(id, { entries = false, jobs = false } = {}) {
  const provider = createElement(
    JobClientContext.Provider,
    { value: client },
    createElement(Job, { id, entries }),
    jobs ? createElement(Jobs) : null,
  );
  root.render(createElement(StrictMode, null, provider));
}

/** @param {string} selector What is drawn there. */
const drawn = (selector) => JSON.parse(document.querySelector(selector)?.textContent || "null");

Object.assign(globalThis, {
  draw,
  drawn,
  unmount: () => root.unmount(),
  state: () => client.state,
});
