/**
 * The list of running activities: one entry each, changed in place, so that bars move and focus stays.
 * @module running
 */

import { badge, element, setText } from "./dom.js";
import { count, duration, shortId, since } from "./format.js";
import { text } from "./text.js";

const REMOVE_AFTER = 4_000; // milliseconds that an ended activity stays visible
const MAX_ENTRIES = 50;

/** Entries of a list, by activity. */
export class RunningList {
  #list;
  #note;
  #url;
  #entries = new Map();
  #total = 0;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} note states that the list is empty, or that there are more
   * @param {function(string): string} url of an activity's page
   */
  constructor(list, note, url) {
    this.#list = list;
    this.#note = note;
    this.#url = url;
    setInterval(() => this.#tick(), 1_000);
  }

  /**
   * Show exactly these activities, and remove all others.
   * @param {object[]} items list items of the wire, all running
   */
  replace(items) {
    const ids = new Set(items.map((item) => item.agent_id));
    for (const entry of this.#entries.values()) {
      if (!ids.has(entry.item.agent_id) && !entry.isEnding) this.#remove(entry);
    }
    items.forEach((item) => this.update(item));
    this.#write();
  }

  /**
   * Show a change of one activity, running or not. A state older than the displayed state is ignored.
   * @param {object} item a list item of the wire
   */
  update(item) {
    const entry = this.#entries.get(item.agent_id);
    if (entry && Date.parse(item.updated_at) < Date.parse(entry.item.updated_at)) return;
    if (item.status === "running") this.#show(item, entry);
    else if (entry) this.#end(entry, item);
    this.#write();
  }

  /**
   * Set how many run in total; the list shows a part of them.
   * @param {number} total
   */
  setTotal(total) {
    this.#total = total;
    this.#write();
  }

  #show(item, entry) {
    if (!entry) {
      if (this.#entries.size >= MAX_ENTRIES) return;
      entry = this.#create(item);
    }
    clearTimeout(entry.removal);
    entry.isEnding = false;
    this.#fill(entry, item);
  }

  #create(item) {
    const parts = {
      message: element("span", { class: "ae-message" }),
      bar: element("progress", { max: 100, "aria-label": text("progress_of", { name: `${item.agent_type} ${shortId(item.agent_id)}` }) }),
      percentage: element("span", { class: "ae-number" }),
      elapsed: element("span", { class: "ae-elapsed ae-number ae-quiet" }),
    };
    const link = element("a", { href: this.#url(item.agent_id) }, element("span", { class: "ae-task" }, item.agent_type),
      " ", element("span", { class: "ae-id" }, shortId(item.agent_id)));
    const node = element("li", { "data-id": item.agent_id }, element("span", { class: "ae-name" }, link), parts.message,
      element("span", { class: "ae-progress" }, parts.bar, parts.percentage), parts.elapsed);
    const entry = { node, parts, item, isEnding: false, removal: null };
    this.#entries.set(item.agent_id, entry);
    this.#place(entry);
    return entry;
  }

  /** Ids grow with time: the newest goes first. */
  #place(entry) {
    const id = entry.item.agent_id;
    const next = [...this.#list.children].find((node) => node.dataset.id < id);
    this.#list.insertBefore(entry.node, next ?? null);
  }

  #fill(entry, item) {
    entry.item = item;
    entry.node.dataset.status = item.status;
    entry.parts.bar.parentElement.dataset.status = item.waiting_for || item.status;
    setText(entry.parts.message, item.latest_log_message ?? "");
    entry.parts.message.title = item.latest_log_message ?? "";
    entry.parts.bar.value = item.percentage;
    setText(entry.parts.percentage, `${item.percentage} %`);
    if (item.status === "running") this.#tickOne(entry);
    else entry.parts.elapsed.replaceChildren(badge(item.status));
  }

  #end(entry, item) {
    this.#fill(entry, item);
    if (entry.isEnding) return;
    entry.isEnding = true;
    entry.removal = setTimeout(() => this.#remove(entry), REMOVE_AFTER);
  }

  #remove(entry) {
    clearTimeout(entry.removal);
    entry.node.remove();
    this.#entries.delete(entry.item.agent_id);
    this.#write();
  }

  #tick() {
    for (const entry of this.#entries.values()) if (!entry.isEnding) this.#tickOne(entry);
  }

  #tickOne({ parts, item }) {
    setText(parts.elapsed, duration(since(item.started_at ?? item.created_at)));
  }

  #write() {
    const shown = [...this.#entries.values()].filter((entry) => !entry.isEnding).length;
    const more = this.#total - shown;
    if (!this.#entries.size) setText(this.#note, text("nothing_running"));
    else setText(this.#note, shown >= MAX_ENTRIES && more > 0 ? text("and_more", { count: count(more) }) : "");
  }
}
