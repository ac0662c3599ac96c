// @ts-check
/** What the server sends, version 1 of the wire: a type for every message. */

/** @typedef {"pending" | "processing" | "completed" | "failed" | "cancelled"} Status */

/**
 * How far a job is.
 *
 * @typedef {object} Progress
 * @property {number} current Items done.
 * @property {number | null} total Items in all; null while unknown.
 * @property {number | null} fraction current / total, from 0 to 1; null while unknown.
 * @property {string | null} stage What the job is doing, one word.
 * @property {string | null} message The same for people, one line.
 * @property {number | null} rate Items per second.
 * @property {number | null} eta_seconds Expected time left, in seconds.
 * @property {Record<string, unknown>} data Whatever else the job tells.
 */

/**
 * Why a job failed, in words for people.
 *
 * @typedef {object} Failure
 * @property {string} type Name of the exception's class.
 * @property {string} message Its message.
 * @property {string} [code] A stable word for programs, where there is one.
 */

/**
 * How the children of a job that fans out are doing.
 *
 * @typedef {object} Children
 * @property {number} total
 * @property {number} completed
 * @property {number} failed
 * @property {number} cancelled
 */

/**
 * A job as a viewer sees it. Times are UTC, ISO 8601.
 *
 * @typedef {object} JobView
 * @property {string} job_id
 * @property {string} task The Celery task's name.
 * @property {string} queue
 * @property {Status} status
 * @property {number} version Grows with every change: of two views, keep the larger.
 * @property {Progress | null} progress Null before the first report.
 * @property {any} result What the task returned; null before it completed.
 * @property {Failure | null} error
 * @property {number} attempt Executions begun so far.
 * @property {number | null} max_attempts Null: no limit.
 * @property {string | null} run_at When a waiting job is due, if that is later.
 * @property {boolean} cancel_requested
 * @property {boolean} stalled Running, but silent for a long time.
 * @property {string} owner Empty: nobody's.
 * @property {Record<string, string>} tags
 * @property {string | null} parent_id
 * @property {Children | null} children
 * @property {string} created_at
 * @property {string | null} started_at
 * @property {string} updated_at
 * @property {string | null} completed_at
 */

/**
 * @typedef {object} LogLine
 * @property {string} at When it was written, UTC, ISO 8601.
 * @property {string} level debug, info, warning, error or critical.
 * @property {string} text
 */

/**
 * The answer to a subscription to a job; `recovered` is false where entries are gone for good.
 *
 * @typedef {object} SubscribedMessage
 * @property {"subscribed"} type
 * @property {string} job_id
 * @property {boolean} recovered
 */

/**
 * The answer to a subscription to a feed, and to every reading anew; `since` is handed back.
 *
 * @typedef {object} FeedSubscribedMessage
 * @property {"subscribed"} type
 * @property {string} feed
 * @property {boolean} [recovered] False: what changed after the `since` that was handed in is not
 *   all told.
 * @property {string} since
 */

/**
 * The view: at every subscription, then at every change of status.
 *
 * @typedef {{type: "job", id: string, job: JobView}} JobMessage
 */

/**
 * Progress between changes of status; within an attempt the larger `seq` wins.
 *
 * @typedef {object} ProgressMessage
 * @property {"progress"} type
 * @property {string} id
 * @property {string} job_id
 * @property {number} attempt
 * @property {number} seq
 * @property {Progress} progress
 */

/**
 * An entry of log lines.
 *
 * @typedef {{type: "log", id: string, job_id: string, lines: LogLine[]}} LogMessage
 */

/**
 * An entry of partial result; `stream` only where a job has several.
 *
 * @typedef {object} OutputMessage
 * @property {"output"} type
 * @property {string} id
 * @property {string} job_id
 * @property {string} [stream]
 * @property {string} text
 */

/** @typedef {LogMessage | OutputMessage} EntryMessage One entry; each counts. */

/**
 * The job is over and everything about it has been sent.
 *
 * @typedef {{type: "end", id: string, job_id: string}} EndMessage
 */

/**
 * True: live updates come from the database for now, about one a second.
 *
 * @typedef {{type: "degraded", degraded: boolean}} DegradedMessage
 */

/**
 * This server is going away; the delay is spread over the viewers.
 *
 * @typedef {{type: "drain", reconnect_after_ms: number}} DrainMessage
 */

/**
 * A request could not be served; the connection stays.
 *
 * @typedef {object} ProblemMessage
 * @property {"problem"} type
 * @property {string} code A stable word for programs.
 * @property {string} message The same for people.
 * @property {string} [job_id]
 * @property {string} [feed]
 */

/** @typedef {{type: "ping" | "pong" | "authenticated" | "unsubscribed"}} NoteMessage */

/** @typedef {JobMessage | ProgressMessage | EntryMessage | EndMessage} OneJobMessage */

/**
 * Any message; `type` tells which.
 *
 * @typedef {SubscribedMessage | FeedSubscribedMessage | OneJobMessage | DegradedMessage
 *   | DrainMessage | ProblemMessage | NoteMessage} ServerMessage
 */

/**
 * @param {JobView | null} view
 * @returns {boolean} Whether the job is over: completed, cancelled or failed; false where nothing
 *   is known of it.
 */
export const isFinal = (view) => /^[cf]/.test(/** @type {any} */ (view?.status));

/**
 * @param {JobView} job
 * @returns {JobMessage} What a server says of such a job.
 */
export const jobMessage = (job) => ({ type: "job", id: `${job.attempt}-0`, job });
