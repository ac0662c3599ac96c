// @ts-check
/** A job's log: the newest lines, and more of the earlier ones when they are asked for. */

import { element, setShown, setText } from "./dom.js";
import { count, fullTime, timeOfDay } from "./format.js";
import { Tail } from "./tail.js";

/** @typedef {import("livejobs").LogLine} LogLine */

export class Log {
  /** @type {LogLine[]} */
  #lines = [];
  /** Of the lines, those before this one are not in the page. */
  #first = 0;
  /** Those before this one have been drawn, or left out. */
  #drawn = 0;
  #most;
  #step;
  #list = element("ol", { class: "log" });
  #tail;
  #earlier = element("button", { class: "earlier", type: "button", click: () => this.#more() });
  #changed;
  node;

  /**
   * @param {() => void} changed Called when it wants to be drawn.
   * @param {number} most Lines to show at first, and how many more at each request.
   * @param {string} [label] Names it for those who cannot see where it stands.
   */
  constructor(changed, most, label = "Log") {
    this.#changed = changed;
    this.#most = this.#step = most;
    this.#tail = new Tail(this.#list, label);
    this.node = element("div", { class: "told", hidden: true }, this.#earlier, this.#tail.node);
  }

  /** Nothing was said so far. */
  get isEmpty() {
    return this.#lines.length === 0;
  }

  /** @param {LogLine[]} lines */
  add(lines) {
    this.#lines.push(...lines);
  }

  clear() {
    this.#lines = [];
    this.#first = this.#drawn = 0;
    this.#most = this.#step;
    this.#list.replaceChildren();
  }

  draw() {
    const { length } = this.#lines;
    const first = Math.max(0, length - this.#most);
    // Before it is filled: what is not shown cannot be scrolled to its end.
    setShown(this.node, length > 0);
    this.#tail.keep(() => {
      for (let at = this.#first; at < Math.min(first, this.#drawn); at += 1)
        this.#list.firstElementChild?.remove();
      const from = Math.max(first, this.#drawn);
      this.#list.append(...this.#lines.slice(from).map(lineNode));
    });
    this.#first = first;
    this.#drawn = length;
    setShown(this.#earlier, first > 0);
    if (first > 0) setText(this.#earlier, `Show earlier lines (${count(first)})`);
  }

  #more() {
    const first = Math.max(0, this.#first - this.#step);
    this.#tail.keepPlace(() => {
      this.#list.prepend(...this.#lines.slice(first, this.#first).map(lineNode));
    });
    this.#most += this.#step;
    this.#first = first;
    this.#changed();
  }
}

/** @param {LogLine} line */
function lineNode(line) {
  const { at, level, text } = line;
  const time = element("time", { datetime: at, title: fullTime(at) }, timeOfDay(at));
  const isPlain = level === "info" || level === "debug";
  const shown = isPlain ? null : element("span", { class: "level" }, level);
  return element("li", { "data-level": level }, time, shown, element("span", { class: "text" }, text));
}
