// @ts-check
/** One job in full, live: how far it is, what came of it, what it says, and what can be done. */

import { announce } from "./announce.js";
import { Bar } from "./bar.js";
import { context, jobPath } from "./context.js";
import { element, setAttribute, setShown, setText } from "./dom.js";
import * as format from "./format.js";
import { drawEachSecond, drawSoon } from "./frames.js";
import { Log } from "./log.js";
import { Outcome } from "./outcome.js";
import { Output } from "./output.js";

/** @typedef {import("livejobs").JobClient} JobClient */
/** @typedef {import("livejobs").JobView} JobView */

/**
 * @typedef {object} Options
 * @property {boolean} isPage It is a page of its own, and not beside the list.
 * @property {number} lines Of the log, to show at first.
 * @property {(job: JobView) => void} [changed] Called with each view that is drawn.
 * @property {() => void} [closed] Called when somebody wants to see it no more.
 */

export class Details {
  #client;
  #watch;
  #isPage;
  #changed;
  #undo;
  #draw = () => this.#drawAll();
  #drawSoon = () => drawSoon(this.#draw);
  #title;
  #subject = element("p", { class: "details-subject" });
  #status = element("span", { class: "status" });
  #attempt = element("span", { class: "details-attempt" });
  #cancel = element("button", { type: "button", click: () => this.#change("cancel") }, "Cancel");
  #retry = element("button", { type: "button", click: () => this.#change("retry") }, "Run again");
  #close = element("button", { class: "quiet", type: "button" }, "Close");
  #problem = element("p", { class: "problem", role: "alert", hidden: true });
  #percent = element("span", { class: "meter-percent" });
  #doing = element("span", { class: "meter-doing" });
  #bar = new Bar();
  #facts = new Map(["Done", "Rate", "Time left", "Running for", "Took"].map((name) => {
      const value = element("dd");
      return [name, { value, row: element("div", {}, element("dt", {}, name), value) }];
    }),
  );
  #body = element("div", { class: "details-body" });
  /** Beside what the job says, where there is room. */
  side = element("div", { class: "details-side" });
  /** What the job says. */
  main = element("div", { class: "details-main" });
  #outcome = new Outcome();
  #output = new Output(this.#drawSoon);
  #log;
  #outputPart;
  #logPart;
  #meter;
  #said = "";
  node;

  /**
   * @param {JobClient} client
   * @param {string} jobId
   * @param {Options} options
   */
  constructor(client, jobId, { isPage, lines, changed = () => {}, closed }) {
    this.#client = client;
    this.#isPage = isPage;
    this.#title = isPage ? element("span") : element("a", { href: jobPath(jobId) });
    this.#changed = changed;
    this.#log = new Log(this.#drawSoon, lines);
    this.#outputPart = this.#part("Output", this.#output.node);
    this.#logPart = this.#part("Log", this.#log.node);
    this.#meter = this.#meterNode();
    if (closed) this.#close.addEventListener("click", closed);
    setShown(this.#close, closed !== undefined);
    this.#watch = client.watch(jobId);
    this.node = this.#frame();
    this.#undo = [
      this.#watch.on("log", (message) => this.#log.add(message.lines)),
      this.#watch.on("output", (message) => this.#output.add(message)),
      this.#watch.on("restart", () => this.#forget()),
      this.#watch.subscribe(this.#drawSoon),
      drawEachSecond(this.#draw),
    ];
    this.#drawSoon();
  }

  /**
   * What only admins are told, and only by REST.
   *
   * @param {string | undefined} traceback
   */
  showTraceback(traceback) {
    this.#outcome.drawTraceback(traceback);
  }

  /** The job that is shown. */
  get jobId() {
    return this.#watch.id;
  }

  /** Stop following the job. */
  close() {
    for (const undo of this.#undo) undo();
    this.#watch.close();
  }

  #forget() {
    this.#log.clear();
    this.#output.clear();
  }

  #drawAll() {
    const { view, error } = this.#watch;
    // Before they are filled: what is not shown cannot be scrolled to its end.
    setShown(this.node, view !== null || error !== null);
    setShown(this.#body, view !== null);
    setShown(this.#outputPart, !this.#output.isEmpty);
    setShown(this.#logPart, !this.#log.isEmpty);
    this.#output.draw();
    this.#log.draw();
    if (view) this.#drawView(view, Date.now());
    if (error && !view) this.#say(wordsOf(error));
  }

  /**
   * @param {JobView} job
   * @param {number} now
   */
  #drawView(job, now) {
    setAttribute(this.node, "data-status", job.status);
    setAttribute(this.#status, "data-status", job.status);
    setText(this.#title, job.task);
    setText(this.#subject, format.subject(job));
    setShown(this.#subject, this.#subject.textContent !== "");
    setText(this.#status, format.statusWords(job, now));
    setText(this.#attempt, attempts(job));
    const over = format.isOver(job);
    setShown(this.#cancel, context.mayChange && !over && !job.cancel_requested);
    setShown(this.#retry, context.mayChange && over && job.status !== "completed");
    this.#drawMeter(job, now);
    this.#outcome.draw(job);
    this.#announce(job);
    this.#changed(job);
  }

  /**
   * @param {JobView} job
   * @param {number} now
   */
  #drawMeter(job, now) {
    const { progress } = job;
    const isRunning = job.status === "processing";
    const fraction = format.fractionOf(job);
    const left = isRunning ? (progress?.eta_seconds ?? null) : null;
    const run = format.secondsRun(job, now);
    setText(this.#percent, format.percent(fraction));
    setText(this.#doing, doing(job, now));
    this.#bar.draw(job, job.status !== "pending");
    const over = format.isOver(job);
    this.#fact("Done", progress ? format.amount(progress) : "");
    this.#fact("Rate", format.rate(progress?.rate ?? null));
    this.#fact("Time left", left === null ? "" : format.duration(left), !over);
    this.#fact("Running for", run === null ? "" : format.duration(run), !over);
    this.#fact("Took", run === null ? "" : format.duration(run, true), over);
  }

  /**
   * @param {string} name
   * @param {string} text
   * @param {boolean} [isShown]
   */
  #fact(name, text, isShown = true) {
    const fact = this.#facts.get(name);
    if (!fact) return;
    setText(fact.value, text || "–");
    setShown(fact.row, isShown);
  }

  /** @param {JobView} job */
  #announce(job) {
    const words = `${job.task}: ${format.statusWords(job, Date.now())}.`;
    if (this.#said && this.#said !== words) announce(words);
    this.#said = words;
  }

  /** @param {"cancel" | "retry"} action */
  async #change(action) {
    const button = action === "cancel" ? this.#cancel : this.#retry;
    button.disabled = true;
    this.#say("");
    try {
      await this.#client[action](this.#watch.id);
    } catch (error) {
      this.#say(wordsOf(/** @type {Error} */ (error)));
    } finally {
      button.disabled = false;
    }
  }

  /** @param {string} problem "" takes an earlier one away. */
  #say(problem) {
    setText(this.#problem, problem);
    setShown(this.#problem, problem !== "");
  }

  #frame() {
    this.main.append(this.#outcome.node, this.#outputPart, this.#logPart);
    this.#body.append(this.#meter, this.main, this.side);
    const heading = element(this.#isPage ? "h1" : "h2", {}, this.#title);
    return element(
      "article",
      { class: "details", hidden: true },
      element(
        "header",
        { class: "details-head" },
        element("div", { class: "details-names" }, heading, this.#subject),
        element("div", { class: "actions" }, this.#cancel, this.#retry, this.#close),
      ),
      element("p", { class: "details-status" }, this.#status, this.#attempt),
      this.#problem,
      this.#body,
    );
  }

  #meterNode() {
    const facts = [...this.#facts.values()].map(({ row }) => row);
    return element(
      "div",
      { class: "meter" },
      element("p", { class: "meter-line" }, this.#percent, this.#doing),
      this.#bar.node,
      element("dl", { class: "facts" }, ...facts),
    );
  }

  /**
   * @param {string} title
   * @param {HTMLElement} content
   */
  #part(title, content) {
    const heading = element(this.#isPage ? "h2" : "h3", {}, title);
    return element("section", { class: "part", hidden: true }, heading, content);
  }
}

/** @param {JobView} job */
function attempts(job) {
  if (job.attempt < 2) return "";
  const most = job.max_attempts === null ? "" : ` of ${job.max_attempts}`;
  return `attempt ${job.attempt}${most}`;
}

/**
 * @param {JobView} job
 * @param {number} now
 */
function doing(job, now) {
  if (job.status === "processing")
    return format.doing(job.progress) || (job.progress ? "" : "no progress reported yet");
  if (job.status !== "pending") return "";
  const due = job.run_at === null ? 0 : (Date.parse(job.run_at) - now) / 1000;
  return due > 0 ? `begins in ${format.duration(due)}` : "waits for a worker";
}

/** @param {Error} error */
function wordsOf(error) {
  const code = "code" in error ? error.code : "";
  if (code === "unknown_job") return "There is no such job, or it is not yours.";
  return error.message || "Something went wrong.";
}
