/**
 * The page of one activity: follows it over its feed, or by polling, until it has ended.
 *
 * Messages and progress are written here; where more than that changes (another status or attempt, a
 * traceback), the page is fetched once more and its content exchanged, so that only the server writes it.
 * @module activity
 */

import { whileWatched } from "./attention.js";
import { Announcer, showConnection } from "./connection.js";
import { capitalized, setText } from "./dom.js";
import { duration } from "./format.js";
import { Feed } from "./feed.js";
import { Poller, Refused } from "./poll.js";
import { addLines } from "./timeline.js";

const POLL_EVERY = 1_500;
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
  const activity = message.activity;
  if (!activity) return;
  const isNews = activity.status !== root.dataset.status || String(activity.attempt) !== root.dataset.attempt;
  const isBeyond = addLines(root, message.logs ?? activity.logs ?? []);
  write(activity);
  if (isNews || isBeyond) renew(activity);
  settle();
}

function write(activity) {
  const badge = find("[data-field=status]");
  badge.dataset.status = find("[data-field=bar]").dataset.status = activity.status;
  setText(badge, capitalized(activity.status));
  find("[data-field=bar] progress").value = activity.percentage;
  setText(find("[data-field=percentage]"), `${activity.percentage}%`);
  setText(find("[data-field=message]"), activity.latest_log_message ?? "");
}

/** Exchange the page's content for what the server writes now, keeping what the reader has opened. */
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
    root.replaceWith(fresh);
    root = fresh;
    announcer.say(`${capitalized(activity.status)}: ${activity.latest_log_message ?? ""}`);
  } catch {
    isAway = true;
  } finally {
    isRenewing = false;
    if (isStale) renew(activity); // something has changed since the server wrote it
    settle();
  }
}

function failed(error) {
  isRefused ||= error instanceof Refused;
  isAway = true;
  settle();
}

/** Let run what is wanted now, and say so. */
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

/** Let the time go on that a running activity has taken. */
function tick() {
  const took = find("[data-field=took]");
  if (took?.dataset.since) setText(took, duration((Date.now() - Date.parse(took.dataset.since)) / 1000));
}

whileWatched(null, (wanted) => {
  isWatched = wanted;
  settle();
});
setInterval(tick, 1_000);
