/**
 * The texts of the page's language. The server translates them and hands them over as JSON.
 * @module text
 */

const TEXTS = JSON.parse(document.getElementById("ae-texts")?.textContent ?? "{}");

/**
 * Return a text with its placeholders filled.
 * @param {string} key
 * @param {Object<string, string|number>} [values]
 * @returns {string}
 */
export function text(key, values = {}) {
  return (TEXTS[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/**
 * Return the word for a status.
 * @param {string} status
 * @returns {string}
 */
export function statusText(status) {
  return TEXTS.status?.[status] ?? status;
}

/**
 * Return the abbreviation of a unit of time.
 * @param {string} name `s`, `min`, `h` or `d`
 * @returns {string}
 */
export function unit(name) {
  return TEXTS.units?.[name] ?? name;
}

/** The language of numbers, as the browser names it. */
export const LANGUAGE = knownLanguage(document.querySelector("[data-language]")?.dataset.language);

function knownLanguage(name) {
  try {
    return Intl.getCanonicalLocales(name || "en")[0];
  } catch {
    return "en";
  }
}
