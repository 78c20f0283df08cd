/**
 * The trace of an activity: loads the content of a call when its row opens, follows calls, and shows streaming text.
 *
 * The server renders the rows. After events of calls the card is fetched again, at most once a second.
 * @module trace
 */

import { element } from "./dom.js";

const REFRESH_AFTER = 1_000;
const MAX_STREAM = 5_000; // characters of streaming text in a row

const card = () => document.querySelector("[data-trace]");
const loaded = new Map();
const streams = new Map();
let timer = null;
let filter = null;

/**
 * Take a message of the activity's feed.
 * @param {object} message
 */
export function receive(message) {
  const call = message.call;
  if (call?.kind === "model") streams.delete(call.agent);
  if (call) {
    loaded.delete(call.id);
    refreshSoon();
  }
  if (message.type === "rewind" || message.type === "retract") streams.clear();
  if (message.type === "delta") {
    const label = message.label ?? "";
    streams.set(label, ((streams.get(label) ?? "") + message.text).slice(-MAX_STREAM));
    showStreams();
  }
}

/** Fetch the card again soon, for changes without an event. */
export function refreshSoon() {
  if (!card()) return;
  timer ??= setTimeout(refresh, REFRESH_AFTER);
}

/**
 * Return which rows are open, to open them again in fresh content.
 * @returns {Map<string, boolean>}
 */
export function openRows() {
  return new Map([...document.querySelectorAll("[data-call]")].map((row) => [row.dataset.call, row.open]));
}

/**
 * Open the rows that were open before.
 * @param {Map<string, boolean>} rows
 */
export function restore(rows) {
  for (const row of document.querySelectorAll("[data-call]")) {
    if (rows.has(row.dataset.call)) row.open = rows.get(row.dataset.call);
    if (row.open) load(row);
  }
  prepare();
  showStreams();
}

async function refresh() {
  timer = null;
  const before = card();
  if (!before) return;
  const query = filter === null ? new URLSearchParams(location.search).get("calls") ?? "" : filter;
  try {
    const response = await fetch(`${before.dataset.traceUrl}?calls=${encodeURIComponent(query)}`, { credentials: "same-origin" });
    if (!response.ok || response.redirected) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[data-trace]");
    if (!fresh || !card()) return;
    const rows = openRows();
    card().replaceWith(fresh);
    restore(rows);
  } catch {
    // the next event tries again
  }
}

/** Load the content of an open row, once. */
async function load(row) {
  const place = row.querySelector(":scope > [data-content]");
  const id = row.dataset.call;
  if (!place || place.dataset.isLoaded !== undefined) return;
  place.dataset.isLoaded = "";
  try {
    if (!loaded.has(id)) {
      const response = await fetch(`${place.dataset.content}?part=1`, { credentials: "same-origin" });
      if (!response.ok || response.redirected) throw new Error(`${response.status}`);
      const text = await response.text();
      if (row.dataset.state !== "running") loaded.set(id, text);
      fill(place, text);
    } else fill(place, loaded.get(id));
  } catch {
    delete place.dataset.isLoaded; // the link to the content stays
  }
}

function fill(place, text) {
  const stream = place.querySelector(".ae-stream");
  place.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  if (stream) place.prepend(stream);
}

/** Show the streaming text inside the rows of the running model calls. */
function showStreams() {
  const rows = [...document.querySelectorAll('[data-call][data-kind="model"][data-state="running"]')];
  for (const [label, text] of streams) {
    const row = rows.find((each) => each.dataset.agent === label) ?? rows.at(-1);
    const place = row?.querySelector(":scope > .ae-open");
    if (!place) continue;
    let stream = place.querySelector(".ae-stream");
    if (!stream) {
      stream = element("p", { class: "ae-stream", "aria-live": "off" });
      place.prepend(stream);
      row.open = true;
    }
    stream.textContent = text;
  }
}

function prepare() {
  const button = document.querySelector("[data-open-all]");
  if (button) button.hidden = false;
}

async function copy(link) {
  const response = await fetch(link.href, { credentials: "same-origin" });
  await navigator.clipboard.writeText(await response.text());
}

document.addEventListener("toggle", ({ target }) => {
  if (target.matches?.("[data-call]") && target.open) load(target);
}, true);

document.addEventListener("click", (event) => {
  const target = event.target.closest?.("[data-open-all], [data-copy], [data-filter]");
  if (!target) return;
  if (target.matches("[data-open-all]")) {
    for (const row of card().querySelectorAll("[data-call]")) row.open = true;
  } else if (target.matches("[data-copy]")) {
    if (!navigator.clipboard) return; // the link leads to the JSON
    event.preventDefault();
    copy(target);
  } else {
    event.preventDefault();
    filter = target.dataset.filter;
    refresh();
  }
});

restore(new Map());
