// @ts-check
/** What a job is: its id, whose it is, and when what happened. */

import { jobPath } from "./context.js";
import { element, setShown, setText } from "./dom.js";
import { fullTime } from "./format.js";

/** @typedef {import("livejobs").JobView} JobView */

/** @type {Record<string, (job: JobView) => string>} */
const FACTS = {
  Id: (job) => job.job_id,
  Queue: (job) => job.queue,
  Owner: (job) => job.owner || "nobody",
  Tags: (job) => pairs(job.tags),
  Parts: (job) => parts(job),
  "Also reports": (job) => pairs(job.progress?.data ?? {}),
  Created: (job) => fullTime(job.created_at),
  Due: (job) => (job.run_at === null ? "" : fullTime(job.run_at)),
  Began: (job) => (job.started_at === null ? "" : fullTime(job.started_at)),
  Ended: (job) => (job.completed_at === null ? "" : fullTime(job.completed_at)),
};

export class About {
  #rows = new Map(
    Object.keys(FACTS).map((name) => {
      const value = element("dd");
      return [name, { value, row: element("div", {}, element("dt", {}, name), value) }];
    }),
  );
  #parent = element("a", {}, "The job that this is a part of");
  node;

  constructor() {
    const rows = [...this.#rows.values()].map(({ row }) => row);
    this.node = element(
      "section",
      { class: "part" },
      element("h2", {}, "About"),
      element("dl", { class: "about" }, ...rows),
      this.#parent,
    );
  }

  /** @param {JobView} job */
  draw(job) {
    for (const [name, { value, row }] of this.#rows) {
      const text = FACTS[name]?.(job) ?? "";
      setText(value, text);
      setShown(row, text !== "");
    }
    setShown(this.#parent, job.parent_id !== null);
    if (job.parent_id !== null) this.#parent.href = jobPath(job.parent_id);
  }
}

/** @param {Record<string, unknown>} values */
function pairs(values) {
  const texts = Object.entries(values).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return texts.join("\n");
}

/** @param {JobView} job */
function parts({ children }) {
  if (children === null) return "";
  const { total, completed, failed, cancelled } = children;
  const others = [failed ? `${failed} failed` : "", cancelled ? `${cancelled} cancelled` : ""];
  return [`${completed} of ${total} completed`, ...others.filter((text) => text)].join(", ");
}
