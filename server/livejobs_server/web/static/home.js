// @ts-check
/** The first page: jobs are started, and all of one's jobs are listed, live. */

import { JobClient } from "livejobs";

import { announce } from "./announce.js";
import { context } from "./context.js";
import { Details } from "./details.js";
import { byId, setShown, setText } from "./dom.js";
import { filtersOf, showFilters } from "./filters.js";
import { isOver, statusWords } from "./format.js";
import { drawEachSecond, drawSoon } from "./frames.js";
import { counted, Listing } from "./listing.js";
import { Rows } from "./rows.js";
import { showStart, suggest } from "./start.js";
import { leaveWhereRefused, showTop } from "./top.js";

/** @typedef {import("livejobs").JobView} JobView */

/** From this width on there is room for a job's details beside the list. */
const hasRoom = matchMedia("(min-width: 60rem)");

const client = new JobClient({ url: context.base });
const listing = new Listing(client, () => drawSoon(draw));
const rows = new Rows(byId("rows", HTMLElement), () => drawSoon(drawRows), select);
const peek = byId("peek", HTMLElement);
/** @type {Details | null} */
let details = null;

function draw() {
  const jobs = listing.jobs();
  rows.show(jobs);
  setText(byId("counts", HTMLElement), counted(jobs));
  drawNothing(jobs.length === 0);
  setShown(byId("older", HTMLElement), listing.hasOlder);
  drawProblem();
  const known = [...new Set(jobs.map((job) => job.task))];
  suggest(byId("tasks", HTMLElement), known);
  tell(jobs);
}

function drawRows() {
  rows.draw();
}

/** @param {boolean} isEmpty */
function drawNothing(isEmpty) {
  const node = byId("nothing", HTMLElement);
  setShown(node, isEmpty && !listing.isLoading && !listing.error);
  setText(
    node,
    listing.isFiltered
      ? "No job fits what you look for."
      : "No jobs yet. Start one above, or from your own code: it appears here by itself.",
  );
}

function drawProblem() {
  const node = byId("list-problem", HTMLElement);
  const error = listing.error ?? listing.feedError;
  setShown(node, error !== null);
  leaveWhereRefused(error);
  if (error) setText(node, `The list could not be loaded: ${error.message}`);
}

// -- what has ended, for those who have it read aloud ----------------------------------------------

/** Jobs that were seen running, by their ids. @type {Set<string>} */
const open = new Set();

/** @param {JobView[]} jobs */
function tell(jobs) {
  for (const job of jobs) {
    if (!isOver(job)) open.add(job.job_id);
    // The details tell of their own job by themselves.
    else if (open.delete(job.job_id) && details?.jobId !== job.job_id)
      announce(`${job.task}: ${statusWords(job, Date.now())}.`);
  }
}

// -- the details beside the list -------------------------------------------------------------------

/**
 * @param {string} jobId
 * @returns {boolean} False: there is no room here, its own page is the place.
 */
function select(jobId) {
  if (!hasRoom.matches) return false;
  show(jobId);
  return true;
}

/** @param {string} jobId "" shows none. */
function show(jobId) {
  if (details?.jobId === jobId) return;
  details?.close();
  const closed = () => show("");
  details = jobId ? new Details(client, jobId, { isPage: false, lines: 100, closed }) : null;
  peek.replaceChildren(...(details ? [details.node] : []));
  setShown(peek, details !== null);
  rows.select(jobId);
  history.replaceState(null, "", jobId ? `#${jobId}` : location.pathname + location.search);
}

// -- beginning -------------------------------------------------------------------------------------

showTop(client);
showStart(client, show);
showFilters(listing);
byId("older", HTMLElement).addEventListener("click", () => void listing.loadOlder());
drawEachSecond(drawRows);
listing.setFilters(filtersOf(new URLSearchParams(location.search)));
if (location.hash.length > 1 && hasRoom.matches) show(decodeURIComponent(location.hash.slice(1)));
