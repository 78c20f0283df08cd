/**
 * The timeline of one activity: new lines of the log, added below the ones that the server wrote.
 * @module timeline
 */

import { setText } from "./dom.js";
import { clock, moment } from "./format.js";

/**
 * Add lines that are not there yet.
 * @param {HTMLElement} root the page's element, which keeps the last id
 * @param {object[]} lines of the wire
 * @returns {boolean} whether a line belongs to an attempt that the page does not have
 */
export function addLines(root, lines) {
  for (const line of lines) {
    if (line.id <= Number(root.dataset.lastLogId)) continue;
    const list = root.querySelector(`.ae-attempt[data-attempt="${line.attempt}"]:last-child .ae-lines`);
    if (!list || line.traceback) return true;
    list.append(written(root, line));
    root.dataset.lastLogId = line.id;
  }
  return false;
}

function written(root, line) {
  const node = root.querySelector("template[data-line]").content.firstElementChild.cloneNode(true);
  const [time, text, percentage] = node.querySelectorAll("time, .ae-text, .ae-quiet");
  node.dataset.status = line.status;
  node.dataset.isNew = "";
  time.dateTime = line.created_at;
  time.title = moment(line.created_at);
  setText(time, clock(line.created_at, true));
  setText(text, line.truncated ? `${line.message}…` : line.message); // the page shows all of it when it is loaded again
  setText(percentage, `${line.percentage}%`);
  return node;
}
