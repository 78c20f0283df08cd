/**
 * The dashboard: running activities over the feed, or by polling without one; sums by polling.
 * @module dashboard
 */

import { whileWatched } from "./attention.js";
import { Announcer, showConnection } from "./connection.js";
import { Feed } from "./feed.js";
import { Overview } from "./overview.js";
import { Poller, Refused } from "./poll.js";
import { RunningList } from "./running.js";

const SUMS_EVERY = 5_000;
const RUNNING_EVERY = 1_500; // without a feed
const SPEND_EVERY = 12; // polls of sums, a minute: the server reads the calls of a month

const root = document.getElementById("ae-dashboard");
const find = (selector) => root.querySelector(selector);
const announcer = new Announcer(find("[data-announce]"));
const overview = new Overview(root, announcer);
const running = new RunningList(find("[data-running]"), find("[data-running-note]"), (id) => root.dataset.activityUrl.replace("{id}", id));

let isWatched = false;
let isAway = false;
let isRefused = false;
let polls = 0;

const handlers = { data: received, failed };
const sums = new Poller(() => (++polls % SPEND_EVERY ? root.dataset.url : `${root.dataset.url}?spend=1`), SUMS_EVERY, handlers);
const entries = new Poller(() => `${root.dataset.url}?overview=0`, RUNNING_EVERY, handlers);
const feed = new Feed(() => root.dataset.socket, { message: follow, open: settle, closed: settle });

/** Data of a poll. The feed is more recent, except for activities that ended while it was closed. */
function received(data) {
  isAway = false;
  if (data.overview) {
    overview.show(data.overview, data.alerts ?? []);
    running.setTotal(data.overview.running);
  }
  if (data.spend) overview.showSpend(data.spend);
  if (feed.isOpen) data.running.forEach((item) => running.update(item));
  else running.replace(data.running);
  settle();
}

function failed(error) {
  isRefused ||= error instanceof Refused;
  isAway = true;
  settle();
}

/** A message of the feed. */
function follow(message) {
  if (message.type === "activity") running.update(message.activity);
  if (message.type !== "snapshot") return;
  const items = message.activities.filter((item) => item.status === "running");
  if (message.part) items.forEach((item) => running.update(item)); // of a snapshot that is too large for one message
  else running.replace(items);
}

/** Start and stop the sources as needed, and show the state. */
function settle() {
  if (!isWatched || isRefused) [feed, sums, entries].forEach((source) => source.stop());
  else {
    sums.start();
    feed.start();
    if (feed.isOpen) entries.stop();
    else entries.start();
  }
  showConnection(find("[data-connection]"), state());
}

function state() {
  if (isRefused) return "refused";
  if (!isWatched) return "paused";
  if (isAway) return "away";
  if (overview.isOutage) return "outage";
  return feed.isOpen ? "live" : "polling";
}

received(JSON.parse(document.getElementById("ae-first").textContent));
whileWatched(find("[data-pause]"), (wanted) => {
  isWatched = wanted;
  settle();
});
