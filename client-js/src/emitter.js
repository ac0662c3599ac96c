// @ts-check
/** Who is told of what. */

/** @typedef {(value: any) => void} Listener */

/** Calls listeners by the name of what happened. */
export class Emitter {
  /** @type {Set<[name: string, listener: Listener]>} */
  #listeners = new Set();

  /**
   * Call a function whenever something happens.
   *
   * @param {string} name
   * @param {Listener} listener
   * @returns {() => void} Undoes it.
   */
  on(name, listener) {
    /** @type {[string, Listener]} */
    const entry = [name, listener];
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  /**
   * Call a function whenever something that is shown has changed; bound, so that React's
   * `useSyncExternalStore` takes it as it is.
   *
   * @param {() => void} listener
   * @returns {() => void} Undoes it.
   */
  subscribe = (listener) => this.on("change", listener);

  /**
   * @param {string} name
   * @param {unknown} [value] Each listener's argument.
   */
  emit(name, value) {
    for (const [event, listener] of [...this.#listeners]) {
      try {
        if (event == name) listener(value);
      } catch (error) {
        // A listener's mistake is its page's to hear of, and nobody else's trouble.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
