// Follows activities over a websocket, resumes after the last received position, and polls while there is no socket.
// Used by run.js and runs.js.

const FIRST_DELAY = 250; // milliseconds before the first try to connect again; doubled with each further try
const MAX_DELAY = 8000;
const TRIES_BEFORE_POLLING = 2;
const POLL_INTERVAL = 1500;
const SILENCE = 45000; // the server pings every 20 s: a connection that is silent for longer is broken
const FINAL_CODES = { 4401: "You are signed out.", 4403: "You have no permission to follow this run.", 4404: "This run was deleted." };

export class Live {
  /**
   * @param path of the websocket
   * @param pollUrl of the REST page to poll while there is no websocket
   * @param onMessage called with each message of the server, and with the answer of a poll as {type: "poll", body}
   * @param onState called with "live", "waiting", "polling" or "ended", and a text to show
   * @param resume returns the query with the last received position, such as "after=17"
   */
  constructor({ path, pollUrl, onMessage, onState, resume = () => "" }) {
    Object.assign(this, { path, pollUrl, onMessage, onState, resume });
    this.failures = 0;
    this.request = 0;
    this.answers = new Map();
    document.addEventListener("visibilitychange", () => this.#wake());
    window.addEventListener("pagehide", () => this.socket?.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.connect());
    this.connect();
  }

  connect() {
    clearTimeout(this.again);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const query = this.resume();
    const socket = new WebSocket(`${scheme}//${location.host}${this.path}${query && `?${query}`}`);
    this.socket = socket;
    socket.onmessage = (event) => this.socket === socket && this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.socket === socket && this.#closed(event);
    this.#watchSilence();
  }

  /** Send a command, such as {cancel: id}; resolves when it is done, rejects with the server's reason. */
  ask(what) {
    if (this.socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected"));
    const request = ++this.request;
    return new Promise((done, failed) => {
      this.answers.set(request, { done, failed });
      this.socket.send(JSON.stringify({ ...what, request }));
    });
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  #receive(message) {
    this.failures = 0;
    this.#watchSilence();
    this.#stopPolling();
    this.onState("live", "Live");
    const answer = this.answers.get(message.request);
    if (message.type === "done") answer?.done();
    else if (message.type === "error") answer?.failed(new Error(message.message));
    if (answer) this.answers.delete(message.request);
    if (!["done", "error", "ping"].includes(message.type)) this.onMessage(message);
  }

  #closed(event) {
    clearTimeout(this.silence);
    for (const { failed } of this.answers.values()) failed(new Error("The connection was lost."));
    this.answers.clear();
    if (event.code in FINAL_CODES) {
      this.#stopPolling();
      this.onState("ended", FINAL_CODES[event.code]);
      return;
    }
    this.failures += 1;
    const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** (this.failures - 1)) * (0.75 + Math.random() / 2);
    this.again = setTimeout(() => this.connect(), delay);
    if (this.failures >= TRIES_BEFORE_POLLING) this.#startPolling();
    else this.onState("waiting", "Connecting again");
  }

  #watchSilence() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.socket.close(), SILENCE);
  }

  #wake() {
    if (document.hidden || this.isOpen) return;
    this.failures = Math.min(this.failures, TRIES_BEFORE_POLLING);
    if (this.polling) this.#poll();
  }

  #startPolling() {
    if (this.polling) return;
    this.polling = setInterval(() => this.#poll(), POLL_INTERVAL);
    this.#poll();
  }

  #stopPolling() {
    clearInterval(this.polling);
    this.polling = null;
  }

  async #poll() {
    if (document.hidden) return; // the page is not visible
    try {
      const response = await fetch(this.pollUrl, { headers: { Accept: "application/json" } });
      if (!response.ok) throw new Error(response.statusText);
      const body = await response.json();
      if (!this.polling) return; // the socket is connected again, and its messages are newer
      this.onMessage({ type: "poll", body });
      this.onState("polling", "Looking every few seconds");
    } catch {
      this.onState("waiting", "The server does not answer; trying again");
    }
  }
}

/** Show a status in its element: text and class. */
export function showStatus(element, status) {
  element.textContent = status;
  element.className = `status ${status}`;
}

/** Show progress in an element of the class `bar`. */
export function showProgress(bar, percentage) {
  bar.setAttribute("aria-valuenow", percentage);
  bar.firstElementChild.style.width = `${percentage}%`;
}

/** Show how the page is connected. */
export function connectionShower(element) {
  return (state, text) => {
    if (element.dataset.state === state && element.textContent === text) return;
    element.dataset.state = state;
    element.textContent = text;
  };
}
