/**
 * The live feed over a websocket: connects, reads on where it was, and tries again, later and later.
 * @module feed
 */

const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 30_000;
const SILENCE = 45_000; // the server pings every 20 s: two of them have been missed
const HOPELESS_AFTER = 3; // failed attempts of a server that has never answered: it has no sockets
const TOO_SLOW = 4408; // reconnect at once, and catch up
const FINAL_CODES = [4401, 4403, 4404]; // not signed in, forbidden, no such activity

/** A connection that heals itself while it is started. */
export class Feed {
  #path;
  #handlers;
  #socket = null;
  #timer = null;
  #silence = null;
  #failures = 0;
  #wasOpen = false;
  #isGivenUp = false;
  #seq = 0;

  /**
   * @param {function(): string} path with the position to read on from; "" where there is no feed
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

  /** Connect, unless it is connected or there is no hope. */
  start() {
    if (this.#socket || this.#timer || this.#isGivenUp || !this.#path()) return;
    this.#connect();
  }

  /** Close, and stay closed until `start`. */
  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
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
    this.#listen();
    this.#handlers.open();
  }

  #received(socket, text) {
    if (socket !== this.#socket) return;
    this.#listen();
    const message = JSON.parse(text);
    if (message.seq !== this.#seq + 1) {
      socket.close(1000); // something is missing: the snapshot of a new connection has it
      return;
    }
    this.#seq = message.seq;
    this.#failures = 0;
    if (message.type === "ping") socket.send(JSON.stringify({ type: "pong" }));
    else this.#handlers.message(message);
  }

  #closed(socket, code) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#silence);
    this.#socket = null;
    this.#failures += 1;
    this.#isGivenUp = FINAL_CODES.includes(code) || (!this.#wasOpen && this.#failures >= HOPELESS_AFTER);
    if (!this.#isGivenUp) this.#connectLater(code === TOO_SLOW ? 0 : this.#wait());
    this.#handlers.closed(); // last: who hears of it may call `start`, which must find the timer
  }

  #wait() {
    return Math.min(FIRST_WAIT * 2 ** (this.#failures - 1), LONGEST_WAIT) * (0.5 + Math.random());
  }

  #connectLater(wait) {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#connect();
    }, wait);
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#socket?.close(), SILENCE);
  }
}
