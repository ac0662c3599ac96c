// @ts-check
/** A scrolling box that stays at its end while more is added, until its reader scrolls away. */

import { element } from "./dom.js";

/** Within so many pixels of its end, a box is taken to be there. */
const NEAR = 24;

export class Tail {
  node;
  #isAtEnd = true;

  /**
   * @param {Element} content
   * @param {string} label
   */
  constructor(content, label) {
    this.node = element(
      "div",
      { class: "tail", role: "region", "aria-label": label, tabindex: "0" },
      content,
    );
    this.node.addEventListener(
      "scroll",
      () => {
        const { scrollHeight, scrollTop, clientHeight } = this.node;
        this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
      },
      { passive: true },
    );
  }

  /**
   * Change the content, and stay at its end if that was seen.
   *
   * @param {() => void} change
   */
  keep(change) {
    change();
    // The browser holds it to what is there.
    if (this.#isAtEnd) this.node.scrollTop = 1e9;
  }

  /**
   * Put something before the content, and stay at what was seen.
   *
   * @param {() => void} change
   */
  keepPlace(change) {
    const fromEnd = this.node.scrollHeight - this.node.scrollTop;
    change();
    this.node.scrollTop = this.node.scrollHeight - fromEnd;
    this.#isAtEnd = false;
  }
}
