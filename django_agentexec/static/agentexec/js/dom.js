/**
 * Elements without markup: texts of a run are inserted as text, and never parsed.
 * @module dom
 */

import { statusText, text } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new HTML element.
 * @param {string} tag
 * @param {Object<string, (string|number|boolean|null|undefined)>} [attributes] null and false are left out
 * @param {...(Node|string|number)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * A new SVG element.
 * @param {string} tag
 * @param {Object<string, (string|number|boolean|null|undefined)>} [attributes]
 * @param {...(Node|string|number)} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Set a text only if it differs, so that nothing is repainted or announced needlessly.
 * @param {Element} node
 * @param {string|number} value
 */
export function setText(node, value) {
  if (node.textContent !== String(value)) node.textContent = value;
}

/**
 * A status as a coloured word, as `columns.badge` writes it.
 * @param {string} status
 * @returns {HTMLElement}
 */
export function badge(status) {
  return element("span", { class: "ae-badge", "data-status": status }, statusText(status));
}

/**
 * The badge of a value that cannot be known at present, never a 0; in a narrow column a mark with the word behind it.
 * @param {boolean} [isNarrow]
 * @returns {HTMLElement}
 */
export function unknown(isNarrow = false) {
  const word = isNarrow ? element("span", { class: "ae-hidden" }, text("unknown")) : text("unknown");
  return element("span", { class: "ae-badge", "data-status": "unknown", title: text("unknown") }, word);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}
