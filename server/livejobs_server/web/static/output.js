// @ts-check
/** What a job has put out so far, such as an answer word by word: a text for each stream. */

import { element, setShown, setText } from "./dom.js";
import { count } from "./format.js";
import { Tail } from "./tail.js";

/** @typedef {import("livejobs").OutputMessage} OutputMessage */

/** Characters of a stream that are in the page at first, and how many more at each request. */
const STEP = 20_000;

export class Output {
  /** @type {Map<string, Stream>} */
  #streams = new Map();
  #changed;
  node = element("div", { class: "streams", hidden: true });

  /** @param {() => void} changed Called when it wants to be drawn. */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Nothing was put out so far. */
  get isEmpty() {
    return this.#streams.size === 0;
  }

  /** @param {OutputMessage} message */
  add({ stream = "", text }) {
    let found = this.#streams.get(stream);
    if (!found) {
      found = new Stream(stream, this.#changed);
      this.#streams.set(stream, found);
      this.node.append(found.node);
    }
    found.add(text);
  }

  clear() {
    this.#streams.clear();
    this.node.replaceChildren();
  }

  draw() {
    setShown(this.node, this.#streams.size > 0);
    for (const stream of this.#streams.values()) stream.draw();
  }
}

class Stream {
  /** Pieces that have come since it was drawn last. @type {string[]} */
  #fresh = [];
  #whole = "";
  #most = STEP;
  #text = document.createTextNode("");
  #tail;
  #earlier = element("button", { class: "earlier", type: "button", click: () => this.#more() });
  #changed;
  node;

  /**
   * @param {string} name "" where the job has only one.
   * @param {() => void} changed
   */
  constructor(name, changed) {
    this.#changed = changed;
    this.#tail = new Tail(element("pre", {}, this.#text), name ? `Output ${name}` : "Output");
    const heading = name ? element("h4", {}, name) : null;
    this.node = element("div", { class: "told" }, heading, this.#earlier, this.#tail.node);
  }

  /** @param {string} text */
  add(text) {
    this.#fresh.push(text);
  }

  draw() {
    const fresh = this.#fresh.join("");
    this.#fresh = [];
    this.#whole += fresh;
    const left = Math.max(0, this.#whole.length - this.#most);
    if (fresh) {
      this.#tail.keep(() => {
        this.#text.appendData(fresh);
        const over = this.#text.length - this.#most;
        if (over > 0) this.#text.deleteData(0, over);
      });
    }
    setShown(this.#earlier, left > 0);
    if (left > 0) setText(this.#earlier, `Show earlier text (${count(left)} characters)`);
  }

  #more() {
    const end = this.#whole.length - this.#text.length;
    this.#most += STEP;
    const text = this.#whole.slice(Math.max(0, this.#whole.length - this.#most), end);
    this.#tail.keepPlace(() => this.#text.insertData(0, text));
    this.#changed();
  }
}
