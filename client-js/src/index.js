// @ts-check
/**
 * livejobs for JavaScript: watches background jobs live, starts them, and asks for them to be
 * cancelled or run again.
 *
 * Plain ES modules without dependencies; they run in browsers and in Node 20 or newer.
 */

export { JobClient } from "./client.js";
export { JobError, RequestError } from "./errors.js";
export { isFinal } from "./messages.js";

/**
 * @typedef {import("./client.js").ClientOptions} ClientOptions
 * @typedef {import("./client.js").JobOptions} JobOptions
 * @typedef {import("./clock.js").Clock} Clock
 * @typedef {import("./connection.js").ConnectionState} ConnectionState
 * @typedef {import("./feed.js").Feed} Feed
 * @typedef {import("./messages.js").Children} Children
 * @typedef {import("./messages.js").EntryMessage} EntryMessage
 * @typedef {import("./messages.js").Failure} Failure
 * @typedef {import("./messages.js").JobView} JobView
 * @typedef {import("./messages.js").LogLine} LogLine
 * @typedef {import("./messages.js").LogMessage} LogMessage
 * @typedef {import("./messages.js").OutputMessage} OutputMessage
 * @typedef {import("./messages.js").ProblemMessage} ProblemMessage
 * @typedef {import("./messages.js").Progress} Progress
 * @typedef {import("./messages.js").ServerMessage} ServerMessage
 * @typedef {import("./messages.js").Status} Status
 * @typedef {import("./watch.js").Snapshot} Snapshot
 * @typedef {import("./watch.js").Watch} Watch
 */
