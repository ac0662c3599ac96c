// @ts-check
/** A job's own page: all there is to know about it, live. */

import { JobClient } from "livejobs";

import { About } from "./about.js";
import { context } from "./context.js";
import { Details } from "./details.js";
import { byId } from "./dom.js";
import { isOver, percent, fractionOf, statusWords } from "./format.js";
import { History } from "./history.js";
import { Parts } from "./parts.js";
import { showTop } from "./top.js";
import { Webhooks } from "./webhooks.js";

/** @typedef {import("livejobs").JobView} JobView */

const jobId = String(context.job);
const client = new JobClient({ url: context.base });
const history = new History(client, jobId);
const about = new About();
const parts = new Parts(client, jobId);
const webhooks = new Webhooks(client, jobId);
const details = new Details(client, jobId, { isPage: true, lines: 200, changed });
/** The version of which the traceback has been asked for. */
let asked = 0;

/** @param {JobView} job */
function changed(job) {
  about.draw(job);
  history.draw(job);
  parts.draw(job);
  webhooks.draw(job);
  const done = isOver(job) ? statusWords(job, Date.now()) : percent(fractionOf(job));
  document.title = `${done ? `${done} · ` : ""}${job.task} – livejobs`;
  if (context.isAdmin && job.error && job.version !== asked) void showTraceback(job);
}

/** @param {JobView} job */
async function showTraceback(job) {
  asked = job.version;
  try {
    const shown = await client.request("GET", `/v1/jobs/${encodeURIComponent(jobId)}`);
    details.showTraceback(shown.error?.traceback);
  } catch {
    asked = 0; // It is asked for again when the job is drawn next, within a second.
  }
}

showTop(client);
details.main.append(parts.node, history.attempts);
details.side.append(history.timeline, webhooks.node, about.node);
byId("job", HTMLElement).append(details.node);
