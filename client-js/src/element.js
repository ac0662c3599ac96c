// @ts-check
/**
 * `<job-progress job="…">`: a bar that follows a job to its end.
 *
 * Attributes: `job`, the job's id; `url`, where livejobs is, if not at this origin's root; `label`,
 * what is being done, in words for people. It sets two by itself, to style it by: `status`, the
 * job's, or `unknown`, or none without a job; and `indeterminate`, while nobody knows how far it
 * is. Property `client`: a `JobClient` of one's own. Parts: `bar`, `fill`, `text`, `percent`.
 * Events, which bubble: `job-change` and `job-end`, with the view as `detail`, and `job-problem`,
 * with the error.
 */

import { defaultClient } from "./default.js";

/** @typedef {import("./client.js").JobClient} JobClient */
/** @typedef {import("./messages.js").JobView} JobView */
/** @typedef {import("./watch.js").Watch} Watch */

const STYLE = `
:host { display: block; --job-progress-color: #2563eb; --job-progress-track: #8884 }
:host([hidden]) { display: none }
:host([status=completed]) { --job-progress-color: #15803d }
:host([status=failed]) { --job-progress-color: #b91c1c }
:host([status=cancelled]) { --job-progress-color: #6b7280 }
[part=bar] {
  height: .5em; border-radius: .25em; overflow: hidden; background: var(--job-progress-track);
}
[part=fill] {
  height: 100%; width: 0; border-radius: inherit; background: var(--job-progress-color);
  transition: width .2s linear;
}
:host([indeterminate]) [part=fill] { width: 30%; animation: slide 1.5s ease-in-out infinite }
@keyframes slide { from { margin-left: -30% } to { margin-left: 100% } }
@media (prefers-reduced-motion: reduce) {
  [part=fill] { transition: none }
  :host([indeterminate]) [part=fill] { animation: none; width: 100%; opacity: .4 }
}
@media (forced-colors: active) {
  [part=bar] { border: 1px solid }
  [part=fill] { background: Highlight; forced-color-adjust: none }
}
p {
  display: flex; justify-content: space-between; gap: 1em; margin: .25em 0 0;
  font-size: .875em; font-variant-numeric: tabular-nums;
}
[role=status] {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
}
`;

const TEMPLATE = `
<div part="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100">
  <div part="fill"></div>
</div>
<p aria-hidden="true"><span part="text"></span><span part="percent"></span></p>
<span role="status"></span>`;

/** The element; importing this module defines it as `job-progress`. */
export class JobProgress extends HTMLElement {
  static observedAttributes = ["job", "url", "label"];

  /** The client to use instead of the page's. @type {JobClient | null} */
  #client = null;
  /** @type {Watch | null} */
  #watch = null;
  /** @type {(() => void)[]} */
  #undo = [];
  #frame = 0;
  /** It was seen before its end, so the end is news. */
  #wasOpen = false;
  #root = this.attachShadow({ mode: "open" });

  constructor() {
    super();
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    // Not a <style> element: a strict Content-Security-Policy refuses those.
    this.#root.adoptedStyleSheets = [style];
    this.#root.innerHTML = TEMPLATE;
  }

  /** The job's id; "" for none. */
  get job() {
    return this.getAttribute("job") ?? "";
  }

  set job(id) {
    this.setAttribute("job", id);
  }

  /** The client that watches the job. */
  get client() {
    return this.#client ?? defaultClient(this.getAttribute("url") ?? "");
  }

  set client(client) {
    this.#client = client;
    this.#begin();
  }

  /** The newest view; null before the first one came. */
  get view() {
    return this.#watch?.view ?? null;
  }

  connectedCallback() {
    this.#begin();
  }

  disconnectedCallback() {
    this.#end();
  }

  /** @param {string} name */
  attributeChangedCallback(name) {
    if (name == "label") this.#draw();
    else this.#begin();
  }

  #begin() {
    this.#end();
    if (!this.isConnected) return;
    if (!this.job) return this.#draw();
    const watch = this.client.watch(this.job, { entries: false });
    this.#watch = watch;
    this.#undo = [
      watch.subscribe(() => this.#changed()),
      watch.on("end", () => this.#announce()),
      () => watch.close(),
    ];
    this.#draw();
    if (watch.snapshot.ended) this.#tell("job-end", watch.view);
  }

  #end() {
    for (const undo of this.#undo.splice(0)) undo();
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#watch = null;
    this.#wasOpen = false;
  }

  #changed() {
    const error = this.#watch?.error;
    if (error) this.#tell("job-problem", error);
    else this.#tell("job-change", this.view);
    // Messages may come faster than the screen shows them, and a hidden page shows none.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** It is over: those who listen to the page are told when they have heard all else. */
  #announce() {
    const { view } = this;
    if (view && this.#wasOpen)
      this.#find("[role=status]").textContent = `${this.#name()}: ${view.status}`;
    this.#tell("job-end", view);
  }

  #draw() {
    const { view } = this;
    const error = this.#watch?.error;
    // Without a job nothing is going on: an empty bar, which says nothing.
    const status = view?.status ?? (error ? "unknown" : this.job && "pending");
    const isOpen = !error && (status == "pending" || status == "processing");
    const fraction = status == "completed" ? 1 : (view?.progress?.fraction ?? null);
    const percent = fraction === null ? "" : String(Math.floor(100 * fraction));
    const text = this.#text();
    if (isOpen) this.#find("[role=status]").textContent = "";
    this.#wasOpen ||= isOpen && view != null;
    if (status) this.setAttribute("status", status);
    else this.removeAttribute("status");
    this.toggleAttribute("indeterminate", isOpen && !percent);
    this.#find("[part=fill]").style.width = percent && `${100 * (fraction ?? 0)}%`;
    this.#find("[part=text]").textContent = text;
    this.#find("[part=percent]").textContent = percent && `${percent} %`;
    const bar = this.#find("[part=bar]");
    bar.setAttribute("aria-label", this.#name());
    bar.setAttribute("aria-valuetext", percent ? `${percent} %, ${text}` : text);
    if (percent) bar.setAttribute("aria-valuenow", percent);
    else bar.removeAttribute("aria-valuenow");
  }

  /** @returns {string} What the bar is called. */
  #name() {
    return this.getAttribute("label") ?? this.view?.task ?? "job";
  }

  /** @returns {string} What is going on, for people. */
  #text() {
    const { view } = this;
    if (this.#watch?.error) return this.#watch.error.message;
    if (!view) return this.job && "\u2026";
    if (view.status == "failed" && view.error) return view.error.message;
    const { message = null, stage = null } = (view.status == "processing" && view.progress) || {};
    return message ?? stage ?? view.status;
  }

  /**
   * @param {string} selector
   * @returns {HTMLElement}
   */
  #find(selector) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(selector));
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

if (!customElements.get("job-progress")) customElements.define("job-progress", JobProgress);
