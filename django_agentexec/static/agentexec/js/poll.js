/**
 * Polls an address while it is started; waits longer after errors.
 * @module poll
 */

const MAX_WAIT = 30_000;
const TIMEOUT = 15_000;

/** The server refuses to answer this user. */
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

/** Polls one address at an interval. */
export class Poller {
  #url;
  #interval;
  #handlers;
  #timer = null;
  #request = null;
  #failures = 0;

  /**
   * @param {function(): string} url
   * @param {number} interval milliseconds from a response to the next request
   * @param {{data: function(object): void, failed: function(Error): void}} handlers
   */
  constructor(url, interval, handlers) {
    this.#url = url;
    this.#interval = interval;
    this.#handlers = handlers;
  }

  /** Whether it polls. */
  get isStarted() {
    return this.#timer !== null || this.#request !== null;
  }

  /** Poll now and at the interval. Does nothing when it polls already. */
  start() {
    if (!this.isStarted) this.#poll();
  }

  /** Stop polling; a pending response is discarded. */
  stop() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#timer = this.#request = null;
  }

  async #poll() {
    const request = (this.#request = new AbortController());
    const late = setTimeout(() => request.abort(new Error("timeout")), TIMEOUT);
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
    const wait = Math.min(this.#interval * 2 ** this.#failures, Math.max(MAX_WAIT, this.#interval));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#poll();
    }, error ? wait : this.#interval);
  }
}
