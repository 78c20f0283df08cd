/**
 * The live feed over a websocket: connects, resumes at its position, and reconnects with growing pauses.
 * @module feed
 */

const FIRST_WAIT = 1_000;
const MAX_WAIT = 30_000;
const PING_TIMEOUT = 45_000; // the server pings every 20 s: two pings are missing
const MAX_ATTEMPTS = 3; // with a server that has never accepted a connection: it has no websockets
const TOO_SLOW = 4408; // reconnect at once, and catch up
const FINAL_CODES = [4401, 4403, 4404]; // not signed in, forbidden, no such activity

/** A connection that reconnects while it is started. */
export class Feed {
  #path;
  #handlers;
  #socket = null;
  #timer = null;
  #pingTimer = null;
  #failures = 0;
  #wasOpen = false;
  #isGivenUp = false;
  #seq = 0;

  /**
   * @param {function(): string} path with the position to resume at; "" where there is no feed
   * @param {{message: function(object): void, open: function(): void, closed: function(): void}} handlers
   */
  constructor(path, handlers) {
    this.#path = path;
    this.#handlers = handlers;
  }

  /** Whether messages can arrive. */
  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Connect, unless it is connected or has given up. */
  start() {
    if (this.#socket || this.#timer || this.#isGivenUp || !this.#path()) return;
    this.#connect();
  }

  /** Close, and stay closed until `start`. */
  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#pingTimer);
    const socket = this.#socket;
    this.#timer = this.#socket = null;
    socket?.close(1000);
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.#socket = new WebSocket(`${scheme}://${location.host}${this.#path()}`));
    this.#seq = 0;
    socket.addEventListener("open", () => this.#opened(socket));
    socket.addEventListener("message", (event) => this.#received(socket, event.data));
    socket.addEventListener("close", (event) => this.#closed(socket, event.code));
  }

  #opened(socket) {
    if (socket !== this.#socket) return;
    this.#wasOpen = true;
    this.#restartPingTimer();
    this.#handlers.open();
  }

  #received(socket, text) {
    if (socket !== this.#socket) return;
    this.#restartPingTimer();
    const message = JSON.parse(text);
    if (message.seq !== this.#seq + 1) {
      socket.close(1000); // a message is missing: the snapshot of a new connection includes it
      return;
    }
    this.#seq = message.seq;
    this.#failures = 0;
    if (message.type === "ping") socket.send(JSON.stringify({ type: "pong" }));
    else this.#handlers.message(message);
  }

  #closed(socket, code) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#pingTimer);
    this.#socket = null;
    this.#failures += 1;
    this.#isGivenUp = FINAL_CODES.includes(code) || (!this.#wasOpen && this.#failures >= MAX_ATTEMPTS);
    if (!this.#isGivenUp) this.#connectLater(code === TOO_SLOW ? 0 : this.#wait());
    this.#handlers.closed(); // last: the handler may call `start`, which must find the timer
  }

  #wait() {
    return Math.min(FIRST_WAIT * 2 ** (this.#failures - 1), MAX_WAIT) * (0.5 + Math.random());
  }

  #connectLater(wait) {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#connect();
    }, wait);
  }

  #restartPingTimer() {
    clearTimeout(this.#pingTimer);
    this.#pingTimer = setTimeout(() => this.#socket?.close(), PING_TIMEOUT);
  }
}
