/**
 * The overview on the dashboard: alerts, tiles, charts and tables. Rows are counted by the database, so their numbers
 * are always known; a value that only Redis has is "Unknown" while Redis is unavailable, beside its last known value.
 * @module overview
 */

import { drawThroughput, drawUnknown, drawWaits } from "./charts.js";
import { element, setText } from "./dom.js";
import { resumeButton, writeTaskPauses } from "./pauses.js";
import { age, clock, count, decimal, moment, since } from "./format.js";
import { text } from "./text.js";
import { writeMinutes, writeModels, writeQueues, writeWorkers } from "./tables.js";

/** Keeps the latest overview, to draw it again when the page changes its width. */
export class Overview {
  #root;
  #announcer;
  #latest = null;
  #lastKnown = null;
  #minutes = null;
  #announced = "";
  #alerts = [];
  #buckets = false;

  /**
   * @param {HTMLElement} root
   * @param {import("./connection.js").Announcer} announcer
   */
  constructor(root, announcer) {
    this.#root = root;
    this.#announcer = announcer;
    const buckets = document.getElementById("ae-buckets");
    if (buckets) {
      this.#minutes = JSON.parse(buckets.textContent);
      this.#buckets = true;
    }
    new ResizeObserver(() => this.#draw()).observe(this.#find("[data-chart]"));
    this.#find("[data-numbers]").addEventListener("toggle", () => this.#writeNumbers());
  }

  /** Whether Redis is unavailable, so that a part of the page is unknown. */
  get isOutage() {
    return this.#latest !== null && this.#latest.workers === null;
  }

  /**
   * @param {object} overview of the wire
   * @param {object[]} alerts with the texts of the server
   */
  show(overview, alerts) {
    this.#alerts = alerts;
    this.#latest = overview;
    this.#remember(this.isOutage ? overview.last_known : overview);
    if (!this.#buckets) this.#minutes = overview.minutes ?? this.#minutes;
    for (const node of this.#root.querySelectorAll("[data-count]")) this.#showCount(node, overview);
    this.#showOutage(overview);
    this.#showAlerts(this.isOutage ? [] : alerts);
    this.#announce();
    writeWorkers(this.#find("[data-workers]"), overview.workers, this.#lastKnown?.workers ?? []);
    writeQueues(this.#find("[data-queues]"), overview.queues, overview.pauses);
    writeModels(this.#find("[data-models]"), overview.breakers);
    writeTaskPauses(this.#root.querySelectorAll("[data-task]"), overview.pauses);
    this.#draw();
    this.#writeNumbers();
  }

  /**
   * Show the cost of today and of this month.
   * @param {Object<string, string>} texts of the server
   */
  showSpend(texts) {
    for (const node of this.#root.querySelectorAll("[data-spend]")) setText(node, texts[node.dataset.spend]);
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
    setText(node, value === null ? text("unknown") : count(value));
    setText(note, this.isOutage ? this.#noteInOutage(name, overview) : this.#note(name, overview) || note.dataset.note);
    note.title = value === null && name !== "running" && this.#lastKnown ? moment(this.#lastKnown.at) : "";
  }

  #note(name, overview) {
    if (name === "needs_approval") return overview.oldest_request === null ? "" : text("oldest_request", { age: age(overview.oldest_request) });
    if (name === "running") {
      const [busy, slots] = ["running", "concurrency"].map((field) =>
        overview.workers.filter((worker) => worker.is_alive).reduce((sum, worker) => sum + worker[field], 0));
      return slots ? text("busy_slots", { busy: count(busy), count: count(slots) }) : "";
    }
    if (name === "error_last_hour") return this.#failureRate(overview);
    if (name === "complete_last_hour") return overview.canceled_last_hour ? text("and_canceled", { count: count(overview.canceled_last_hour) }) : "";
    const waiting = overview.queues.filter((queue) => queue.oldest_age !== null).sort((a, b) => b.oldest_age - a.oldest_age);
    return name === "queued" && waiting.length ? text("oldest", { age: age(waiting[0].oldest_age), queue: waiting[0].name }) : "";
  }

  #failureRate({ complete_last_hour: complete, error_last_hour: failed }) {
    if (!failed) return "";
    const share = (100 * failed) / (complete + failed);
    return text("failed_share", { share: share < 10 ? decimal(share) : count(Math.round(share)), count: count(complete + failed) });
  }

  #noteInOutage(name, overview) {
    if (name === "needs_approval") return this.#note(name, overview) || text("now");
    if (name === "running") return text("database_started", { count: count(overview.running) });
    if (name === "queued") return text("not_dispatched");
    if (!this.#lastKnown) return text("no_earlier_value");
    return text("at_time", { value: count(this.#lastKnown[name]), time: clock(this.#lastKnown.at) });
  }

  #showOutage(overview) {
    const section = this.#find("[data-outage]");
    section.hidden = !this.isOutage;
    if (!this.isOutage) return;
    const at = this.#lastKnown?.at;
    setText(section.querySelector("h2"), at ? text("redis_unavailable_for", { time: age(since(at)) }) : text("redis_unavailable"));
    setText(section.querySelector("[data-outage-error]"), overview.problems.join(" "));
  }

  #showAlerts(alerts) {
    const section = this.#find("[data-problems]");
    const list = section.querySelector("ul");
    section.hidden = !alerts.length;
    setText(section.querySelector("h2"), text("alerts_count", { count: count(alerts.length) }));
    const key = JSON.stringify(alerts);
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.replaceChildren(...alerts.map(alertItem));
  }

  #announce() {
    const news = this.isOutage ? text("outage_announcement") : this.#alerts.map((alert) => `${alert.label}: ${alert.subject}`).join(". ");
    if (news !== this.#announced) this.#announcer.announce(news || text("no_problems"));
    this.#announced = news;
  }

  #draw() {
    if (!this.#latest) return;
    const [throughput, waits] = ["throughput", "wait"].map((name) => this.#find(`[data-chart=${name}] svg`));
    if (this.#minutes) {
      const end = this.isOutage && !this.#buckets ? clock(this.#minutes.at(-1).start) : text("now");
      drawThroughput(throughput, this.#minutes, end);
      drawWaits(waits, this.#minutes, end);
    } else [throughput, waits].forEach(drawUnknown);
    const isStale = this.isOutage && this.#minutes && !this.#buckets;
    const note = isStale ? text("as_of", { time: clock(this.#lastKnown.at) }) : "";
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

/** An alert as a line: its kind, its subject, what it means, and the way to a remedy. */
function alertItem(alert) {
  return element("li", {},
    element("span", { class: "ae-badge", "data-status": alert.status }, alert.label),
    element("b", {}, alert.subject), " ",
    element("span", {}, alert.text),
    element("span", { class: "ae-push ae-quiet" }, alert.remedy, ...(alert.url ? [" · ", element("a", { href: alert.url }, alert.link)] : []),
      ...(alert.resume ? [" ", resumeButton(alert.resume, alert.subject)] : [])));
}
