/* @ts-self-types="./client.d.ts" */
/**
 * Notifier's client: follows one company over a WebSocket and never loses a message silently.
 *
 *     import { connect } from "/client.js";
 *
 *     const client = connect({
 *       url: "wss://calendar.example/",
 *       getToken: async () => (await fetch("/token")).text(),
 *       companyId,
 *       onResync: async ({ companyId, signal }) => show(await readEverything(companyId, signal)),
 *       onMessage: (message) => apply(message),
 *     });
 *
 * Each subscription is reported through either `onRecovered` (every missed message follows) or
 * `onResync` (reload your state). While the promise that `onResync` returned is pending, later messages
 * wait, so a state that was read earlier can never overwrite a newer message.
 *
 * No dependencies. Browsers, and Node 20 or newer (pass a `WebSocket` class where there is no global
 * one). The types are in client.d.ts, the protocol in docs/protocol.md.
 */

/** @import { Client, Details, Options, Position, State, Status, WebSocketClass } from "./client.js" */

export const version = "0.1.0";

/** The client is at fault, or another attempt cannot help: the application has to act. */
const FINAL = new Set([1002, 1003, 1007, 1009, 4400, 4403, 4409]);
const TOKEN_INVALID = 4401;
const TOKEN_EXPIRED = 4419;
const COMPANY_FORBIDDEN = 4403;
const TOO_MANY = 4429;

/** Close codes without a meaning of their own: the code in `Disconnect` counts instead. */
const UNSPECIFIC = new Set([1000, 1005, 1006]);

/** A WebSocket's `readyState`. */
const CLOSED = 3;

/** The shortest wait after 4429 when the server did not name one. */
const TOO_MANY_MS = 5_000;
/** A connection that lasts so long after its subscription is a success: the next wait is short again. */
const STEADY_MS = 5_000;
/** The longest wait before a reconnect, whatever the server requests. */
const MAX_WAIT_MS = 3_600_000;
/** So many reports may wait while the state is reloaded; with more it is reloaded again instead. */
const MAX_WAITING = 10_000;
/** How often one gap is requested again before the state has to be reloaded. */
const MAX_GAP_RETRIES = 3;

/**
 * @param {Options} options
 * @returns {Client}
 */
export function connect(options) {
  return new Connection(options);
}

/** @implements {Client} */
class Connection {
  #options;
  #url;
  #WebSocket;
  /** @type {Status} */
  #status;

  /** @type {InstanceType<WebSocketClass> | null} */
  #socket = null;
  /** @type {AbortController | null} Aborted when its socket is dropped: later events of it are ignored. */
  #attempt = null;
  /** Failures in a row, for the backoff. */
  #failures = 0;
  /** The wait must not be shortened: the server requested it, or it was shortened already. */
  #waitIsFixed = false;
  /** @type {any} The `Data` of this socket's `Disconnect`. */
  #farewell = null;
  #authenticated = false;
  #renewing = false;
  /** @type {string | null} */
  #token = null;
  /** @type {{ token: string | null, code: number } | null} The token that the server refused. */
  #refused = null;

  /** @type {string | null} */
  #companyId;
  /** @type {string | null} Why the company must not be requested: `company_forbidden` or `revoked`. */
  #blocked = null;
  /** @type {{ companyId: string, head: Position | null, outdated: boolean } | null} Not answered yet. */
  #request = null;
  #subscribed = false;
  /** @type {Position | null} The last message received. */
  #head;
  /** @type {Position | null} The last message reported, together with all before it. */
  #position;
  /** Failures in a row to get the message after `#head`. */
  #gapRetries = 0;

  /** @type {AbortController | null} The application is reloading its state. */
  #reload = null;
  /** @type {{ companyId: string, reason: string, head: Position } | null} The state has to be reloaded (again). */
  #due = null;
  /** @type {(() => void)[]} Reports that wait for the reload. */
  #waiting = [];

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #heartbeat;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #steady;
  #pinging = false;

  /** @param {Options} options */
  constructor(options) {
    this.#options = {
      ...options,
      heartbeatMs: options.heartbeatMs ?? 15_000,
      timeoutMs: options.timeoutMs ?? 10_000,
      minDelayMs: options.minDelayMs ?? 1_000,
      maxDelayMs: options.maxDelayMs ?? 30_000,
      random: options.random ?? Math.random,
    };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (typeof this.#WebSocket !== "function") {
      throw new TypeError("There is no WebSocket here: pass a class as the option WebSocket.");
    }
    if (typeof options.getToken !== "function") {
      throw new TypeError("The option getToken must be a function that returns a token.");
    }
    this.#url = webSocketUrl(options.url); // throws now, rather than at every attempt
    this.#companyId = options.companyId == null ? null : String(options.companyId);
    this.#head = this.#position = copyOf(options.position);
    this.#status = { state: "connecting", companyId: this.#companyId };

    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("offline", this.#wake);
    globalThis.addEventListener?.("pageshow", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    // Only when the caller has the client: its callbacks may use it.
    queueMicrotask(() => {
      if (!this.#attempt && this.#status.state !== "closed") this.#open();
    });
  }

  get companyId() {
    return this.#companyId;
  }

  get position() {
    return copyOf(this.#position);
  }

  get status() {
    return this.#status;
  }

  /**
   * @param {string | number} companyId
   * @param {Position | null} [position]
   */
  setCompany(companyId, position = null) {
    if (this.#status.state === "closed") throw new Error("This client is closed.");
    this.#companyId = String(companyId);
    this.#head = this.#position = copyOf(position);
    this.#blocked = null;
    this.#gapRetries = 0;
    this.#discard();
    if (this.#request) this.#request.outdated = true; // repeated when the answer is there
    else if (this.#authenticated) this.#subscribe();
    else if (this.#status.code === COMPANY_FORBIDDEN) this.#open();
  }

  reconnect() {
    if (this.#status.state === "closed") throw new Error("This client is closed.");
    this.#blocked = this.#refused = null;
    this.#failures = 0;
    this.#drop();
    this.#open();
  }

  close() {
    if (this.#status.state === "closed") return;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("offline", this.#wake);
    globalThis.removeEventListener?.("pageshow", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#drop();
    this.#discard();
    this.#setStatus("closed");
  }

  // ------------------------------------------------------------------ the connection

  async #open() {
    const { signal } = (this.#attempt = new AbortController());
    this.#setStatus("connecting");
    let token;
    try {
      token = await this.#fetchToken();
    } catch (error) {
      if (!signal.aborted) this.#reconnectLater({ reason: "no token", error });
      return;
    }
    if (signal.aborted) return;
    if (token === this.#refused?.token) {
      const { code } = this.#refused;
      if (code === TOKEN_INVALID) this.#setStatus("stopped", { code, reason: "token refused" });
      else this.#reconnectLater({ code, reason: "token expired" });
      return;
    }
    this.#token = token;

    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
      // Chromium does not throw, and sends no `close`.
      if (socket.readyState === CLOSED) throw new Error("The browser blocked the connection.");
    } catch (error) {
      // The page's Content-Security-Policy forbids it, for example.
      this.#setStatus("stopped", { reason: "cannot connect", error });
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      this.#send({ type: "authenticate", token });
      this.#expectAnswer(this.#options.timeoutMs);
    };
    socket.onmessage = (/** @type {MessageEvent} */ event) => {
      if (this.#authenticated) this.#startHeartbeat();
      this.#onMessage(event.data);
    };
    socket.onclose = (/** @type {CloseEvent} */ event) => this.#onClose(event.code, event.reason);
    socket.onerror = () => {}; // a close follows, or the deadline passes
    this.#expectAnswer(this.#options.timeoutMs);
  }

  /**
   * A token, or an error after a timeout: a `getToken` that hangs must not stop the client.
   * @returns {Promise<string>}
   */
  async #fetchToken() {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(reject, 3 * this.#options.timeoutMs, new Error("getToken() did not answer."));
    });
    try {
      const token = await Promise.race([this.#options.getToken(), late]);
      if (typeof token !== "string" || !token) throw new TypeError("getToken() returned no token.");
      return token;
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {object} message */
  #send(message) {
    this.#socket?.send(JSON.stringify(message));
  }

  /**
   * Drops the link unless the server answers within `ms`.
   * @param {number} ms
   */
  #expectAnswer(ms) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#fail("no answer"), ms);
  }

  /** Drops the socket without waiting for its close: the peer may be dead. */
  #drop() {
    this.#attempt?.abort();
    clearTimeout(this.#deadline);
    clearTimeout(this.#heartbeat);
    clearTimeout(this.#steady);
    this.#authenticated = this.#subscribed = this.#renewing = this.#pinging = this.#waitIsFixed = false;
    this.#request = this.#farewell = null;
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
    socket.close();
  }

  /**
   * @param {string} reason
   * @param {unknown} [error]
   */
  #fail(reason, error) {
    this.#drop();
    this.#reconnectLater({ reason, error });
  }

  /**
   * The server closed the socket, or the link broke. docs/protocol.md lists the codes.
   * @param {number} code
   * @param {string} reason
   */
  #onClose(code, reason) {
    const farewell = this.#farewell;
    if (farewell && UNSPECIFIC.has(code)) code = farewell.Code;
    const why = { code, reason: reason || farewell?.Reason || "connection lost" };
    this.#drop();
    if (code === TOKEN_INVALID || code === TOKEN_EXPIRED) this.#refused = { token: this.#token, code };
    else if (FINAL.has(code) || farewell?.Reconnect === false) return this.#setStatus("stopped", why);
    let floor = farewell?.RetryAfterMs;
    if (!(floor >= 0)) floor = code === TOO_MANY ? TOO_MANY_MS : 0;
    this.#reconnectLater(why, floor);
  }

  /**
   * Reconnects after a random wait (full jitter), not sooner than `floor` milliseconds.
   * @param {Details} why
   * @param {number} [floor]
   */
  #reconnectLater(why, floor = 0) {
    this.#waitIsFixed = floor > 0;
    const retryInMs = Math.min(floor + this.#backoff(this.#failures++), MAX_WAIT_MS);
    this.#deadline = setTimeout(() => this.#open(), retryInMs);
    this.#setStatus("waiting", { ...why, retryInMs });
  }

  /** @param {number} failures */
  #backoff(failures) {
    const { minDelayMs, maxDelayMs, random } = this.#options;
    return Math.floor(random() * Math.min(maxDelayMs, minDelayMs * 2 ** failures));
  }

  /** Starts the heartbeat again; any message is a sign of life. */
  #startHeartbeat() {
    clearTimeout(this.#heartbeat);
    this.#pinging = false;
    this.#heartbeat = setTimeout(() => this.#ping(), this.#options.heartbeatMs);
  }

  /** Sends a ping on a silent link, and drops the link unless anything is received in time. */
  #ping() {
    if (this.#pinging) return; // a further ping must not extend the deadline
    this.#pinging = true;
    clearTimeout(this.#heartbeat);
    this.#send({ type: "ping" });
    this.#heartbeat = setTimeout(() => this.#fail("silent link"), this.#options.timeoutMs);
  }

  /** The connection is a success if it lasts. */
  #expectToLast() {
    clearTimeout(this.#steady);
    this.#steady = setTimeout(() => (this.#failures = 0), STEADY_MS);
  }

  /**
   * The machine woke up, the page became visible, or the network changed.
   * @param {Event} event
   */
  #wake = (event) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#authenticated) this.#ping();
    else if (event.type === "offline") return;
    else if (this.#status.state === "waiting" && !this.#waitIsFixed) {
      this.#waitIsFixed = true; // once per wait: a flickering network must not postpone it for ever
      clearTimeout(this.#deadline);
      this.#deadline = setTimeout(() => this.#open(), this.#backoff(0));
    }
  };

  // ------------------------------------------------------------------ the conversation

  /** @param {unknown} frame */
  #onMessage(frame) {
    /** @type {any} */
    let message;
    try {
      message = JSON.parse(/** @type {string} */ (frame));
    } catch {
      return this.#failUnreadable();
    }
    switch (message?.Type) {
      case "AuthenticationResult":
        return this.#onAuthenticated(message);
      case "SetCompanyResult":
        return this.#onAcknowledged(message);
      case "TokenExpiring":
        return void this.#renewToken();
      case "CompanyRevoked":
        return this.#onRevoked(message);
      case "Disconnect":
        this.#farewell = message.Data;
        clearTimeout(this.#deadline); // in case the close itself is lost
        this.#deadline = setTimeout(() => this.#onClose(1006, ""), this.#options.timeoutMs);
        return;
      case "Error":
        return this.#setStatus(this.#status.state, { reason: message.Error?.Code, error: message.Error });
      case "Pong":
        return;
      default:
        // An unknown type without a position belongs to a later protocol and may be ignored.
        if (message?.Position !== undefined) this.#onChange(message);
    }
  }

  /** @param {any} message */
  #onAuthenticated(message) {
    if (!message.Success) {
      // The close that follows decides what to do; this is used if the close is lost.
      const code = message.Error?.Code === "token_expired" ? TOKEN_EXPIRED : TOKEN_INVALID;
      this.#farewell ??= { Code: code, Reason: message.Error?.Message };
      clearTimeout(this.#deadline);
      this.#deadline = setTimeout(() => this.#onClose(1006, ""), this.#options.timeoutMs);
      return;
    }
    this.#refused = null;
    if (this.#authenticated) return; // the token was renewed
    this.#authenticated = true;
    clearTimeout(this.#deadline);
    this.#startHeartbeat();
    this.#subscribe();
  }

  /** Sends a new token on the live socket, as soon as `getToken` returns one. */
  async #renewToken() {
    if (this.#renewing) return;
    this.#renewing = true;
    const { signal } = /** @type {AbortController} */ (this.#attempt);
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        const token = await this.#fetchToken();
        if (signal.aborted) return;
        if (token !== this.#token) {
          this.#token = token;
          this.#renewing = false;
          return this.#send({ type: "authenticate", token });
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#setStatus(this.#status.state, { reason: "no token", error });
      }
      await sleep(this.#options.minDelayMs + this.#backoff(failures), signal);
    }
  }

  #subscribe() {
    this.#subscribed = false;
    if (this.#companyId === null || this.#blocked) {
      this.#expectToLast();
      return this.#setStatus("idle", { reason: this.#blocked ?? "no company" });
    }
    if (this.#gapRetries > MAX_GAP_RETRIES) this.#head = null; // the state has to be reloaded instead
    this.#request = { companyId: this.#companyId, head: this.#head, outdated: false };
    this.#send({ type: "setCompany", data: { companyId: this.#companyId, ...this.#head } });
    // Many clients subscribe at the same time after a restart of the server.
    this.#expectAnswer(3 * this.#options.timeoutMs);
    if (this.#status.state !== "connecting") this.#setStatus("connecting");
  }

  /** @param {any} message */
  #onAcknowledged(message) {
    const request = this.#request;
    const data = message.Data;
    if (!request || (message.Success && !sameCompany(data?.CompanyId, request.companyId))) return;
    clearTimeout(this.#deadline);
    this.#request = null;
    if (request.outdated) return this.#subscribe();
    if (!message.Success) {
      const { Code: reason, Message } = message.Error ?? {};
      if (reason !== "company_forbidden") return this.#fail(reason ?? "unreadable message", Message);
      this.#blocked = reason;
      this.#expectToLast();
      return this.#setStatus("idle", { reason, error: message.Error });
    }
    if (!Number.isSafeInteger(data.Position) || typeof data.Epoch !== "string") {
      return this.#fail("unreadable message");
    }
    this.#subscribed = true;
    this.#expectToLast();
    const { companyId, head: requested } = request;
    const head = positionOf(data.Position, data.Epoch, data.At);
    if (data.Recovered === true && requested && samePosition(head, requested)) {
      this.#head = { ...head, ...requested };
      const report = { companyId, position: head.after, epoch: head.epoch };
      this.#setStatus("live");
      if (!this.#subscribed) return; // the callback left the company
      return this.#report(() => this.#options.onRecovered?.(report));
    }
    let reason = "expired";
    if (this.#gapRetries > MAX_GAP_RETRIES) reason = "gap";
    else if (!requested) reason = "start";
    else if (head.epoch !== requested.epoch) reason = "epoch";
    else if (head.after === requested.after && !samePosition(head, requested)) reason = "epoch";
    this.#head = head;
    this.#gapRetries = 0;
    this.#setStatus("live");
    if (this.#subscribed) this.#resync(reason);
  }

  /** @param {any} message */
  #onRevoked(message) {
    if (this.#request || !sameCompany(message.Data?.CompanyId, this.#companyId)) return;
    this.#subscribed = false;
    this.#blocked = "revoked";
    this.#setStatus("idle", { reason: "revoked" });
  }

  /**
   * A message with a position: a change, or a `Resync` of the server.
   * @param {any} message
   */
  #onChange(message) {
    const head = this.#head;
    // Without a subscription it is of the company that was left, or follows a gap that was requested again.
    if (!this.#subscribed || !head) return;
    const { Position: position } = message;
    if (!Number.isSafeInteger(position)) return this.#failUnreadable();
    if (message.Type === "Resync") {
      const epoch = message.Data?.Epoch ?? head.epoch;
      if (epoch === head.epoch && position <= head.after) return;
      this.#head = positionOf(position, epoch, message.At);
      this.#gapRetries = 0;
      return this.#resync(message.Data?.Reason ?? "");
    }
    if (position <= head.after) return; // a duplicate
    if (position > head.after + 1) {
      // Messages are missing: requests them again, and reports nothing before they arrive.
      this.#gapRetries++;
      return this.#subscribe();
    }
    this.#gapRetries = 0;
    const now = (this.#head = positionOf(position, head.epoch, message.At));
    this.#report(() => {
      this.#position = now;
      this.#options.onMessage?.(message);
    });
  }

  /** The message is requested again, but not for ever: see MAX_GAP_RETRIES. */
  #failUnreadable() {
    if (this.#subscribed) this.#gapRetries++;
    this.#fail("unreadable message");
  }

  // ------------------------------------------------------------------ the reports

  /** @param {() => void} report */
  #report(report) {
    if (!this.#reload) return callSafely(report);
    this.#waiting.push(report);
    if (this.#waiting.length > MAX_WAITING) this.#resync("overflow");
  }

  /** @param {string} reason */
  #resync(reason) {
    const head = /** @type {Position} */ (this.#head);
    this.#position = null; // there is none until the state has been reloaded
    this.#waiting = [];
    this.#due = { companyId: /** @type {string} */ (this.#companyId), reason, head };
    if (!this.#reload) this.#runReload();
  }

  /** Has the application reload its state, again if that failed or if another resync came meanwhile. */
  async #runReload() {
    for (let failures = 0; this.#due; ) {
      const due = this.#due;
      const { companyId, reason, head } = due;
      const { signal } = (this.#reload = new AbortController());
      this.#due = null;
      try {
        await this.#options.onResync?.({ companyId, reason, position: head.after, epoch: head.epoch, signal });
        failures = 0;
        if (!signal.aborted && !this.#due) this.#position = head;
      } catch (error) {
        if (signal.aborted) continue;
        this.#setStatus(this.#status.state, { reason: "resync failed", error });
        await sleep(this.#backoff(failures++), signal);
        if (!signal.aborted) this.#due ??= due;
      }
    }
    this.#reload = null;
    // A callback may leave the company, which empties the list.
    for (let report; !this.#reload && (report = this.#waiting.shift()); ) callSafely(report);
  }

  /** The company was left: drops the reports that were not made yet. */
  #discard() {
    this.#subscribed = false;
    this.#due = null;
    this.#waiting = [];
    this.#reload?.abort();
  }

  /**
   * @param {State} state
   * @param {Details & { retryInMs?: number }} [why]
   */
  #setStatus(state, why) {
    const status = (this.#status = Object.freeze({ state, companyId: this.#companyId, ...why }));
    callSafely(() => this.#options.onStatus?.(status));
  }
}

/**
 * Calls back. An error of the application is thrown where it can be seen, and does not stop the client.
 * @param {() => void} callback
 */
function callSafely(callback) {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * Resolves after `ms`, or when `signal` is aborted.
 * @param {number} ms
 * @param {AbortSignal} signal
 */
function sleep(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/**
 * An absolute ws:// or wss:// URL. A relative one is resolved against the page, http(s) becomes ws(s).
 * @param {string | URL} text
 */
function webSocketUrl(text) {
  const url = new URL(text, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (url.protocol === "http:" || url.protocol === "https:") url.protocol = url.protocol.replace("http", "ws");
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new TypeError(`${text} is not a ws:// or wss:// URL.`);
  url.hash = ""; // the WebSocket class of older browsers throws on a fragment
  return url.href;
}

/**
 * @param {number} after
 * @param {string} epoch
 * @param {unknown} at
 * @returns {Position}
 */
function positionOf(after, epoch, at) {
  return typeof at === "string" ? { after, epoch, at } : { after, epoch };
}

/** @param {Position | null | undefined} position */
function copyOf(position) {
  return position ? positionOf(position.after, position.epoch, position.at) : null;
}

/**
 * Whether both are the same message. An `at` that one of them does not know is not compared.
 * @param {Position} one
 * @param {Position} other
 */
function samePosition(one, other) {
  if (one.after !== other.after || one.epoch !== other.epoch) return false;
  return one.at === undefined || other.at === undefined || one.at === other.at;
}

/**
 * Whether two ids are equal; the server may spell a uuid differently than the client did.
 * @param {unknown} one
 * @param {unknown} other
 */
function sameCompany(one, other) {
  const plain = (/** @type {unknown} */ id) => String(id).toLowerCase().replace(/[-{}\s]/g, "");
  return plain(one) === plain(other);
}
