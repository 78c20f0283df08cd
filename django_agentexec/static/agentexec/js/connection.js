/**
 * The small word that tells how fresh a page is, and the polite voice for screen readers.
 * @module connection
 */

import { setText } from "./dom.js";

const WORDS = {
  live: "Live",
  polling: "Updating",
  paused: "Paused",
  away: "No connection, trying again",
  outage: "No connection to Redis, retrying every 5 s",
  refused: "Signed out or not permitted; reload the page",
};

/**
 * Show one of the states `live`, `polling`, `paused`, `away`, `outage`, `refused`.
 * @param {HTMLElement} node
 * @param {string} state
 */
export function showConnection(node, state) {
  node.hidden = false;
  node.dataset.state = state;
  setText(node, WORDS[state]);
}

/** Says something when it is news, and at most once in `pause` milliseconds: the latest, not everything. */
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
   * @param {string} text
   */
  say(text) {
    this.#next = text;
    if (this.#timer) return;
    setText(this.#node, text);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#next !== text) this.say(this.#next);
    }, this.#pause);
  }
}
