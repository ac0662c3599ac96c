// @ts-check
/** Numbers, times and states of jobs in words; pure. */

/** @typedef {import("livejobs").JobView} JobView */
/** @typedef {import("livejobs").Progress} Progress */

const LOCALE = "en";
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat(LOCALE, {
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});
const clock = new Intl.DateTimeFormat(LOCALE, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const day = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: "long", timeStyle: "medium" });

/** @type {Record<JobView["status"], string>} */
export const STATUS_WORDS = {
  pending: "Waiting",
  processing: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/**
 * What a job is doing, in a word or two.
 *
 * @param {JobView} job
 * @param {number} now Milliseconds since the epoch.
 * @returns {string}
 */
export function statusWords(job, now) {
  if (job.cancel_requested && !isOver(job)) return "Stopping";
  if (job.status === "processing" && job.stalled) return "Silent";
  if (job.status === "processing" && job.children && partsOver(job.children) < job.children.total)
    return "Waiting for its parts";
  if (job.status === "pending" && job.attempt > 0) return "Trying again";
  if (job.status === "pending" && job.run_at !== null && Date.parse(job.run_at) > now)
    return "Scheduled";
  return STATUS_WORDS[job.status];
}

/**
 * Whether nothing more happens to a job by itself.
 *
 * @param {Pick<JobView, "status">} job
 * @returns {boolean}
 */
export function isOver(job) {
  return job.status !== "pending" && job.status !== "processing";
}

/**
 * How much of a job is done, from 0 to 1; null: nobody knows.
 *
 * @param {JobView} job
 * @returns {number | null}
 */
export function fractionOf(job) {
  if (job.status === "completed") return 1;
  const { children, progress } = job;
  const ofParts = children?.total ? partsOver(children) / children.total : null;
  const fraction = progress?.fraction ?? (progress ? null : ofParts);
  return fraction === null ? null : Math.min(1, Math.max(0, fraction));
}

/**
 * How many of a job's parts are over, however they ended.
 *
 * @param {NonNullable<JobView["children"]>} children
 * @returns {number}
 */
export function partsOver({ completed, failed, cancelled }) {
  return completed + failed + cancelled;
}

/**
 * `42 %`; rounded down, so that 100 % means that it is done.
 *
 * @param {number | null} fraction
 * @returns {string} Empty where nobody knows.
 */
export function percent(fraction) {
  return fraction === null ? "" : `${Math.floor(fraction * 100 + 1e-9)} %`;
}

/**
 * A count: `1,234`, and no more digits behind the point than tell something.
 *
 * @param {number} value
 * @returns {string}
 */
export function count(value) {
  return Number.isInteger(value) ? whole.format(value) : oneDigit.format(value);
}

/**
 * `45 of 142`, or `45` while the total is unknown.
 *
 * @param {Progress} progress
 * @returns {string}
 */
export function amount(progress) {
  const done = count(progress.current);
  return progress.total === null ? done : `${done} of ${count(progress.total)}`;
}

/**
 * `12.3/s`, or `4.0/min` where that would be less than one in two seconds.
 *
 * @param {number | null} perSecond
 * @returns {string} Empty where nobody knows.
 */
export function rate(perSecond) {
  if (perSecond === null || !(perSecond > 0)) return "";
  if (perSecond >= 100) return `${whole.format(perSecond)}/s`;
  if (perSecond >= 0.5) return `${oneDigit.format(perSecond)}/s`;
  return `${oneDigit.format(perSecond * 60)}/min`;
}

/**
 * A time span in its two largest units: `0.4 s`, `8 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`.
 *
 * @param {number} seconds
 * @param {boolean} [isExact] Tenths of a second below ten.
 * @returns {string}
 */
export function duration(seconds, isExact = false) {
  const left = Math.max(0, seconds);
  if (isExact && left < 0.05) return "< 0.1 s";
  if (isExact && left < 9.95) return `${oneDigit.format(left)} s`;
  const rounded = Math.round(left);
  if (rounded < 60) return `${rounded} s`;
  const minutes = Math.floor(rounded / 60);
  if (minutes < 60) return `${minutes} min ${twoDigits(rounded % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${twoDigits(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** @param {number} value */
const twoDigits = (value) => String(value).padStart(2, "0");

/**
 * How long ago, in one unit: `now`, `40 s ago`, `5 min ago`, `3 h ago`, or the day.
 *
 * @param {string} time ISO 8601.
 * @param {number} now Milliseconds since the epoch.
 * @returns {string}
 */
export function ago(time, now) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return day.format(new Date(time));
}

/**
 * The time of day, of the reader's own clock: `14:03:27`.
 *
 * @param {string} time ISO 8601.
 * @returns {string}
 */
export function timeOfDay(time) {
  return clock.format(new Date(time));
}

/**
 * Day and time in full.
 *
 * @param {string} time ISO 8601.
 * @returns {string}
 */
export function fullTime(time) {
  return full.format(new Date(time));
}

/**
 * How long a job has run, or ran, in seconds; null: it has not begun.
 *
 * @param {JobView} job
 * @param {number} now Milliseconds since the epoch.
 * @returns {number | null}
 */
export function secondsRun(job, now) {
  if (job.started_at === null) return null;
  const end = job.completed_at === null ? now : Date.parse(job.completed_at);
  return Math.max(0, (end - Date.parse(job.started_at)) / 1000);
}

/**
 * A size in bytes for people: `50 MB`.
 *
 * @param {number} bytes
 * @returns {string}
 */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 ** 2) return `${whole.format(bytes / 1024)} kB`;
  const mega = bytes / 1024 ** 2;
  return `${mega < 10 ? oneDigit.format(mega) : whole.format(mega)} MB`;
}

/**
 * What tells this job from others of its task: its document, or all of its tags.
 *
 * @param {JobView} job
 * @returns {string} Empty where nothing does.
 */
export function subject(job) {
  const { document: name, ...others } = job.tags;
  const rest = Object.entries(others).map(([key, value]) => `${key}=${value}`);
  return [...(name === undefined ? [] : [name]), ...rest].join("  ");
}

/**
 * What a running job is at: its stage and its message.
 *
 * @param {Progress | null} progress
 * @returns {string} Empty where it does not say.
 */
export function doing(progress) {
  if (progress === null) return "";
  return [progress.stage, progress.message].filter((part) => part).join(" · ");
}
