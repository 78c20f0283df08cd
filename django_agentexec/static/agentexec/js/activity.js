/**
 * The page of one activity: follows it over its feed, or by polling, until it has ended.
 *
 * Messages and progress are updated here. When more changes (the status, the attempt, a traceback, children), the
 * page is fetched again and its content replaced, so that only the server renders it.
 * @module activity
 */

import { whileWatched } from "./attention.js";
import { Announcer, showConnection } from "./connection.js";
import { setText } from "./dom.js";
import { duration } from "./format.js";
import { Feed } from "./feed.js";
import { Poller, Refused } from "./poll.js";
import { statusText } from "./text.js";
import { addLines } from "./timeline.js";
import { openRows, receive, refreshSoon, restore } from "./trace.js";

const POLL_EVERY = 1_500;
const CHILDREN_EVERY = 5_000;
const ACTIVE = ["queued", "running"];

let root = document.getElementById("ae-activity");
const find = (selector) => root.querySelector(selector);
const announcer = new Announcer(find("[data-announce]"));

let isWatched = false;
let isAway = false;
let isRefused = false;
let isRenewing = false;
let isStale = false;

const after = () => root.dataset.lastLogId;
const poller = new Poller(() => `${root.dataset.liveUrl}?after=${after()}`, POLL_EVERY, { data: received, failed });
const feed = new Feed(() => root.dataset.socket && `${root.dataset.socket}?after=${after()}`, { message: received, open: settle, closed: settle });

function received(message) {
  isAway = false;
  receive(message);
  const activity = message.activity;
  if (!activity) return;
  const isNews = activity.status !== root.dataset.status || String(activity.attempt) !== root.dataset.attempt ||
    activity.waiting_for !== root.dataset.waitingFor || (activity.paused ?? "") !== root.dataset.paused ||
    ("hasChildren" in root.dataset && Boolean(message.logs?.length));
  const isBeyond = addLines(root, message.logs ?? activity.logs ?? []);
  write(activity);
  if (!feed.isOpen) refreshSoon(); // no events of calls while polling
  if (isNews || isBeyond) renew(activity);
  settle();
}

function write(activity) {
  const bar = find("[data-field=bar]");
  if (bar && !("hasChildren" in root.dataset)) {
    bar.querySelector("progress").value = activity.percentage;
    setText(find("[data-field=percentage]"), `${activity.percentage} %`);
  }
  if (!("hasChildren" in root.dataset)) setText(find("[data-field=message]"), activity.latest_log_message ?? "");
}

/** Replace the content by a fresh one of the server. */
async function renew(activity) {
  isStale = true;
  if (isRenewing) return;
  isRenewing = true;
  try {
    isStale = false;
    const response = await fetch(location.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("ae-activity");
    if (!response.ok || !fresh) return;
    fresh.replaceChild(find("[data-announce]"), fresh.querySelector("[data-announce]"));
    const rows = openRows();
    keepOpen(root, fresh);
    root.replaceWith(fresh);
    root = fresh;
    restore(rows);
    announcer.announce(`${statusText(activity.status)}: ${activity.latest_log_message ?? ""}`);
  } catch {
    isAway = true;
  } finally {
    isRenewing = false;
    if (isStale) renew(activity); // the activity has changed since the server rendered it
    settle();
  }
}

/** Open the same parts in the fresh content, if it has as many. */
function keepOpen(before, after) {
  const [old, next] = [before, after].map((part) => [...part.querySelectorAll("details:not([data-trace] *)")]);
  if (old.length === next.length) old.forEach((node, index) => (next[index].open ||= node.open));
}

function failed(error) {
  isRefused ||= error instanceof Refused;
  isAway = true;
  settle();
}

/** Start and stop the sources as needed, and show the state. */
function settle() {
  const isActive = ACTIVE.includes(root.dataset.status) && !("isPast" in root.dataset);
  if (!isWatched || isRefused || !isActive) [feed, poller].forEach((source) => source.stop());
  else {
    feed.start();
    if (feed.isOpen) poller.stop();
    else poller.start();
  }
  if (isActive) showConnection(find("[data-connection]"), state());
}

function state() {
  if (isRefused) return "refused";
  if (!isWatched) return "paused";
  if (isAway) return "away";
  return feed.isOpen ? "live" : "polling";
}

/** Update the duration of a running activity. */
function tick() {
  const took = find("[data-field=took]");
  if (took?.dataset.since) setText(took, duration((Date.now() - Date.parse(took.dataset.since)) / 1000));
}

/** Children do not report to their parent's feed: ask the server for their state. */
function refreshChildren() {
  if (isWatched && !isRefused && "hasChildren" in root.dataset && ACTIVE.includes(root.dataset.status)) {
    renew({ status: root.dataset.status, latest_log_message: find("[data-field=message]").textContent });
  }
}

whileWatched(null, (wanted) => {
  isWatched = wanted;
  settle();
});
setInterval(tick, 1_000);
setInterval(refreshChildren, CHILDREN_EVERY);
