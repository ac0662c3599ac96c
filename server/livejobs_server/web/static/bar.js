// @ts-check
/** The bar of a job, as assistive technology knows one. */

import { element, setAttribute, setShown } from "./dom.js";
import { doing, fractionOf, isOver, percent, statusWords } from "./format.js";

/** @typedef {import("livejobs").JobView} JobView */

export class Bar {
  #fill = element("div", { class: "bar-fill" });
  node = element("div", { class: "bar", role: "progressbar" }, this.#fill);
  #job = "";

  /**
   * @param {JobView} job
   * @param {boolean} isShown
   */
  draw(job, isShown) {
    setShown(this.node, isShown);
    if (!isShown) return;
    setAttribute(this.node, "data-status", job.status);
    const fraction = fractionOf(job);
    if (this.#job !== job.job_id) {
      this.#job = job.job_id;
      setAttribute(this.node, "aria-label", `Progress of ${job.task}`);
    }
    // Without a value it is a bar of which nobody knows how far it is.
    setAttribute(this.node, "aria-valuenow", fraction === null ? null : whole(fraction));
    const words = [percent(fraction), doing(job.progress)].filter((part) => part).join(", ");
    setAttribute(this.node, "aria-valuetext", words || statusWords(job, Date.now()));
    setAttribute(this.node, "data-known", String(fraction !== null || isOver(job)));
    const scale = `scaleX(${fraction ?? 0})`;
    if (this.#fill.style.transform !== scale) this.#fill.style.transform = scale;
  }
}

/** @param {number} fraction */
const whole = (fraction) => String(Math.floor(fraction * 100 + 1e-9));
