// @ts-check
/** What the server tells the page about who looks at it. */

/**
 * @typedef {object} Context
 * @property {string} base Path under which the server's endpoints lie, without a slash at its end.
 * @property {string} owner Who is signed in.
 * @property {boolean} isAdmin Everybody's jobs are theirs to see.
 * @property {boolean} mayChange They may start, cancel and repeat jobs.
 * @property {boolean} canSignOut They signed in here, and not in an app around.
 * @property {string[]} tasks Names and patterns of the tasks that the server starts.
 * @property {boolean} takesFiles It ingests documents.
 * @property {number} maxFileBytes
 * @property {number} maxFiles In one upload.
 * @property {string} [job] Of a job's page: its id.
 */

/** @type {Context} */
export const context = JSON.parse(document.getElementById("context")?.textContent ?? "{}");

/**
 * The page of a job.
 *
 * @param {string} jobId
 * @returns {string} Its path.
 */
export function jobPath(jobId) {
  return `${context.base}/jobs/${encodeURIComponent(jobId)}`;
}

/** Go to the sign-in, which leads back to this page. */
export function askToSignIn() {
  const path = location.pathname.slice(context.base.length) || "/";
  location.assign(`${context.base}/sign-in?${new URLSearchParams({ next: path })}`);
}
