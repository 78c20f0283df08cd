/**
 * Two charts as SVG: ended activities, and queue waits.
 * @module charts
 */

import { svg } from "./dom.js";
import { clock, count, duration } from "./format.js";
import { statusText, text } from "./text.js";

const HEIGHT = 150;
const LEFT = 62; // room for the scale's labels
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22; // room for the times
const STATUSES = ["complete", "error", "canceled"];
const SHOWN_TIMES = [0, 0.25, 0.5, 0.75]; // of the width

/**
 * Draw how many activities ended in each minute, by status.
 * @param {SVGElement} node
 * @param {object[]} minutes
 * @param {string} [end] the time of the last minute
 */
export function drawThroughput(node, minutes, end = text("now")) {
  const sums = minutes.map((minute) => STATUSES.reduce((sum, status) => sum + minute[status], 0));
  const frame = begin(node, minutes, niceCeiling(Math.max(0, ...sums), 4), count, end);
  minutes.forEach((minute, index) => {
    const group = svg("g", {}, svg("title", {}, `${clock(minute.start)}: ${STATUSES.map((s) => `${minute[s]} ${statusText(s)}`).join(", ")}`),
      svg("rect", { class: "ae-hit", x: frame.x(index), y: TOP, width: frame.step, height: HEIGHT - TOP - BOTTOM }));
    let below = 0;
    for (const status of STATUSES) {
      if (!minute[status]) continue;
      const [top, bottom] = [frame.y(below + minute[status]), frame.y(below)];
      group.append(svg("rect", { "data-status": status, x: frame.x(index) + frame.step * 0.12, y: top, width: frame.step * 0.76, height: Math.max(bottom - top, 1) }));
      below += minute[status];
    }
    node.append(group);
  });
  const totals = STATUSES.map((status) => `${count(minutes.reduce((sum, minute) => sum + minute[status], 0))} ${statusText(status)}`);
  finish(node, sums.some(Boolean), text("throughput_none"),
    text("throughput_summary", { totals: totals.join(", "), most: count(Math.max(0, ...sums)) }));
}

/**
 * Draw the queue wait of the activities that started in each minute: p50 and p95.
 * @param {SVGElement} node
 * @param {object[]} minutes
 * @param {string} [end] the time of the last minute
 */
export function drawWaits(node, minutes, end = text("now")) {
  const waits = minutes.flatMap((minute) => [minute.wait_p50, minute.wait_p95]).filter((value) => value !== null);
  const longest = Math.max(0, ...waits);
  const frame = begin(node, minutes, niceCeiling(longest, 1), (value) => (value ? duration(value) : "0"), end);
  drawLine(node, frame, minutes.map((minute) => minute.wait_p95), "queued");
  drawLine(node, frame, minutes.map((minute) => minute.wait_p50), "running");
  minutes.forEach((minute, index) => {
    if (minute.wait_p50 === null) return;
    const title = text("wait_of_bar", { time: clock(minute.start), p50: duration(minute.wait_p50), p95: duration(minute.wait_p95) });
    node.append(svg("g", {}, svg("title", {}, title), svg("rect", { class: "ae-hit", x: frame.x(index), y: TOP, width: frame.step, height: HEIGHT - TOP - BOTTOM })));
  });
  finish(node, waits.length > 0, text("waits_none"), text("waits_summary", { longest: duration(longest) }));
}

/**
 * Draw an empty chart with the note that its values are unknown.
 * @param {SVGElement} node
 */
export function drawUnknown(node) {
  begin(node, [], 1, () => "", "");
  finish(node, false, text("chart_unknown"), "");
}

/** A number not below `value` that makes an even scale. */
function niceCeiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * power).find((ceiling) => ceiling >= wanted - 1e-9);
}

function begin(node, minutes, ceiling, label, end) {
  const width = Math.max(node.parentElement.clientWidth, 240);
  const step = (width - LEFT - RIGHT) / Math.max(minutes.length, 1);
  const frame = { step, x: (index) => LEFT + index * step, y: (value) => HEIGHT - BOTTOM - (value / ceiling) * (HEIGHT - TOP - BOTTOM) };
  node.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  node.replaceChildren();
  for (const value of [0, ceiling / 2, ceiling]) {
    node.append(svg("line", { class: "ae-grid", x1: LEFT, x2: width - RIGHT, y1: frame.y(value), y2: frame.y(value) }),
      svg("text", { x: LEFT - 6, y: frame.y(value) + 4, "text-anchor": "end" }, label(value)));
  }
  for (const index of minutes.length ? SHOWN_TIMES.map((share) => Math.floor(share * minutes.length)) : []) {
    node.append(svg("text", { x: frame.x(index), y: HEIGHT - 6 }, clock(minutes[index].start)));
  }
  node.append(svg("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, end));
  return frame;
}

function drawLine(node, frame, values, status) {
  let path = "";
  values.forEach((value, index) => {
    if (value === null) return;
    const [x, y] = [frame.x(index) + frame.step / 2, frame.y(value)];
    path += `${index && values[index - 1] !== null ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    node.append(svg("circle", { "data-status": status, cx: x, cy: y, r: 2 }));
  });
  node.append(svg("path", { "data-status": status, d: path }));
}

function finish(node, hasData, ifEmpty, summary) {
  if (!hasData) node.append(svg("text", { class: "ae-empty", x: "50%", y: HEIGHT / 2, "text-anchor": "middle" }, ifEmpty));
  node.setAttribute("aria-label", hasData ? summary : ifEmpty);
}
