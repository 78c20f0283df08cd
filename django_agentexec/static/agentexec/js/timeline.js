/**
 * The messages of one activity: new lines of the log, added below those that the server rendered.
 * @module timeline
 */

import { setText } from "./dom.js";
import { clock, duration, moment } from "./format.js";

/**
 * Add the lines that the page does not have yet.
 * @param {HTMLElement} root the page's element, which keeps the last id
 * @param {object[]} lines of the wire
 * @returns {boolean} whether a line belongs to an attempt that the page does not have
 */
export function addLines(root, lines) {
  for (const line of lines) {
    if (line.id <= Number(root.dataset.lastLogId)) continue;
    const list = root.querySelector(`.ae-attempt[data-attempt="${line.attempt}"]:last-child .ae-lines`);
    if (!list || line.traceback) return true;
    showLasted(root, line);
    list.append(render(root, line));
    root.dataset.lastLogId = line.id;
  }
  return false;
}

/** Show beside the last line how long it took until `line`. */
function showLasted(root, line) {
  const last = [...root.querySelectorAll(".ae-lines > li")].at(-1);
  const start = last?.querySelector("time")?.dateTime;
  if (start) setText(last.querySelector(".ae-lasted"), `+ ${duration((Date.parse(line.created_at) - Date.parse(start)) / 1000)}`);
}

function render(root, line) {
  const node = root.querySelector("template[data-line]").content.firstElementChild.cloneNode(true);
  const [time, text] = node.querySelectorAll("time, .ae-text");
  node.dataset.status = line.status;
  node.dataset.isNew = "";
  time.dateTime = line.created_at;
  time.title = moment(line.created_at);
  setText(time, clock(line.created_at, true));
  setText(text, line.truncated ? `${line.message}…` : line.message); // the whole message is shown after a reload
  return node;
}
