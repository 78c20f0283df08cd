/**
 * The list of activities: rows follow the live feed in place, new rows wait for a click, and the bulk bar counts.
 * @module list
 */

import { whileWatched } from "./attention.js";
import { Announcer, showConnection } from "./connection.js";
import { setText } from "./dom.js";
import { Feed } from "./feed.js";
import { count, duration } from "./format.js";
import { Selection } from "./selection.js";
import { text } from "./text.js";

const REFRESH_PAUSE = 1_500; // milliseconds between two requests for fresh rows

const root = document.getElementById("ae-list");
const find = (selector) => root.querySelector(selector);
const announcer = new Announcer(find("[data-announce]"));
const showNew = find("[data-show-new]");
const selection = new Selection(root);
const feed = new Feed(() => root.dataset.socket, { message: follow, open: settle, closed: settle });

let isWatched = false;
let timer = null;
let fresh = null;

function rowOf(id) {
  return find(`#result_list tr[data-id="${CSS.escape(id)}"]`);
}

function follow(message) {
  if (message.type === "activity") update(message.activity);
  if (message.type === "snapshot") message.activities.forEach(update);
}

/** Show progress in place; let the server render everything else. */
function update(item) {
  const row = rowOf(item.agent_id);
  if (!row) {
    if (Date.parse(item.created_at) > Date.parse(root.dataset.loadedAt)) refreshLater();
    return;
  }
  const isRunning = item.status === "running" && row.dataset.status === "running";
  const bar = row.querySelector(".ae-progress progress");
  if (!isRunning || !bar) {
    if (item.status !== row.dataset.status || (item.paused ?? "") !== row.dataset.paused) refreshLater();
    return;
  }
  const isWaiting = !row.querySelector('.ae-badge[data-status="running"]');
  if (isWaiting || item.waiting_for) {
    refreshLater();
    return;
  }
  if (item.percentage > bar.value) {
    bar.value = item.percentage;
    setText(row.querySelector(".ae-progress .ae-number"), `${item.percentage} %`);
  }
  const message = row.querySelector(".ae-message");
  if (message && item.latest_log_message) setText(message, item.latest_log_message);
}

function refreshLater() {
  timer ??= setTimeout(refresh, REFRESH_PAUSE);
}

/** Replace the rows that the page has by fresh ones, and count those that it does not have. */
async function refresh() {
  try {
    const response = await fetch(location.href, { credentials: "same-origin" });
    if (!response.ok || response.redirected) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const rows = [...page.querySelectorAll("#result_list tbody tr[data-id]")];
    const known = rows.filter((row) => rowOf(row.dataset.id));
    known.forEach(replaceRow);
    fresh = rows.length > known.length ? page : null;
    showNew.hidden = !fresh;
    if (fresh) {
      setText(showNew, text("show_new", { count: count(rows.length - known.length) }));
      announcer.announce(text("new_rows", { count: count(rows.length - known.length) }));
    }
    selection.update();
  } catch {
    // The next change asks again.
  } finally {
    timer = null;
  }
}

function replaceRow(row) {
  const present = rowOf(row.dataset.id);
  if (present.contains(document.activeElement) || present.isEqualNode(row)) return;
  const isChecked = present.querySelector(".action-select")?.checked;
  const next = document.adoptNode(row);
  const box = next.querySelector(".action-select");
  if (box) box.checked = Boolean(isChecked);
  present.replaceWith(next);
}

/** Show the fresh rows, with the selection kept. */
function showFresh() {
  const table = find("#result_list");
  const next = fresh?.querySelector("#result_list");
  if (!table || !next) {
    location.reload();
    return;
  }
  const checked = new Set([...root.querySelectorAll(".action-select:checked")].map((box) => box.value));
  const before = new Set([...table.querySelectorAll("tr[data-id]")].map((row) => row.dataset.id));
  const body = document.adoptNode(next.tBodies[0]);
  for (const row of body.rows) {
    row.toggleAttribute("data-is-new", !before.has(row.dataset.id));
    const box = row.querySelector(".action-select");
    if (box) box.checked = checked.has(box.value);
  }
  table.tBodies[0].replaceWith(body);
  fresh = null;
  showNew.hidden = true;
  selection.update();
}

function settle() {
  if (!root.dataset.socket) return;
  if (isWatched) feed.start();
  else feed.stop();
  const node = find("[data-connection]");
  if (feed.isOpen || !isWatched) showConnection(node, isWatched ? "live" : "paused");
  else node.hidden = true;
}

/** Update the durations of running activities. */
function tick() {
  for (const node of root.querySelectorAll("[data-since]")) setText(node, duration((Date.now() - Date.parse(node.dataset.since)) / 1000));
}

showNew.addEventListener("click", showFresh);
whileWatched(null, (wanted) => {
  isWatched = wanted;
  settle();
});
setInterval(tick, 1_000);
