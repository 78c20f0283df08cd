/**
 * The state of the page's connection in a word, and announcements for screen readers.
 * @module connection
 */

import { setText } from "./dom.js";
import { text } from "./text.js";

/**
 * Show one of the states `live`, `polling`, `paused`, `away`, `outage`, `refused`.
 * @param {HTMLElement} node
 * @param {string} state
 */
export function showConnection(node, state) {
  node.hidden = false;
  node.dataset.state = state;
  setText(node, text(state));
}

/** Announces at most one text in `pause` milliseconds: the latest. */
export class Announcer {
  #node;
  #pause;
  #timer = null;
  #next = "";

  /**
   * @param {HTMLElement} node an element with the role `status`
   * @param {number} [pause]
   */
  constructor(node, pause = 10_000) {
    this.#node = node;
    this.#pause = pause;
  }

  /**
   * @param {string} news
   */
  announce(news) {
    this.#next = news;
    if (this.#timer) return;
    setText(this.#node, news);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#next !== news) this.announce(this.#next);
    }, this.#pause);
  }
}
