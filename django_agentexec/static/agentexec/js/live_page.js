/**
 * Keeps a part of a page fresh: fetches the page again after messages of the feed, or at an interval without a feed.
 * @module live_page
 */

import { whileWatched } from "./attention.js";
import { showConnection } from "./connection.js";
import { Feed } from "./feed.js";

const PAUSE = 1_000; // milliseconds from a message to the request, in which further messages are collected
const POLL_EVERY = 10_000; // milliseconds, without a feed

/** The fresh content of the page that is open. */
export class LivePage {
  #options;
  #feed;
  #timer = null;
  #poll = null;
  #isWatched = false;
  #wasHidden = false;
  #isAway = false;

  /**
   * @param {object} options
   * @param {string} options.socket the path of the feed, or ""
   * @param {HTMLElement} options.connection shows the state of the connection
   * @param {function(object): boolean} options.concerns whether the page may have changed after an activity's change
   * @param {function(Document): void} options.apply takes the fresh page
   */
  constructor(options) {
    this.#options = options;
    const settle = () => this.#settle();
    this.#feed = new Feed(() => options.socket, { message: (message) => this.#received(message), open: settle, closed: settle });
    whileWatched(null, (wanted) => {
      const isBack = wanted && this.#wasHidden;
      this.#isWatched = wanted;
      this.#wasHidden ||= !wanted;
      this.#settle();
      if (isBack) this.refreshSoon();
    });
  }

  /** Fetch the page soon; further calls until then make no further request. */
  refreshSoon() {
    this.#timer ??= setTimeout(() => this.#refresh(), PAUSE);
  }

  #received(message) {
    // A snapshot follows each new connection: changes before it are unknown.
    if (message.type === "snapshot" || (message.type === "activity" && this.#options.concerns(message.activity))) this.refreshSoon();
  }

  async #refresh() {
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      this.#isAway = !response.ok || response.redirected;
      if (!this.#isAway) this.#options.apply(new DOMParser().parseFromString(await response.text(), "text/html"));
    } catch {
      this.#isAway = true; // the next change, or the next interval, tries again
    } finally {
      this.#timer = null;
      this.#settle();
    }
  }

  #settle() {
    const { socket, connection } = this.#options;
    if (this.#isWatched) this.#feed.start();
    else this.#feed.stop();
    if (this.#isWatched && !this.#feed.isOpen) this.#poll ??= setInterval(() => this.refreshSoon(), POLL_EVERY);
    else {
      clearInterval(this.#poll);
      this.#poll = null;
    }
    if (!this.#isWatched) showConnection(connection, "paused");
    else if (this.#isAway) showConnection(connection, "away");
    else showConnection(connection, socket && this.#feed.isOpen ? "live" : "polling");
  }
}
