/**
 * Pauses on the dashboard: a mark beside what is paused, and the button or link that resumes or pauses it.
 * @module pauses
 */

import { element } from "./dom.js";
import { moment } from "./format.js";
import { text } from "./text.js";

/**
 * Return the pause of a queue or task, or undefined.
 * @param {object[]} pauses of the overview
 */
export function pauseOf(pauses, scope, name) {
  return pauses.find((pause) => pause.scope === scope && pause.name === name);
}

/** The mark of a pause, with the user, the time and the reason in small print. */
export function pauseMark(pause) {
  const by = pause.by ? text("paused_by", { by: pause.by }) : "";
  const details = [by, pause.reason].filter(Boolean).join(" · ");
  return [
    element("span", { class: "ae-mark", "data-status": "paused", title: moment(pause.since) }, text("is_paused")),
    details ? element("span", { class: "ae-quiet ae-small ae-paused-by" }, details) : "",
  ];
}

/** The button that resumes `target` ("queue:mail"), which belongs to the form of the page. */
export function resumeButton(target, title) {
  return element("button", { type: "submit", form: "ae-resume", name: "target", value: target, class: "ae-button", "data-size": "s",
    "data-focus": `resume ${target}`, "aria-label": `${text("resume")}: ${title}` }, text("resume"));
}

/**
 * The button or link for a queue or task; nothing without the permission.
 * @param {?object} pause of it
 * @param {boolean} mayPause
 */
export function pauseControl(scope, name, pause, mayPause) {
  if (pause) return pause.may_resume ? resumeButton(`${scope}:${name}`, pause.title) : "";
  if (!mayPause) return "";
  const query = new URLSearchParams({ scope, name, next: location.pathname + location.search });
  const url = `${document.getElementById("ae-dashboard").dataset.pauseUrl}?${query}`;
  return element("a", { href: url, class: "ae-button", "data-size": "s", "data-focus": `pause ${scope}:${name}`,
    "aria-label": `${text("pause")} ${name}` }, text("pause"));
}

/**
 * Write marks and controls into the rows of tasks.
 * @param {Iterable<HTMLElement>} rows with `data-task`
 * @param {object[]} pauses
 */
export function writeTaskPauses(rows, pauses) {
  for (const row of rows) {
    const name = row.dataset.task;
    const pause = pauseOf(pauses, "task", name);
    const key = JSON.stringify(pause ?? null);
    if (row.dataset.pauseKey === key) continue; // a focused button stays
    row.dataset.pauseKey = key;
    row.querySelector("[data-paused]").replaceChildren(...(pause ? pauseMark(pause) : []));
    row.querySelector("[data-pausing]").replaceChildren(pauseControl("task", name, pause, "mayPause" in row.dataset));
  }
}
