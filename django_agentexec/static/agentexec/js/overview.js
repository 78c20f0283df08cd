/**
 * What an overview says, written into the dashboard: counts, problems, charts and tables.
 * @module overview
 */

import { drawThroughput, drawWaits } from "./charts.js";
import { element, setText } from "./dom.js";
import { count } from "./format.js";
import { writeMinutes, writeQueues, writeWorkers } from "./tables.js";

/** Keeps the latest overview, to draw it again when the page changes its width. */
export class Overview {
  #root;
  #announcer;
  #latest = null;
  #problems = "";

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

  /**
   * @param {object} overview of the wire
   */
  show(overview) {
    this.#latest = overview;
    for (const node of this.#root.querySelectorAll("[data-count]")) setText(node, count(overview[node.dataset.count]));
    this.#showProblems(overview.problems);
    writeWorkers(this.#find("[data-workers]"), overview.workers);
    writeQueues(this.#find("[data-queues]"), overview.queues);
    this.#draw();
    this.#writeNumbers();
  }

  #showProblems(problems) {
    const text = problems.join(" ");
    if (text === this.#problems) return;
    this.#problems = text;
    const section = this.#find("[data-problems]");
    section.hidden = !problems.length;
    section.querySelector("ul").replaceChildren(...problems.map((problem) => element("li", {}, problem)));
    this.#announcer.say(text || "No problems any more.");
  }

  #draw() {
    if (!this.#latest) return;
    drawThroughput(this.#find("[data-chart=throughput] svg"), this.#latest.minutes);
    drawWaits(this.#find("[data-chart=wait] svg"), this.#latest.minutes);
  }

  #writeNumbers() {
    const details = this.#find("[data-numbers]");
    if (details.open && this.#latest) writeMinutes(details.querySelector("table"), this.#latest.minutes);
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }
}
