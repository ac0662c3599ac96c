// @ts-check
/** livejobs for React 18 and newer: a job, and a list of jobs, as hooks. */

import { createContext, useCallback, useContext, useSyncExternalStore } from "react";

import { defaultClient } from "./default.js";

/** @typedef {import("./client.js").JobClient} JobClient */
/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./watch.js").Snapshot} Snapshot */
/** @typedef {import("./watch.js").Watch} Watch */

/** @type {Snapshot} */
const NOTHING = { view: null, entries: [], recovered: true, ended: false, error: null };
/** @type {readonly JobView[]} */
const NO_JOBS = [];

/**
 * The client for everything below its provider; without one, that of the page.
 *
 * @type {import("react").Context<JobClient | null>}
 */
export const JobClientContext = createContext(/** @type {JobClient | null} */ (null));

/** @returns {JobClient} The client that the hooks of this component use. */
export function useJobClient() {
  return useContext(JobClientContext) ?? defaultClient();
}

/**
 * A job as it is now; the component is drawn again at each change.
 *
 * @param {string | null | undefined} id Without one, nothing is watched.
 * @param {{entries?: boolean}} [options] true: with its log and output.
 * @returns {Snapshot}
 */
export function useJob(id, { entries = false } = {}) {
  const client = useJobClient();
  return useHeld(
    (client) => (id ? client.watch(id, { entries }) : null),
    () => /** @type {Watch | undefined} */ (client.peek(`job ${id}`))?.snapshot ?? NOTHING,
    NOTHING,
    [client, id, entries],
  );
}

/**
 * The jobs of a feed as they are now, the newest first.
 *
 * @param {string | null | undefined} feed Such as "mine"; without one, nothing is watched.
 * @returns {readonly JobView[]}
 */
export function useJobs(feed) {
  const client = useJobClient();
  return useHeld(
    (client) => (feed ? client.feed(feed) : null),
    () => /** @type {Feed | undefined} */ (client.peek(`feed ${feed}`))?.jobs ?? NO_JOBS,
    NO_JOBS,
    [client, feed],
  );
}

/**
 * Hold a subscription for as long as the component is there.
 *
 * @template T
 * @param {(client: JobClient) => Watch | Feed | null} hold
 * @param {() => T} snapshot
 * @param {T} nothing What a server draws.
 * @param {[JobClient, ...unknown[]]} what What makes it another subscription.
 * @returns {T}
 */
function useHeld(hold, snapshot, nothing, what) {
  const subscribe = useCallback((/** @type {() => void} */ changed) => {
    const held = hold(what[0]);
    const undo = held?.subscribe(changed);
    return () => {
      undo?.();
      held?.close();
    };
  }, what);
  return useSyncExternalStore(subscribe, snapshot, () => nothing);
}
