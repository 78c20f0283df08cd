/**
 * Asks an address again and again while it is started; waits longer after errors.
 * @module poll
 */

const LONGEST_WAIT = 30_000;
const PATIENCE = 15_000;

/** The server has said that it will not answer this user. */
export class Refused extends Error {}

/**
 * The JSON at `url`.
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<object>}
 * @throws {Refused} when signed out or not permitted
 */
async function fetchJson(url, signal) {
  const response = await fetch(url, { signal, headers: { Accept: "application/json" }, credentials: "same-origin" });
  if (response.redirected || [401, 403, 404].includes(response.status)) throw new Refused(`${response.status}`);
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

/** One address, asked at an interval. */
export class Poller {
  #url;
  #interval;
  #handlers;
  #timer = null;
  #request = null;
  #failures = 0;

  /**
   * @param {function(): string} url
   * @param {number} interval milliseconds from an answer to the next question
   * @param {{data: function(object): void, failed: function(Error): void}} handlers
   */
  constructor(url, interval, handlers) {
    this.#url = url;
    this.#interval = interval;
    this.#handlers = handlers;
  }

  /** Whether it is asking. */
  get isStarted() {
    return this.#timer !== null || this.#request !== null;
  }

  /** Ask now, and go on asking. Does nothing when it is asking already. */
  start() {
    if (!this.isStarted) this.#ask();
  }

  /** Ask no more; an answer that is under way is thrown away. */
  stop() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#timer = this.#request = null;
  }

  async #ask() {
    const request = (this.#request = new AbortController());
    const late = setTimeout(() => request.abort(new Error("no answer")), PATIENCE);
    let error = null;
    try {
      const data = await fetchJson(this.#url(), request.signal);
      if (this.#request === request) this.#handlers.data(data);
    } catch (caught) {
      error = caught;
    } finally {
      clearTimeout(late);
    }
    if (this.#request !== request) return; // stopped meanwhile
    this.#request = null;
    this.#failures = error ? this.#failures + 1 : 0;
    if (error) this.#handlers.failed(error);
    if (error instanceof Refused) return;
    const wait = Math.min(this.#interval * 2 ** this.#failures, Math.max(LONGEST_WAIT, this.#interval));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#ask();
    }, error ? wait : this.#interval);
  }
}
