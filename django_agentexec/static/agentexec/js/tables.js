/**
 * The tables of the dashboard: workers, queues, and the minutes in numbers.
 * @module tables
 */

import { element, unknown } from "./dom.js";
import { age, clock, count, decimal, duration, moment, since } from "./format.js";
import { pauseControl, pauseMark, pauseOf } from "./pauses.js";
import { text } from "./text.js";

let pressed = null; // the element on which the pointer was pressed and not yet released
addEventListener("pointerdown", (event) => { pressed = event.target; });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { pressed = null; }));

const BREAKERS = {
  closed: ["complete", "model_available"],
  half_open: ["attention", "model_half_open"],
  open: ["error", "model_open"],
};

/**
 * Write one row per worker. While the workers are unknown, the last known workers are shown without their state.
 * @param {HTMLTableElement} table
 * @param {?object[]} workers null: unknown
 * @param {object[]} lastKnown
 */
export function writeWorkers(table, workers, lastKnown) {
  if (workers === null) {
    const rows = lastKnown.map((worker) => workerRow(worker, null, unknown(), () => unknown(true), time(worker.last_beat_at, clock(worker.last_beat_at, true))));
    write(table, rows, text("workers_unknown"));
    return;
  }
  const rows = workers.map((worker) => workerRow(worker, worker.is_alive ? null : "no-heartbeat", load(worker), count,
    time(worker.last_beat_at, worker.is_alive ? text("ago", { age: age(since(worker.last_beat_at)) }) : text("no_heartbeat_for", { age: age(since(worker.last_beat_at)) }))));
  write(table, rows, text("no_worker"));
}

function workerRow(worker, state, busy, written, heartbeat) {
  return row(state, [
    head(element("span", { class: "ae-task" }, worker.host), " ", element("span", { class: "ae-id ae-number" }, text("pid", { pid: worker.pid })),
      worker.quarantine ? element("span", { class: "ae-mark" }, text("quarantine")) : ""),
    cell({}, busy),
    cell({}, worker.queues.join(", ")),
    cell({ class: "ae-number" }, written(worker.done)),
    cell({ class: "ae-number" }, written(worker.failed)),
    cell({ class: "ae-number" }, heartbeat),
  ]);
}

/**
 * Write one row per queue. While Redis is unavailable, values that only Redis has are null, and shown as unknown.
 * @param {HTMLTableElement} table
 * @param {object[]} queues
 * @param {object[]} pauses rows of the database, so they are always known
 */
export function writeQueues(table, queues, pauses) {
  const rows = queues.map((queue) => queueRow(queue, pauseOf(pauses, "queue", queue.name)));
  write(table, rows, text("no_queue"));
}

function queueRow(queue, pause) {
  return row(null, [
    head(element("span", { class: "ae-task" }, queue.name), " ", ...(pause ? pauseMark(pause) : [])),
    number(queue.pending === null ? queue.waiting_rows : queue.pending + queue.suspects),
    number(queue.running ?? queue.running_rows),
    number(queue.delayed),
    number(queue.dead),
    cell({ class: "ae-number" }, age(queue.oldest_age)),
    cell({ class: "ae-number" }, queue.per_minute === null ? unknown(true) : decimal(queue.per_minute)),
    cell({ class: "ae-action", "data-label": "" }, pauseControl("queue", queue.name, pause, queue.may_pause)),
  ]);
}

/**
 * Write one row per model that has a circuit breaker; its card is hidden if there is none, or while they are unknown.
 * @param {HTMLTableElement} table
 * @param {?object[]} breakers null: unknown
 */
export function writeModels(table, breakers) {
  table.closest("[data-models-card]").hidden = !breakers?.length;
  const rows = (breakers ?? []).map((breaker) => {
    const [status, label] = BREAKERS[breaker.state] ?? ["unknown", "unknown"];
    const more = breaker.state === "open" ? [text("trial_in", { time: duration(breaker.retry_in) }), breaker.reason] : [];
    return row(null, [
      head(element("span", { class: "ae-task" }, breaker.name)),
      cell({}, element("span", { class: "ae-badge", "data-status": status }, text(label)),
        more.length ? element("span", { class: "ae-quiet ae-small ae-paused-by" }, more.filter(Boolean).join(" · ")) : ""),
      cell({ class: "ae-number" }, breaker.calls ? text("of", { part: count(breaker.failures), whole: count(breaker.calls) }) : ""),
    ]);
  });
  write(table, rows, "");
}

/**
 * Write one row per bar of the charts, the latest first.
 * @param {HTMLTableElement} table
 * @param {object[]} minutes
 */
export function writeMinutes(table, minutes) {
  const rows = [...minutes].reverse().map((minute) => row(null, [
    head(time(minute.start, clock(minute.start))),
    ...[minute.enqueued, minute.complete, minute.error, minute.canceled].map((value) => number(value)),
    ...[minute.wait_p50, minute.wait_p95].map((value) => cell({ class: "ae-number" }, duration(value))),
  ]));
  write(table, rows, text("no_minutes"));
}

function load(worker) {
  const share = worker.concurrency ? Math.round((100 * worker.running) / worker.concurrency) : 0;
  return element("span", { class: "ae-progress", "data-status": "running" },
    element("progress", { max: 100, value: share, "aria-label": text("load_of", { host: worker.host, pid: worker.pid }) }),
    element("span", { class: "ae-number" }, text("of", { part: worker.running, whole: worker.concurrency })));
}

function write(table, rows, ifEmpty) {
  if (table.contains(pressed)) return; // its click would be lost; the next poll writes
  const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  for (const written of rows) {
    [...written.cells].slice(1).forEach((cell, index) => { cell.dataset.label ??= titles[index + 1]; });
  }
  const empty = element("tr", { role: "row" }, element("td", { role: "cell", colspan: titles.length, class: "ae-quiet" }, ifEmpty));
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  table.tBodies[0].replaceChildren(...(rows.length ? rows : [empty]));
  if (focused) table.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function row(state, cells) {
  return element("tr", { role: "row", "data-state": state }, ...cells);
}

function head(...children) {
  return element("th", { role: "rowheader", scope: "row" }, ...children);
}

function cell(attributes, ...children) {
  return element("td", { role: "cell", ...attributes }, ...children);
}

function number(value) {
  return cell({ class: "ae-number" }, value === null ? unknown(true) : count(value));
}

function time(iso, shown) {
  return element("time", { datetime: iso, title: moment(iso) }, shown);
}
