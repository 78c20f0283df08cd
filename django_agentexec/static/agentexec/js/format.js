/**
 * Texts for numbers, time spans and times; `admin/formatting.py` writes spans alike.
 * @module format
 */

import { LANGUAGE, unit } from "./text.js";

const UNITS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];

/**
 * A time span in its two largest units, such as "1.4 s" or "3 min 4 s".
 * @param {?number} seconds
 * @returns {string} "–" for null
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${decimal(Math.max(0, seconds))} ${unit("s")}`;
  const whole = Math.floor(seconds);
  for (const [size, name, below, belowName] of UNITS) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / below);
    return `${Math.floor(whole / size)} ${unit(name)}` + (rest ? ` ${rest} ${unit(belowName)}` : "");
  }
  return `${whole} ${unit("s")}`;
}

/**
 * A time span in its largest unit, such as "12 s" or "3 min".
 * @param {?number} seconds
 * @returns {string} "–" for null
 */
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, name] of UNITS) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit(name)}`;
  }
  return `${whole} ${unit("s")}`;
}

/**
 * A number with one decimal.
 * @param {number} value
 * @returns {string}
 */
export function decimal(value) {
  return value.toLocaleString(LANGUAGE, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/**
 * A whole number with its thousands set apart.
 * @param {number} value
 * @returns {string}
 */
export function count(value) {
  return value.toLocaleString(LANGUAGE);
}

/** The zone of all times: the server's current one, as the page names it; the browser's where it does not know that. */
const ZONE = knownZone(document.querySelector("[data-time-zone]")?.dataset.timeZone);

/**
 * The time of day, with seconds or without, in the server's zone.
 * @param {string} iso
 * @param {boolean} [seconds]
 * @returns {string}
 */
export function clock(iso, seconds = false) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zoneOf(iso) };
  if (seconds) options.second = "2-digit";
  return new Date(iso).toLocaleTimeString("en-GB", options);
}

/**
 * Date, time of day and zone, for titles.
 * @param {string} iso
 * @returns {string}
 */
export function moment(iso) {
  const day = new Date(iso).toLocaleDateString("en-CA", { timeZone: zoneOf(iso) });
  return `${day} ${clock(iso, true)} ${ZONE ?? ""}`.trim();
}

/** A time without an offset is already in the server's zone: it is shown as it is. */
function zoneOf(iso) {
  return /(Z|[+-]\d\d:?\d\d)$/.test(iso) ? ZONE : undefined;
}

function knownZone(name) {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name || undefined }).resolvedOptions() && (name || undefined);
  } catch {
    return undefined;
  }
}

/**
 * Seconds from a time until now.
 * @param {?string} iso
 * @returns {?number}
 */
export function since(iso) {
  return iso ? (Date.now() - Date.parse(iso)) / 1000 : null;
}

/**
 * The beginning of an id, as far as it is time and counter.
 * @param {string} id
 * @returns {string}
 */
export function shortId(id) {
  return id.slice(0, 18);
}
