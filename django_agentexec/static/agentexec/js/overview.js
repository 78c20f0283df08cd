/**
 * What an overview says, written into the dashboard: counts, problems, charts and tables. Rows are counted by the
 * database, so their numbers are always known; what Redis does not tell is "Unknown", beside its last known value.
 * @module overview
 */

import { drawThroughput, drawUnknown, drawWaits } from "./charts.js";
import { element, setText } from "./dom.js";
import { age, clock, count, moment, since } from "./format.js";
import { writeMinutes, writeQueues, writeWorkers } from "./tables.js";

/** Keeps the latest overview, to draw it again when the page changes its width. */
export class Overview {
  #root;
  #announcer;
  #latest = null;
  #lastKnown = null;
  #minutes = null;
  #announced = "";

  /**
   * @param {HTMLElement} root
   * @param {import("./connection.js").Announcer} announcer
   */
  constructor(root, announcer) {
    this.#root = root;
    this.#announcer = announcer;
    new ResizeObserver(() => this.#draw()).observe(this.#find("[data-chart]"));
    this.#find("[data-numbers]").addEventListener("toggle", () => this.#writeNumbers());
  }

  /** Whether Redis is unavailable, so that a part of the page is unknown. */
  get isOutage() {
    return this.#latest !== null && this.#latest.workers === null;
  }

  /**
   * @param {object} overview of the wire
   */
  show(overview) {
    this.#latest = overview;
    this.#remember(this.isOutage ? overview.last_known : overview);
    this.#minutes = overview.minutes ?? this.#minutes;
    for (const node of this.#root.querySelectorAll("[data-count]")) this.#showCount(node, overview);
    this.#showOutage(overview);
    this.#showProblems(this.isOutage ? [] : overview.problems);
    this.#announce();
    writeWorkers(this.#find("[data-workers]"), overview.workers, this.#lastKnown?.workers ?? []);
    writeQueues(this.#find("[data-queues]"), overview.queues);
    this.#draw();
    this.#writeNumbers();
  }

  /** Each process of the server remembers what it has seen itself: the latest counts. */
  #remember(known) {
    if (known && !(Date.parse(known.at) < Date.parse(this.#lastKnown?.at))) this.#lastKnown = known;
  }

  #showCount(node, overview) {
    const name = node.dataset.count;
    const value = name === "running" && this.isOutage ? null : overview[name];
    const note = node.parentElement.querySelector("[data-note]");
    node.parentElement.toggleAttribute("data-unknown", value === null);
    setText(node, value === null ? "Unknown" : count(value));
    setText(note, this.isOutage ? this.#noteInOutage(name, overview) : note.dataset.note);
    note.title = value === null && name !== "running" && this.#lastKnown ? moment(this.#lastKnown.at) : "";
  }

  #noteInOutage(name, overview) {
    if (name === "running") return `database: ${count(overview.running)} started`;
    if (name === "queued") return "saved, not dispatched";
    return this.#lastKnown ? `${count(this.#lastKnown[name])} at ${clock(this.#lastKnown.at)}` : "no earlier value";
  }

  #showOutage(overview) {
    const section = this.#find("[data-outage]");
    section.hidden = !this.isOutage;
    if (!this.isOutage) return;
    const at = this.#lastKnown?.at;
    setText(section.querySelector("h2"), at ? `Redis unavailable for ${age(since(at))}` : "Redis unavailable");
    setText(section.querySelector("[data-outage-error]"), overview.problems.join(" "));
  }

  #showProblems(problems) {
    const section = this.#find("[data-problems]");
    const list = section.querySelector("ul");
    section.hidden = !problems.length;
    if (problems.join("\n") === [...list.children].map((item) => item.textContent).join("\n")) return;
    list.replaceChildren(...problems.map((problem) => element("li", {}, problem)));
  }

  #announce() {
    const text = this.isOutage ? "Redis is unavailable; a part of the page is unknown." : this.#latest.problems.join(" ");
    if (text !== this.#announced) this.#announcer.say(text || "No problems any more.");
    this.#announced = text;
  }

  #draw() {
    if (!this.#latest) return;
    const [throughput, waits] = ["throughput", "wait"].map((name) => this.#find(`[data-chart=${name}] svg`));
    if (this.#minutes) {
      const end = this.isOutage ? clock(this.#minutes.at(-1).start) : "now";
      drawThroughput(throughput, this.#minutes, end);
      drawWaits(waits, this.#minutes, end);
    } else [throughput, waits].forEach(drawUnknown);
    const note = this.isOutage && this.#minutes ? `As of ${clock(this.#lastKnown.at)}; unknown since.` : "";
    for (const node of this.#root.querySelectorAll("[data-chart-note]")) setText(node, note);
  }

  #writeNumbers() {
    const details = this.#find("[data-numbers]");
    if (details.open && this.#latest) writeMinutes(details.querySelector("table"), this.#minutes ?? []);
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}
