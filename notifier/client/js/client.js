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
 * Each subscription is reported as exactly one of `recovered` (what was missed follows, nothing is
 * lost) and `resync` (read your state afresh). While a promise that `onResync` returned is pending,
 * later messages are held back, so that an old reading can never overwrite a newer message.
 *
 * No dependencies. Browsers, and Node 20 or newer (pass a `WebSocket` class where there is no global one).
 * The types are in client.d.ts, the protocol in docs/protocol.md.
 */

/** @import { Client, Options, Position, Resync, State, Status, WebSocketClass, Why } from "./client.js" */

/** Our own fault, or one that trying again cannot mend: the application has to act. */
const FINAL = new Set([1002, 1003, 1007, 1009, 4400, 4403, 4409]);
const TOKEN_INVALID = 4401;
const TOKEN_EXPIRED = 4419;
const COMPANY_FORBIDDEN = 4403;
const TOO_MANY = 4429;

/** Closes that carry no meaning of their own: what Disconnect said before counts. */
const SPEECHLESS = new Set([1000, 1005, 1006]);

const TOO_MANY_WAIT_MS = 5_000;
const LONGEST_WAIT_MS = 3_600_000;
/** So many messages may wait for one reading of the state; with more it is read again instead. */
const MOST_HELD = 10_000;
/** So often is one hole mended by asking for what is missing; then the state has to be read. */
const MOST_MENDS = 3;

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
  #WebSocket;
  /** @type {Status} */
  #status;

  /** @type {InstanceType<WebSocketClass> | null} */
  #socket = null;
  /** @type {AbortController | null} Aborted when its socket is given up: what that still brings is ignored. */
  #attempt = null;
  /** Failures in a row, for the backoff. */
  #failures = 0;
  /** The server named the time to return: then nothing makes us return sooner. */
  #told = false;
  /** @type {any} What the last `Disconnect` of this socket said. */
  #farewell = null;
  #authenticated = false;
  #renewing = false;
  /** @type {string | null} */
  #token = null;
  /** @type {{ token: string | null, code: number } | null} The token that the server would not have. */
  #spent = null;

  /** @type {string | null} */
  #companyId;
  /** @type {string | null} Why the company is not to be asked for again. */
  #barred = null;
  /** @type {{ companyId: string, after?: number, epoch?: string, outdated?: boolean } | null} */
  #asked = null;
  #subscribed = false;
  /** @type {Position | null} The last message received. */
  #head;
  /** @type {Position | null} The last message reported, with all before it. */
  #position;
  #mends = 0;

  /** @type {AbortController | null} The reading of the state that is under way. */
  #reading = null;
  /** @type {Omit<Resync, "signal"> | null} The state has to be read (again). */
  #stale = null;
  /** @type {(() => void)[]} Reports that wait for the reading. */
  #held = [];

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #pulse;
  #heard = false;
  #probing = false;

  /** @param {Options} options */
  constructor(options) {
    this.#options = {
      heartbeatMs: 15_000,
      timeoutMs: 10_000,
      minDelayMs: 1_000,
      maxDelayMs: 30_000,
      random: Math.random,
      ...options,
    };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (typeof this.#WebSocket !== "function") {
      throw new TypeError("There is no WebSocket here: pass a class as the option WebSocket.");
    }
    if (typeof options.getToken !== "function") {
      throw new TypeError("The option getToken must be a function that returns a token.");
    }
    new URL(options.url); // throws now, rather than at every attempt
    this.#companyId = options.companyId == null ? null : String(options.companyId);
    this.#head = this.#position = copied(options.position);
    this.#status = { state: "connecting", companyId: this.#companyId };

    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("offline", this.#wake);
    globalThis.addEventListener?.("pageshow", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    // Not before the caller holds the client: its callbacks may use it.
    queueMicrotask(() => {
      if (!this.#attempt && this.#status.state !== "closed") this.#open();
    });
  }

  get companyId() {
    return this.#companyId;
  }

  get position() {
    return copied(this.#position);
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
    this.#head = this.#position = copied(position);
    this.#barred = null;
    this.#mends = 0;
    this.#forget();
    if (this.#asked) this.#asked.outdated = true; // asked again when the answer is there
    else if (this.#authenticated) this.#ask();
    else if (this.#status.code === COMPANY_FORBIDDEN) this.#open();
  }

  reconnect() {
    if (this.#status.state === "closed") throw new Error("This client is closed.");
    this.#barred = this.#spent = null;
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
    this.#forget();
    this.#tell("closed");
  }

  // ------------------------------------------------------------------ the connection

  async #open() {
    const { signal } = (this.#attempt = new AbortController());
    this.#tell("connecting");
    let token;
    try {
      token = await this.#fetchToken();
    } catch (error) {
      if (!signal.aborted) this.#retry({ reason: "no token", error });
      return;
    }
    if (signal.aborted) return;
    if (token === this.#spent?.token) {
      const { code } = this.#spent;
      if (code === TOKEN_INVALID) this.#tell("stopped", { code, reason: "token refused" });
      else this.#retry({ code, reason: "token expired" });
      return;
    }
    this.#token = token;

    let socket;
    try {
      socket = new this.#WebSocket(this.#options.url);
    } catch (error) {
      this.#tell("stopped", { reason: "cannot connect", error }); // the page's policy forbids it, for one
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      this.#send({ type: "authenticate", token });
      this.#expect(this.#options.timeoutMs);
    };
    socket.onmessage = (/** @type {MessageEvent} */ event) => {
      this.#heard = true;
      this.#receive(event.data);
    };
    socket.onclose = (/** @type {CloseEvent} */ event) => this.#ended(event.code, event.reason);
    socket.onerror = () => {}; // a close follows, or the deadline
    this.#expect(this.#options.timeoutMs);
  }

  /**
   * The token must come in time: a `getToken` that hangs would be the end of us.
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
   * An answer is due within `ms`, else the link counts as dead.
   * @param {number} ms
   */
  #expect(ms) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#lose("no answer"), ms);
  }

  /** The socket is of no use any more; a close that would wait for a dead peer is not waited for. */
  #drop() {
    this.#attempt?.abort();
    clearTimeout(this.#deadline);
    clearTimeout(this.#pulse);
    this.#authenticated = this.#subscribed = this.#renewing = this.#probing = this.#told = false;
    this.#asked = this.#farewell = null;
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
  #lose(reason, error) {
    this.#drop();
    this.#retry({ reason, error });
  }

  /**
   * The server closed, or the link broke: what the code means is in docs/protocol.md.
   * @param {number} code
   * @param {string} reason
   */
  #ended(code, reason) {
    const farewell = this.#farewell;
    if (farewell && SPEECHLESS.has(code)) code = farewell.Code;
    const why = { code, reason: reason || farewell?.Reason || "connection lost" };
    this.#drop();
    if (code === TOKEN_INVALID || code === TOKEN_EXPIRED) this.#spent = { token: this.#token, code };
    else if (FINAL.has(code) || farewell?.Reconnect === false) return this.#tell("stopped", why);
    let floor = farewell?.RetryAfterMs;
    if (!(floor >= 0)) floor = code === TOO_MANY ? TOO_MANY_WAIT_MS : 0;
    this.#retry(why, floor);
  }

  /**
   * Returns after a random wait (full jitter), never sooner than `floor` milliseconds.
   * @param {Why} why
   * @param {number} [floor]
   */
  #retry(why, floor = 0) {
    this.#told = floor > 0;
    const retryInMs = Math.min(floor + this.#backoff(this.#failures++), LONGEST_WAIT_MS);
    this.#deadline = setTimeout(() => this.#open(), retryInMs);
    this.#tell("waiting", { ...why, retryInMs });
  }

  /** @param {number} failures */
  #backoff(failures) {
    const { minDelayMs, maxDelayMs, random } = this.#options;
    return Math.floor(random() * Math.min(maxDelayMs, minDelayMs * 2 ** failures));
  }

  /** A silent link is asked; one that does not answer is dead, whatever the socket says. */
  #beat() {
    clearTimeout(this.#pulse);
    this.#heard = this.#probing = false;
    this.#pulse = setTimeout(() => {
      if (!this.#heard) return this.#probe();
      this.#failures = 0; // it has lived through a heartbeat: the next failure is a first one
      this.#beat();
    }, this.#options.heartbeatMs);
  }

  #probe() {
    if (this.#probing) return; // asking again must not put the verdict off
    this.#probing = true;
    clearTimeout(this.#pulse);
    this.#heard = false;
    this.#send({ type: "ping" });
    this.#pulse = setTimeout(() => {
      if (!this.#heard) return this.#lose("silent link");
      this.#failures = 0;
      this.#beat();
    }, this.#options.timeoutMs);
  }

  /**
   * The machine woke up, the page is seen again, the network changed.
   * @param {Event} event
   */
  #wake = (event) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#authenticated) this.#probe();
    else if (event.type === "offline") return;
    else if (this.#status.state === "waiting" && !this.#told) {
      this.#told = true; // once per wait, or flickering would put it off for ever
      clearTimeout(this.#deadline);
      this.#deadline = setTimeout(() => this.#open(), this.#backoff(0));
    }
  };

  // ------------------------------------------------------------------ the conversation

  /** @param {unknown} frame */
  #receive(frame) {
    /** @type {any} */
    let message;
    try {
      message = JSON.parse(/** @type {string} */ (frame));
    } catch {
      return this.#lose("unreadable message");
    }
    switch (message?.Type) {
      case "AuthenticationResult":
        return this.#admitted(message);
      case "SetCompanyResult":
        return this.#answered(message);
      case "TokenExpiring":
        return void this.#renew();
      case "CompanyRevoked":
        return this.#revoked(message);
      case "Disconnect":
        this.#farewell = message.Data;
        clearTimeout(this.#deadline); // the close itself may be lost
        this.#deadline = setTimeout(() => this.#ended(1006, ""), this.#options.timeoutMs);
        return;
      case "Error":
        return this.#tell(this.#status.state, { reason: message.Error?.Code, error: message.Error });
      case "Pong":
        return;
      default:
        // A type that we do not know and that has no position is of a later protocol.
        if (message?.Position !== undefined) this.#change(message);
    }
  }

  /** @param {any} message */
  #admitted(message) {
    if (!message.Success) {
      // The close says what to do; should it get lost, this is it.
      const code = message.Error?.Code === "token_expired" ? TOKEN_EXPIRED : TOKEN_INVALID;
      this.#farewell ??= { Code: code, Reason: message.Error?.Message };
      clearTimeout(this.#deadline);
      this.#deadline = setTimeout(() => this.#ended(1006, ""), this.#options.timeoutMs);
      return;
    }
    this.#spent = null;
    if (this.#authenticated) return; // a renewal
    this.#authenticated = true;
    clearTimeout(this.#deadline);
    this.#beat();
    this.#ask();
  }

  /** Shows a fresh token on the live socket; until it has one, the server's close is the last resort. */
  async #renew() {
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
        this.#tell(this.#status.state, { reason: "no token", error });
      }
      await sleep(this.#options.minDelayMs + this.#backoff(failures), signal);
    }
  }

  #ask() {
    if (this.#companyId === null || this.#barred) {
      return this.#tell("idle", { reason: this.#barred ?? "no company" });
    }
    this.#subscribed = false;
    this.#asked = { companyId: this.#companyId, ...this.#head };
    this.#send({ type: "setCompany", data: { companyId: this.#companyId, ...this.#head } });
    this.#expect(3 * this.#options.timeoutMs); // after a restart many ask at once
    if (this.#status.state !== "connecting") this.#tell("connecting");
  }

  /** @param {any} message */
  #answered(message) {
    const asked = this.#asked;
    const data = message.Data;
    if (!asked || (message.Success && !same(data?.CompanyId, asked.companyId))) return;
    clearTimeout(this.#deadline);
    this.#asked = null;
    if (asked.outdated) return this.#ask();
    if (!message.Success) {
      const { Code: reason, Message } = message.Error ?? {};
      if (reason !== "company_forbidden") return this.#lose(reason ?? "unreadable message", Message);
      this.#barred = reason;
      return this.#tell("idle", { reason, error: message.Error });
    }
    if (!Number.isSafeInteger(data.Position) || typeof data.Epoch !== "string") {
      return this.#lose("unreadable message");
    }
    this.#subscribed = true;
    const { Position: position, Epoch: epoch } = data;
    if (data.Recovered === true && position === asked.after && epoch === asked.epoch) {
      this.#tell("live");
      if (!this.#subscribed) return; // that callback has left the company
      const { companyId } = asked;
      return this.#report(() => this.#options.onRecovered?.({ companyId, position, epoch }));
    }
    let reason = "expired";
    if (this.#mends > MOST_MENDS) reason = "gap";
    else if (asked.after === undefined) reason = "start";
    else if (epoch !== asked.epoch) reason = "epoch";
    this.#head = { after: position, epoch };
    this.#mends = 0;
    this.#tell("live");
    if (this.#subscribed) this.#resync(reason);
  }

  /** @param {any} message */
  #revoked(message) {
    if (this.#asked || !same(message.Data?.CompanyId, this.#companyId)) return;
    this.#subscribed = false;
    this.#barred = "revoked";
    this.#tell("idle", { reason: "revoked" });
  }

  /**
   * A message with a position: a change, or a `Resync` of the server's.
   * @param {any} message
   */
  #change(message) {
    const head = this.#head;
    if (!this.#subscribed || !head) return; // of the company we leave, or after the hole we mend
    const { Position: position } = message;
    if (!Number.isSafeInteger(position)) return this.#lose("unreadable message");
    if (message.Type === "Resync") {
      const epoch = message.Data?.Epoch ?? head.epoch;
      if (epoch === head.epoch && position <= head.after) return;
      this.#head = { after: position, epoch };
      this.#mends = 0;
      return this.#resync(message.Data?.Reason ?? "");
    }
    if (position <= head.after) return; // a double
    if (position > head.after + 1) return this.#mend();
    this.#mends = 0;
    const now = (this.#head = { after: position, epoch: head.epoch });
    this.#report(() => {
      this.#position = now;
      this.#options.onMessage?.(message);
    });
  }

  /** Something is missing: it is asked for again, and nothing is reported before it is there. */
  #mend() {
    if (++this.#mends > MOST_MENDS) this.#head = null; // it cannot be had: the state must be read
    this.#ask();
  }

  // ------------------------------------------------------------------ the reports

  /** @param {() => void} report */
  #report(report) {
    if (!this.#reading) return guarded(report);
    this.#held.push(report);
    if (this.#held.length > MOST_HELD) this.#resync("overflow");
  }

  /** @param {string} reason */
  #resync(reason) {
    const { after: position, epoch } = /** @type {Position} */ (this.#head);
    this.#position = null; // until the state has been read, nothing is known
    this.#held = [];
    this.#stale = { companyId: /** @type {string} */ (this.#companyId), reason, position, epoch };
    if (!this.#reading) this.#read();
  }

  /** Has the application read its state, again where it failed or where it came too early. */
  async #read() {
    for (let failures = 0; this.#stale; ) {
      const stale = this.#stale;
      const reading = (this.#reading = new AbortController());
      const { signal } = reading;
      this.#stale = null;
      try {
        await this.#options.onResync?.({ ...stale, signal });
        failures = 0;
        if (!signal.aborted && !this.#stale) this.#position = { after: stale.position, epoch: stale.epoch };
      } catch (error) {
        if (signal.aborted) continue;
        this.#tell(this.#status.state, { reason: "resync failed", error });
        await sleep(this.#backoff(failures++), signal);
        if (!signal.aborted) this.#stale ??= stale;
      }
    }
    this.#reading = null;
    // A report may call us: to leave the company is to empty what is held.
    for (let report; !this.#reading && (report = this.#held.shift()); ) guarded(report);
  }

  /** Another company, or none: what was not reported yet is not reported any more. */
  #forget() {
    this.#subscribed = false;
    this.#stale = null;
    this.#held = [];
    this.#reading?.abort();
  }

  /**
   * @param {State} state
   * @param {Why & { retryInMs?: number }} [why]
   */
  #tell(state, why) {
    const status = (this.#status = Object.freeze({ state, companyId: this.#companyId, ...why }));
    guarded(() => this.#options.onStatus?.(status));
  }
}

/**
 * An error in the application's callback is the application's: it surfaces, and we go on.
 * @param {() => void} callback
 */
function guarded(callback) {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * Ends after `ms`, or when `signal` is aborted.
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

/** @param {Position | null | undefined} position */
function copied(position) {
  return position ? { after: position.after, epoch: position.epoch } : null;
}

/**
 * A uuid may come back in another spelling than it was sent in.
 * @param {unknown} one
 * @param {unknown} other
 */
function same(one, other) {
  const plain = (/** @type {unknown} */ id) => String(id).toLowerCase().replace(/[-{}\s]/g, "");
  return plain(one) === plain(other);
}
