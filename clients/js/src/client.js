/* @ts-self-types="./client.d.ts" */
/**
 * Notifier's client: follows companies over a WebSocket and never loses a message silently.
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
 * One connection may follow several companies, each with a filter, a position and an end of its own:
 *
 *     const mine = client.subscribe("acme", { where: { Event: { OrganizerId: [me] } }, onResync, onMessage });
 *     const { tx } = await save(event); // your API returns the number of its transaction
 *     await mine.arrived(tx); // its messages were reported
 *
 * No dependencies. Browsers, and Node 20 or newer (pass a `WebSocket` class where there is no global
 * one). The types are in client.d.ts, the protocol in docs/protocol.md.
 */

import { Store, callSafely } from "./rows.js";

/** @import { HttpSocket } from "./http.js" */
/** @import { Callbacks, Client, Details, Filter, Options, Position, Snapshot, State, Status, Subscription, SubscriptionOptions, TransportName, WebSocketClass } from "./client.js" */

export const version = "0.2.0";

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
/** A connection that lasts this long after its subscription is a success: the next wait is short again. */
const STEADY_MS = 5_000;
/** The longest wait before a reconnect, whatever the server requests. */
const MAX_WAIT_MS = 3_600_000;
/** So many reports may wait while the state is reloaded; with more it is reloaded again instead. */
const MAX_WAITING = 10_000;
/** So many characters of a state are collected: the server's states are smaller. */
const MAX_STATE_LENGTH = 64 * 1024 * 1024;
/** How often one gap is requested again before the state has to be reloaded. */
const MAX_GAP_RETRIES = 3;
/** The connection waits for at most this many transactions; further ones are sent when others have arrived. */
const MAX_AWAITED = 100;
/** The application has to act before the company is requested again. */
const REFUSED = new Set(["company_forbidden", "bad_filter", "too_many_companies", "state_too_large", "state_unavailable"]);

/** The order in which transports are tried. @type {TransportName[]} */
const TRANSPORTS = ["websocket", "sse", "poll"];
/** So many WebSockets in a row must fail before another transport is tried, if one worked before: the server may be away. */
const MAX_MISSES = 3;
/** Over HTTP a WebSocket is tried again after this time, if one worked before, and if none did; then after twice as long, … */
const RETURN_MS = 1_000;
const RETURN_BLOCKED_MS = 30_000;
/** … up to this. */
const MAX_RETURN_MS = 300_000;

/** It is not known whether a transaction's messages have arrived: see `arrived` in client.d.ts. */
export class ArrivalError extends Error {
  name = "ArrivalError";

  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** One company of a client. */
class Company {
  /** @type {Filter | null} The filter that the server has accepted last. */
  accepted = null;
  /** @type {string | null} Why the company must not be requested: `revoked`, or the code of a refusal. */
  blocked = null;
  /** @type {Request | null} Not answered yet. */
  request = null;
  /** @type {string | null} The company that this connection has requested last. */
  requested = null;
  /** @type {string | null} The company's id as the server spells it. */
  id = null;
  subscribed = false;
  closed = false;
  /** Failures in a row to get the message after `head`. */
  gapRetries = 0;

  /** @type {AbortController | null} The application is reloading its state. */
  reload = null;
  /** @type {{ companyId: string, reason: string, head: Position, rows?: Record<string, object[]> | undefined } | null} The state has to be (re)loaded. */
  due = null;
  /** @type {{ run: () => void, tx?: string | undefined }[]} Reports that wait for the reload. */
  waiting = [];

  /** @type {{ head: Position, reason: string, rows: Record<string, object[]>, length: number } | null} The part of the state that has arrived. */
  incoming = null;
  /** Why the state is requested. */
  reason = "start";
  /** @type {Store | null} With `state`. */
  store = null;

  /** @type {Map<string, { promise: Promise<number>, resolve: (position: number) => void, reject: (error: Error) => void, sent?: boolean }>} */
  arrivals = new Map();

  /**
   * @param {string} companyId
   * @param {Filter} filter The one that the application wants.
   * @param {Position | null} position
   * @param {Callbacks} on
   * @param {Status} status
   */
  constructor(companyId, filter, position, on, status) {
    this.companyId = companyId;
    this.filter = filter;
    /** The last message received. */
    this.head = position;
    /** The last message reported, together with all before it. */
    this.position = position;
    this.on = on;
    this.status = status;
  }
}

/**
 * @param {Options} options
 * @returns {Client}
 */
export function connect(options) {
  return new Connection(options);
}

/**
 * A `setCompany` or `subscribe` without an answer yet. `outdated`: the application wants another company or filter.
 * `replaces`: the server goes on with the former filter until it answers, and after a refusal.
 * @typedef {{ company: Company, type: string, companyId: string, head: Position | null, filter: Filter, replaces: boolean, outdated: boolean }} Request
 */

/** @implements {Client} */
class Connection {
  #options;
  #url;
  #WebSocket;
  #fetch;
  /** @type {Status} */
  #status;

  /** @type {InstanceType<WebSocketClass> | HttpSocket | null} */
  #socket = null;
  #transports;
  /** Which of them is in use, or is tried next. */
  #rung = 0;
  /** Nothing was received on this socket yet. */
  #unproven = false;
  /** Sockets in a row on which nothing was received. */
  #misses = 0;
  /** A WebSocket has worked. */
  #worked = false;
  /** @type {Details | null} The browser allows no WebSocket. */
  #forbidden = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #returning;
  /** Attempts in a row to return to a WebSocket. */
  #returns = 0;
  /** @type {InstanceType<WebSocketClass> | null} One that is tried while HTTP is in use. */
  #candidate = null;
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
  /** Renewals in a row, each soon after the one before. */
  #renewals = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #calm;
  /** @type {string | null} */
  #token = null;
  /** @type {{ token: string | null, code: number } | null} The token that the server refused. */
  #refused = null;

  /** @type {Company | null} The company of `connect` and `setCompany`. */
  #main = null;
  /** @type {Set<Company>} */
  #companies = new Set();
  /** @type {Request[]} The server answers in this order. */
  #requests = [];
  /** @type {Set<string>} With several, each message has to name its company. */
  #requested = new Set();

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
    const { transport = "auto", fetch = globalThis.fetch } = options;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#fetch = fetch;
    this.#transports = TRANSPORTS.filter((name) => {
      if (transport !== "auto" && name !== transport) return false;
      return typeof (name === "websocket" ? this.#WebSocket : fetch) === "function";
    });
    if (!this.#transports.length) {
      if (transport === "websocket") throw new TypeError("There is no WebSocket here: pass a class as the option WebSocket.");
      throw new TypeError(`There is no transport ${transport} here.`);
    }
    if (typeof options.getToken !== "function") {
      throw new TypeError("The option getToken must be a function that returns a token.");
    }
    this.#url = webSocketUrl(options.url); // throws now, rather than at every attempt
    const filter = filterOf(options);
    const companyId = options.companyId == null ? null : String(options.companyId);
    this.#status = { state: "connecting", companyId };
    if (companyId !== null) this.#main = this.#add(companyId, filter, options, options);

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
    return this.#main?.companyId ?? null;
  }

  get position() {
    return copyOf(this.#main?.position);
  }

  get transport() {
    return this.#authenticated ? (this.#transports[this.#rung] ?? null) : null;
  }

  get status() {
    if (this.#authenticated) {
      const statuses = [...this.#companies].map((company) => company.status);
      for (const state of ["connecting", "live", "idle"]) {
        const found = statuses.find((status) => status.state === state);
        if (found) return found;
      }
    }
    return this.#status;
  }

  /**
   * @param {string | number} companyId
   * @param {Position | null} [position]
   */
  setCompany(companyId, position = null) {
    this.#checkOpen();
    const id = String(companyId);
    const company = this.#main;
    if (!company) {
      this.#main = this.#add(id, {}, { position, state: this.#options.state }, this.#options);
    } else {
      if (!sameCompany(id, company.companyId)) this.#checkFree(id);
      company.companyId = id;
      company.head = company.position = copyOf(position);
      company.filter = {};
      company.accepted = company.blocked = company.id = null;
      company.gapRetries = 0;
      company.reason = "start";
      company.store?.clear();
      this.#discard(company, "another company was set");
    }
    this.#request(/** @type {Company} */ (this.#main));
  }

  /**
   * @param {string | number} companyId
   * @param {SubscriptionOptions} [options]
   * @returns {Subscription}
   */
  subscribe(companyId, options = {}) {
    this.#checkOpen();
    if (companyId == null) throw new TypeError("There is no company to subscribe to.");
    const { state, onStatus, onMessage, onRecovered, onResync, onSkipped, onState } = { ...this.#options, onStatus: undefined, ...options };
    const on = { onStatus, onMessage, onRecovered, onResync, onSkipped, onState };
    const company = this.#add(String(companyId), filterOf(options), { ...options, state }, on);
    this.#request(company);
    const connection = this;
    return Object.freeze({
      companyId: company.companyId,
      get position() {
        return copyOf(company.position);
      },
      get status() {
        return company.status;
      },
      rows: (/** @type {string} */ entity) => rowsOf(company, entity),
      snapshot: () => snapshotOf(company),
      setFilter: (/** @type {Filter} */ filter = {}) => connection.#setFilter(company, filterOf(filter)),
      arrived: (/** @type {string | number} */ tx) => connection.#arrived(company, String(tx)),
      unsubscribe: () => connection.#unsubscribe(company),
    });
  }

  /** @param {string | number} tx */
  async arrived(tx) {
    if (!this.#main) throw new ArrivalError("not_subscribed", "no company");
    return this.#arrived(this.#main, String(tx));
  }

  /** @param {string} entity */
  rows(entity) {
    return rowsOf(this.#main, entity);
  }

  snapshot() {
    return this.#main && snapshotOf(this.#main);
  }

  reconnect() {
    this.#checkOpen();
    for (const company of this.#companies) company.blocked = null;
    this.#refused = null;
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
    for (const company of this.#companies) this.#discard(company, "the client is closed");
    this.#setStatus("closed");
  }

  #checkOpen() {
    if (this.#status.state === "closed") throw new Error("This client is closed.");
  }

  /** @param {string} companyId */
  #checkFree(companyId) {
    for (const company of this.#companies) {
      if (sameCompany(company.companyId, companyId)) throw new Error(`There is a subscription to this company already: ${companyId}`);
    }
  }

  /**
   * @param {string} companyId
   * @param {Filter} filter
   * @param {SubscriptionOptions} from
   * @param {Callbacks} on
   */
  #add(companyId, filter, { position, state, snapshot }, on) {
    this.#checkFree(companyId);
    // Rows of another company or filter are of no use.
    const restored = state && snapshot && sameCompany(snapshot.companyId, companyId) && sameFilter(snapshot.filter, filter);
    if (restored) position = snapshot.position;
    const status = this.#authenticated ? { state: /** @type {State} */ ("connecting") } : this.#status;
    const company = new Company(companyId, filter, copyOf(position), on, Object.freeze({ ...status, companyId }));
    if (state) {
      company.store = new Store(this.#options.tables);
      company.store.filter = filter;
      if (restored) company.store.replace(snapshot.rows);
      else company.head = company.position = null; // the rows at another position are not here
    }
    this.#companies.add(company);
    return company;
  }

  /**
   * Requests a company, now or as soon as the server can answer.
   * @param {Company} company
   */
  #request(company) {
    if (company.request) company.request.outdated = true; // repeated when the answer is there
    else if (this.#authenticated) this.#subscribe(company);
    else if (this.#status.code === COMPANY_FORBIDDEN) this.#open();
  }

  /**
   * @param {Company} company
   * @param {Filter} filter
   */
  #setFilter(company, filter) {
    this.#checkOpen();
    if (company.closed) throw new Error("This subscription has ended.");
    company.filter = filter;
    if (company.blocked === "bad_filter") company.blocked = null;
    this.#request(company);
  }

  /** @param {Company} company */
  #unsubscribe(company) {
    if (company.closed) return;
    company.closed = true;
    company.position = null;
    company.store?.clear();
    this.#companies.delete(company);
    this.#discard(company, "unsubscribed");
    this.#leave(company);
    this.#setCompanyStatus(company, "closed");
    if (this.#authenticated && !this.#companies.size) this.#reportNoCompany();
  }

  /** @param {Company} company */
  #leave(company) {
    if (company.requested !== null) this.#send({ type: "unsubscribe", data: { companyId: company.requested } });
    company.requested = null;
  }

  // ------------------------------------------------------------------ the connection

  /** @param {boolean} [again] With another transport, in place of one that is not possible here. */
  async #open(again = false) {
    const { signal } = (this.#attempt = new AbortController());
    if (!again) this.#setStatus("connecting");
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

    this.#unproven = true;
    let socket;
    try {
      socket = this.#overHttp ? await this.#httpSocket() : new this.#WebSocket(this.#url);
      // Chromium does not throw, and sends no `close`.
      if (socket.readyState === CLOSED) throw new Error("The browser blocked the connection.");
    } catch (error) {
      if (signal.aborted) return;
      const why = { reason: "cannot connect", error };
      // The page's Content-Security-Policy forbids it, for example.
      if (!this.#overHttp) this.#forbidden = why;
      this.#reconnectLater(why);
      return;
    }
    if (signal.aborted) return this.#abandon(socket);
    this.#use(socket);
    socket.onopen = () => {
      this.#send({ type: "authenticate", token });
      this.#expectAnswer(this.#options.timeoutMs);
    };
    this.#expectAnswer(this.#options.timeoutMs);
  }

  get #overHttp() {
    return this.#transports[this.#rung] !== "websocket";
  }

  async #httpSocket() {
    const { HttpSocket } = await import("./http.js"); // few need it
    const { heartbeatMs, timeoutMs } = this.#options;
    const fetch = this.#fetch.bind(globalThis); // it is a method of `window`
    return new HttpSocket(this.#url, this.#transports[this.#rung] === "sse", { heartbeatMs, timeoutMs, fetch });
  }

  /** @param {InstanceType<WebSocketClass> | HttpSocket} socket */
  #use(socket) {
    this.#socket = socket;
    socket.onmessage = (/** @type {{ data: unknown, length?: number }} */ event) => {
      if (this.#authenticated) this.#startHeartbeat();
      this.#onMessage(event.data, event.length);
    };
    socket.onclose = (/** @type {{ code: number, reason: string }} */ event) => this.#onClose(event.code, event.reason);
    socket.onerror = () => {}; // a close follows, or the deadline passes
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
    clearTimeout(this.#returning);
    clearTimeout(this.#calm);
    this.#renewals = 0;
    this.#abandon(this.#candidate);
    this.#candidate = null;
    this.#authenticated = this.#renewing = this.#pinging = this.#waitIsFixed = false;
    this.#requested.clear();
    this.#farewell = null;
    this.#requests = [];
    for (const company of this.#companies) {
      company.subscribed = false;
      company.request = company.requested = company.incoming = null;
    }
    const socket = this.#socket;
    this.#socket = null;
    this.#abandon(socket);
  }

  /** @param {InstanceType<WebSocketClass> | HttpSocket | null} socket */
  #abandon(socket) {
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
    const first = this.#requests[0]?.company;
    this.#drop();
    let final = FINAL.has(code) || farewell?.Reconnect === false;
    if (code === COMPANY_FORBIDDEN && first) {
      // The close is the answer to the first request. The others may be allowed.
      this.#block(first, "company_forbidden");
      final = [...this.#companies].every((company) => company.blocked);
    }
    if (code === TOKEN_INVALID || code === TOKEN_EXPIRED) this.#refused = { token: this.#token, code };
    else if (final && !(this.#unproven && this.#transports.length > 1)) return this.#setStatus("stopped", why);
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
    if (this.#forbidden && this.#unproven) {
      // Another transport may be allowed. If none works, another attempt cannot help.
      if (this.#rung + 1 >= this.#transports.length) return this.#setStatus("stopped", this.#forbidden);
      this.#rung++;
      return void this.#open(true);
    }
    this.#fallBack(why.reason);
    this.#waitIsFixed = floor > 0;
    const retryInMs = Math.min(floor + this.#backoff(this.#failures++), MAX_WAIT_MS);
    this.#deadline = setTimeout(() => this.#open(), retryInMs);
    this.#setStatus("waiting", { ...why, retryInMs });
  }

  /**
   * Takes the next transport if the present one does not work: nothing was received, or a stream fell silent.
   * @param {string | undefined} reason
   */
  #fallBack(reason) {
    const isStream = this.#transports[this.#rung] === "sse";
    if (!this.#unproven) {
      this.#misses = 0;
      if (!isStream || reason !== "silent link") return;
    } else if (globalThis.navigator?.onLine === false) return;
    this.#unproven = false;
    const patience = this.#rung === 0 && this.#worked ? MAX_MISSES : 1;
    if (++this.#misses < patience) return;
    this.#misses = 0;
    this.#rung = (this.#rung + 1) % this.#transports.length;
  }

  /** Over HTTP: tries a WebSocket again after a while, without an interruption. */
  #returnLater() {
    clearTimeout(this.#returning);
    this.#abandon(this.#candidate);
    this.#candidate = null;
    if (this.#rung === 0 || this.#transports[0] !== "websocket") return;
    const ms = Math.min((this.#worked ? RETURN_MS : RETURN_BLOCKED_MS) * 2 ** this.#returns++, MAX_RETURN_MS);
    this.#returning = setTimeout(() => this.#tryReturn(), ms * (0.5 + this.#options.random()));
  }

  #tryReturn() {
    const token = this.#token;
    const busy = [...this.#companies].some((company) => company.request || company.incoming);
    if (busy) return this.#returnLater(); // a state that is being sent would begin again
    let socket;
    try {
      socket = this.#candidate = new this.#WebSocket(this.#url);
    } catch {
      return this.#returnLater();
    }
    const giveUp = () => this.#returnLater();
    const timer = (this.#returning = setTimeout(giveUp, this.#options.timeoutMs));
    socket.onopen = () => socket.send(JSON.stringify({ type: "authenticate", token }));
    socket.onclose = giveUp;
    socket.onerror = () => {};
    socket.onmessage = (/** @type {MessageEvent} */ event) => {
      clearTimeout(timer);
      if (!/"Success":\s*true/.test(event.data)) return giveUp();
      this.#candidate = null;
      this.#drop();
      this.#attempt = new AbortController();
      this.#rung = 0;
      this.#use(socket);
      this.#onMessage(event.data);
    };
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
    if (this.#overHttp) return; // it watches its requests itself
    this.#heartbeat = setTimeout(() => this.#ping(), this.#options.heartbeatMs);
  }

  /** Sends a ping on a silent link, and drops the link unless anything is received in time. */
  #ping() {
    if (this.#pinging && !this.#overHttp) return; // a further ping must not extend the deadline
    this.#pinging = true;
    clearTimeout(this.#heartbeat);
    this.#send({ type: "ping" });
    if (this.#overHttp) return;
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
    if (event.type === "online") {
      // It may be another network.
      this.#worked = false;
      this.#returns = 0;
      if (this.#authenticated) this.#returnLater();
    }
    if (this.#authenticated) this.#ping();
    else if (event.type === "offline") return;
    else if (this.#status.state === "waiting" && !this.#waitIsFixed) {
      this.#waitIsFixed = true; // once per wait: a flickering network must not postpone it for ever
      clearTimeout(this.#deadline);
      this.#deadline = setTimeout(() => this.#open(), this.#backoff(0));
    }
  };

  // ------------------------------------------------------------------ the conversation

  /**
   * @param {any} frame Over HTTP it is parsed already.
   * @param {number} [length]
   */
  #onMessage(frame, length = frame.length) {
    /** @type {any} */
    let message = frame;
    if (typeof frame === "string") {
      try {
        message = JSON.parse(frame);
      } catch {
        return this.#failUnreadable();
      }
    }
    if (message?.Type !== "AuthenticationResult") this.#isProven();
    if (!isObject(message)) return;
    if (!isReadable(message)) return this.#failUnreadable();
    switch (message.Type) {
      case "AuthenticationResult":
        return this.#onAuthenticated(message);
      case "SetCompanyResult":
        return this.#onAnswered("setCompany", message);
      case "SubscribeResult":
        return this.#onAnswered("subscribe", message);
      case "Arrived":
        return this.#onArrived(message);
      case "State":
        return this.#onRows(message.Data, length);
      case "StateEnd":
        return this.#onStateEnd(message.Data);
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
        if (message.Data) return this.#onNotArrived(message);
        return this.#reportProblem({ reason: message.Error.Code, error: message.Error });
      case "Pong":
        return;
      default:
        // An unknown type without a position belongs to a later protocol and may be ignored.
        if (message.Position !== undefined) this.#onChange(message);
    }
  }

  /** Something was received. Over HTTP that is not the result of `authenticate`, which no server has sent. */
  #isProven() {
    if (!this.#unproven) return;
    this.#unproven = false;
    if (this.#forbidden) {
      this.#forbidden = null;
      this.#transports.shift();
      this.#rung--;
    }
    if (this.#transports[this.#rung] === "websocket") {
      this.#worked = true;
      this.#returns = 0;
    } else {
      this.#returnLater();
    }
  }

  /** @param {any} message */
  #onAuthenticated(message) {
    if (!this.#overHttp) this.#isProven();
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
    if (!this.#companies.size) this.#reportNoCompany();
    for (const company of [...this.#companies]) this.#request(company);
  }

  /** Sends a new token on the live socket, as soon as `getToken` returns one. */
  async #renewToken() {
    if (this.#renewing) return;
    this.#renewing = true;
    const { signal } = /** @type {AbortController} */ (this.#attempt);
    // Where clocks differ, each new token is about to expire.
    if (this.#renewals) await sleep(this.#options.minDelayMs + this.#backoff(this.#renewals - 1), signal);
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        const token = await this.#fetchToken();
        if (signal.aborted) return;
        if (token !== this.#token) {
          this.#token = token;
          this.#renewing = false;
          this.#renewals++;
          clearTimeout(this.#calm);
          this.#calm = setTimeout(() => (this.#renewals = 0), STEADY_MS);
          return this.#send({ type: "authenticate", token });
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#reportProblem({ reason: "no token", error });
      }
      await sleep(this.#options.minDelayMs + this.#backoff(failures), signal);
    }
  }

  /** @param {Company} company */
  #subscribe(company) {
    const { companyId, blocked } = company;
    if (blocked) {
      this.#expectToLast();
      return this.#setCompanyStatus(company, "idle", { reason: blocked });
    }
    if (company.gapRetries > MAX_GAP_RETRIES) company.head = null; // the state has to be reloaded instead
    // Another filter begins at the present position, with a resync. Until it is accepted the server goes on
    // with the former one.
    const refilters = company.accepted !== null && !sameFilter(company.accepted, company.filter);
    if (!refilters) company.subscribed = false;
    const alone = company === this.#main && this.#companies.size === 1 && sameFilter(company.filter, {}) && !company.store;
    if (!alone && company.requested !== companyId) this.#leave(company);
    const head = refilters ? null : company.head;
    const type = alone ? "setCompany" : "subscribe";
    const { filter, subscribed: replaces } = company;
    company.request = { company, type, companyId, head, filter, replaces, outdated: false };
    company.requested = companyId;
    for (const arrival of company.arrivals.values()) arrival.sent = false;
    this.#requests.push(company.request);
    if (alone) this.#requested.clear(); // the server leaves all others
    this.#requested.add(companyId);
    company.incoming = null;
    this.#send({ type, data: { companyId, ...head, ...filter, ...(company.store ? { state: true } : {}) } });
    // Many clients subscribe at the same time after a restart of the server.
    this.#expectAnswer(3 * this.#options.timeoutMs);
    if (company.status.state !== "connecting") this.#setCompanyStatus(company, "connecting");
  }

  /**
   * @param {string} type
   * @param {any} message
   */
  #onAnswered(type, message) {
    const data = message.Data;
    const index = this.#requests.findIndex((request) =>
      request.type === type && (sameCompany(request.companyId, data?.CompanyId) || (!message.Success && !data)));
    const [request] = index < 0 ? [] : this.#requests.splice(index, 1);
    if (!request) return;
    clearTimeout(this.#deadline);
    if (this.#requests.length) this.#expectAnswer(3 * this.#options.timeoutMs);
    const { company } = request;
    if (company.closed) return;
    company.request = null;
    if (request.outdated) {
      company.subscribed = false;
      return this.#subscribe(company);
    }
    if (!message.Success) return this.#onRefused(request, message.Error);
    this.#expectToLast();
    const refilters = company.accepted !== null && !sameFilter(company.accepted, request.filter);
    company.subscribed = true;
    company.accepted = request.filter;
    company.id = String(data.CompanyId);
    const requested = request.head;
    const head = positionOf(data.Position, data.Epoch, data.At);
    if (data.Recovered === true && requested && samePosition(head, requested)) {
      company.head = { ...head, ...requested };
      const report = { companyId: company.companyId, position: head.after, epoch: head.epoch };
      this.#setCompanyStatus(company, "live");
      if (!company.subscribed) return; // the callback left the company
      this.#report(company, () => company.on.onRecovered?.(report));
    } else {
      let reason = "expired";
      if (company.gapRetries > MAX_GAP_RETRIES) reason = "gap";
      else if (!requested) reason = refilters ? "filter" : "start";
      else if (head.epoch !== requested.epoch) reason = "epoch";
      else if (head.after === requested.after && !samePosition(head, requested)) reason = "epoch";
      company.gapRetries = 0;
      if (company.store) {
        if (!requested && !refilters) reason = company.reason;
        company.head = company.position = null; // a client that is disconnected now begins again
        company.incoming = { head, reason, rows: {}, length: 0 };
        company.reason = "start";
        return this.#sendAwaits();
      }
      company.head = head;
      this.#setCompanyStatus(company, "live");
      if (company.subscribed) this.#resync(company, reason);
    }
    this.#sendAwaits();
  }

  /**
   * @param {Request} request
   * @param {any} error
   */
  #onRefused({ company, replaces }, error) {
    const reason = error.Code;
    if (!REFUSED.has(reason)) return this.#fail(reason, error.Message);
    this.#expectToLast();
    if (reason === "bad_filter" && company.accepted && !sameFilter(company.accepted, company.filter)) {
      company.filter = company.accepted;
      this.#setCompanyStatus(company, replaces ? "live" : "connecting", { reason, error });
      if (!company.closed) replaces ? this.#sendAwaits() : this.#request(company);
      return;
    }
    if (company.accepted) this.#leave(company); // the server would go on with what it accepted before
    this.#block(company, reason);
    this.#setCompanyStatus(company, "idle", { reason, error });
  }

  /**
   * The company must not be requested again before the application acts.
   * @param {Company} company
   * @param {string} reason
   */
  #block(company, reason) {
    company.subscribed = false;
    company.blocked = reason;
    this.#rejectAll(company, reason);
    if (reason === "revoked" || reason === "company_forbidden") {
      if (company.store) company.head = company.position = null;
      company.store?.clear();
    }
  }

  /** @param {any} message */
  #onRevoked(message) {
    const company = this.#find(message.Data.CompanyId);
    if (!company || company.request) return;
    company.requested = null;
    this.#block(company, "revoked");
    this.#setCompanyStatus(company, "idle", { reason: "revoked" });
  }

  /** @param {unknown} companyId */
  #find(companyId) {
    const companies = [...this.#companies];
    return companies.find(({ id }) => id === companyId) ?? companies.find((company) => sameCompany(company.companyId, companyId));
  }

  /**
   * The company that a message is about; null if it cannot be determined.
   * @param {any} message
   */
  #companyOf(message) {
    if (this.#requested.size <= 1) return [...this.#companies].find((company) => company.requested !== null);
    const data = message.Data ?? {};
    const companyId = data.CompanyId ?? data.companyId;
    if (companyId != null) return this.#find(companyId);
    // `case` and `rename` in notifier.toml may spell it otherwise. Its value is in the row all the same.
    const named = [...this.#requested].filter((id) => Object.values(data).some((value) => sameCompany(id, value)));
    return named.length === 1 ? this.#find(named[0]) : null;
  }

  /**
   * A message with a position: a change, a `Skipped`, or a `Resync` of the server.
   * @param {any} message
   */
  #onChange(message) {
    const company = this.#companyOf(message);
    if (company === null) return this.#failUnreadable();
    const head = company?.head;
    // Without a subscription it is of a company that was left, or follows a gap that was requested again.
    if (!company?.subscribed || !head) return;
    const { Position: position } = message;
    if (message.Type === "Resync") {
      const epoch = message.Data?.Epoch ?? head.epoch;
      if (epoch === head.epoch && position < head.after) return;
      company.head = positionOf(position, epoch, message.At);
      company.gapRetries = 0;
      return this.#resync(company, message.Data?.Reason ?? "");
    }
    if (position <= head.after) return; // a duplicate
    const skipped = message.Type === "Skipped";
    if (position > head.after + 1 && !skipped) {
      // Messages are missing: requests them again, and reports nothing before they arrive.
      company.gapRetries++;
      company.subscribed = false;
      return this.#request(company);
    }
    company.gapRetries = 0;
    const now = (company.head = positionOf(position, head.epoch, message.At));
    this.#report(company, () => {
      company.position = now;
      if (skipped) return company.on.onSkipped?.({ companyId: company.companyId, position, epoch: now.epoch });
      company.store?.apply(message);
      company.on.onMessage?.(message);
    });
  }

  // ------------------------------------------------------------------ the state

  /**
   * @param {any} data The one of a `State`.
   * @param {number} length
   */
  #onRows(data, length) {
    const company = this.#companyOf({ Data: data });
    const incoming = company?.incoming;
    if (!company || !incoming) return;
    incoming.length += length;
    if (incoming.length > MAX_STATE_LENGTH) {
      company.incoming = null;
      this.#leave(company);
      this.#block(company, "state_too_large");
      return this.#setCompanyStatus(company, "idle", { reason: "state_too_large" });
    }
    const { rows } = incoming;
    if (!Object.hasOwn(rows, data.Entity)) rows[data.Entity] = [];
    for (const row of data.Rows) rows[data.Entity]?.push(row); // `push(...Rows)` has a limit
  }

  /** @param {any} data The one of a `StateEnd`. */
  #onStateEnd(data) {
    const company = this.#companyOf({ Data: data });
    const incoming = company?.incoming;
    if (!company || !incoming) return;
    const { head, reason, rows } = incoming;
    if (data.Position !== head.after) return this.#failUnreadable();
    company.incoming = null;
    company.head = head;
    this.#setCompanyStatus(company, "live");
    if (company.subscribed) this.#resync(company, reason, rows);
  }

  /** The message is requested again, but not for ever: see MAX_GAP_RETRIES. */
  #failUnreadable() {
    for (const company of this.#companies) if (company.subscribed) company.gapRetries++;
    this.#fail("unreadable message");
  }

  // ------------------------------------------------------------------ has my write arrived?

  /**
   * @param {Company} company
   * @param {string} tx
   * @returns {Promise<number>}
   */
  async #arrived(company, tx) {
    const ended = this.#status.state === "stopped" || this.#status.state === "closed";
    if (company.closed || company.blocked || ended) {
      throw new ArrivalError("not_subscribed", company.blocked ?? company.status.state);
    }
    let arrival = company.arrivals.get(tx);
    if (!arrival) {
      /** @type {any} */
      const settle = {};
      const promise = new Promise((resolve, reject) => Object.assign(settle, { resolve, reject }));
      company.arrivals.set(tx, (arrival = { promise, ...settle }));
      this.#sendAwaits();
    }
    return /** @type {NonNullable<typeof arrival>} */ (arrival).promise;
  }

  /** Sends an `await` for each transaction that the application waits for, as far as is allowed. */
  #sendAwaits() {
    const companies = [...this.#companies];
    const all = companies.flatMap((company) => [...company.arrivals].map(([tx, arrival]) => ({ company, tx, arrival })));
    let room = MAX_AWAITED - all.filter(({ arrival }) => arrival.sent).length;
    for (const { company, tx, arrival } of all) {
      if (arrival.sent || !company.subscribed || company.waiting.some((report) => report.tx === tx)) continue;
      if (room-- <= 0) return;
      arrival.sent = true;
      this.#send({ type: "await", data: { companyId: company.companyId, tx } });
    }
  }

  /** @param {any} message */
  #onArrived(message) {
    const company = this.#companyOf(message);
    const { Tx: tx, Position: position } = message.Data ?? {};
    const arrival = company?.arrivals.get(tx);
    if (!company || !arrival?.sent) return;
    arrival.sent = false;
    this.#report(company, () => {
      company.arrivals.delete(tx);
      arrival.resolve(position);
    }, tx);
    this.#sendAwaits();
  }

  /** @param {any} message */
  #onNotArrived(message) {
    const company = this.#companyOf(message);
    const arrival = company?.arrivals.get(message.Data.Tx);
    if (!company || !arrival?.sent) return;
    company.arrivals.delete(message.Data.Tx);
    arrival.reject(new ArrivalError(message.Error.Code, message.Error.Message));
    this.#sendAwaits();
  }

  /**
   * @param {Company} company
   * @param {string} reason
   */
  #rejectAll(company, reason) {
    for (const arrival of company.arrivals.values()) arrival.reject(new ArrivalError("not_subscribed", reason));
    company.arrivals.clear();
  }

  // ------------------------------------------------------------------ the reports

  /**
   * @param {Company} company
   * @param {() => void} run
   * @param {string} [tx] It is the arrival of this transaction, which outlasts a resync.
   */
  #report(company, run, tx) {
    if (!company.reload) return callSafely(run);
    company.waiting.push({ run, tx });
    if (company.waiting.length > MAX_WAITING) this.#resync(company, "overflow");
  }

  /**
   * @param {Company} company
   * @param {string} reason
   * @param {Record<string, object[]>} [rows]
   */
  #resync(company, reason, rows) {
    const head = /** @type {Position} */ (company.head);
    company.position = null; // there is none until the state has been reloaded
    company.waiting = company.waiting.filter((report) => report.tx !== undefined);
    if (company.store && !rows) {
      company.head = company.due = null;
      company.reason = reason;
      company.subscribed = false;
      return this.#request(company);
    }
    company.due = { companyId: company.companyId, reason, head, rows };
    if (!company.reload) this.#runReload(company);
  }

  /**
   * Has the application reload its state, again if that failed or if another resync came meanwhile.
   * @param {Company} company
   */
  async #runReload(company) {
    for (let failures = 0; company.due; ) {
      const due = company.due;
      const { companyId, reason, head, rows } = due;
      const { signal } = (company.reload = new AbortController());
      company.due = null;
      try {
        const resync = { companyId, reason, position: head.after, epoch: head.epoch, signal };
        if (rows && company.store) {
          company.store.filter = company.accepted ?? {};
          company.store.replace(rows);
          await company.on.onState?.({ ...resync, rows });
        } else {
          await company.on.onResync?.(resync);
        }
        failures = 0;
        // Without a head the state has been requested again.
        if (!signal.aborted && !company.due && (company.head || !company.store)) company.position = head;
      } catch (error) {
        if (signal.aborted) continue;
        this.#setCompanyStatus(company, company.status.state, { reason: "resync failed", error });
        await sleep(this.#backoff(failures++), signal);
        if (!signal.aborted) company.due ??= due;
      }
    }
    company.reload = null;
    // A callback may leave the company, which empties the list.
    for (let report; !company.reload && (report = company.waiting.shift()); ) callSafely(report.run);
  }

  /**
   * The company was left: drops the reports that were not made yet.
   * @param {Company} company
   * @param {string} reason
   */
  #discard(company, reason) {
    company.subscribed = false;
    company.due = null;
    company.waiting = [];
    company.reload?.abort();
    this.#rejectAll(company, reason);
  }

  #reportNoCompany() {
    this.#expectToLast();
    this.#setStatus("idle", { reason: "no company" });
  }

  /**
   * The state of the connection has changed, and with it that of each company.
   * @param {State} state
   * @param {Details & { retryInMs?: number }} [why]
   */
  #setStatus(state, why) {
    const status = (this.#status = Object.freeze({ state, companyId: this.companyId, ...why }));
    const companies = [...this.#companies].map((company) => {
      const own = (company.status = Object.freeze({ ...status, companyId: company.companyId }));
      if (state === "stopped") this.#rejectAll(company, why?.reason ?? state);
      return { company, own };
    });
    callSafely(() => this.#options.onStatus?.(status));
    for (const { company, own } of companies) {
      // Not if a callback has changed it meanwhile.
      if (company !== this.#main && company.status === own) callSafely(() => company.on.onStatus?.(own));
    }
  }

  /**
   * @param {Company} company
   * @param {State} state
   * @param {Details} [why]
   */
  #setCompanyStatus(company, state, why) {
    const status = (company.status = Object.freeze({ state, companyId: company.companyId, ...why }));
    callSafely(() => (company.on.onStatus ?? this.#options.onStatus)?.(status));
  }

  /**
   * Something happened that changes no state.
   * @param {Details} why
   */
  #reportProblem(why) {
    const { state } = this.status;
    for (const company of this.#companies) company.status = Object.freeze({ ...company.status, ...why });
    if (!this.#authenticated || !this.#companies.size) this.#status = Object.freeze({ ...this.#status, ...why });
    callSafely(() => this.#options.onStatus?.(Object.freeze({ state, companyId: this.companyId, ...why })));
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

/** @typedef {(value: any) => boolean} Check */
/** @type {Check} */
const isText = (value) => typeof value === "string";
/** @type {Check} */
const isFlag = (value) => typeof value === "boolean";
/** @type {Check} */
const isId = (value) => isText(value) || Number.isSafeInteger(value);
/** @type {Check} */
const isPosition = (value) => Number.isSafeInteger(value) && value >= 0;
/** @type {Check} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @type {Check} */
const areRows = (value) => Array.isArray(value) && value.every(isObject);

/**
 * An object with these properties, of which those with a question mark may be missing or null.
 * @param {Record<string, Check>} properties
 * @returns {Check}
 */
function objectWith(properties) {
  const checks = Object.entries(properties).map(
    /** @returns {[string, boolean, Check]} */
    ([name, check]) => [name.replace("?", ""), name.endsWith("?"), check],
  );
  return (value) => isObject(value) && checks.every(([name, optional, check]) => (value[name] == null ? optional : check(value[name])));
}

const FAULT = objectWith({ Code: isText, "Message?": isText });
const PLACE = objectWith({ CompanyId: isId, Position: isPosition, Epoch: isText, "At?": isText, "Recovered?": isFlag });
const ACCEPTED = objectWith({ Data: PLACE });
const REFUSAL = objectWith({ Error: FAULT, "Data?": objectWith({ "CompanyId?": isId, "Tx?": isText }) });
/** @type {Check} */
const isAnswer = (message) => isFlag(message.Success) && (message.Success ? ACCEPTED(message) : REFUSAL(message));
const isChange = objectWith({ Position: isPosition, Data: isObject, "Old?": isObject, "At?": isText, "Tx?": isText, "Actor?": isText, "Partial?": isFlag });

/** The shapes of messages by type, as far as they are read here: docs/protocol.md. */
const SHAPES = new Map(Object.entries({
  AuthenticationResult: objectWith({ Success: isFlag, "Data?": isObject, "Error?": FAULT }),
  SetCompanyResult: isAnswer,
  SubscribeResult: isAnswer,
  CompanyRevoked: objectWith({ Data: objectWith({ CompanyId: isId }) }),
  Arrived: objectWith({ Data: objectWith({ CompanyId: isId, Tx: isText, Position: isPosition }) }),
  Error: REFUSAL,
  Disconnect: objectWith({ Data: objectWith({ Code: Number.isInteger, "Reason?": isText, "Reconnect?": isFlag, "RetryAfterMs?": (value) => typeof value === "number" }) }),
  Resync: objectWith({ Position: isPosition, Data: objectWith({ "CompanyId?": isId, "Reason?": isText, "Epoch?": isText }), "At?": isText }),
  State: objectWith({ Data: objectWith({ CompanyId: isId, Entity: isText, Rows: areRows }) }),
  StateEnd: objectWith({ Data: objectWith({ CompanyId: isId, Position: isPosition }) }),
}));

/**
 * Whether an object has the shape of its type. A type without a position may belong to a later protocol.
 * @param {any} message
 */
function isReadable(message) {
  if (!isText(message.Type)) return false;
  const shape = SHAPES.get(message.Type);
  if (shape) return shape(message);
  return message.Position === undefined || isChange(message);
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
 * Whether two ids are equal; the server may spell a uuid differently than the client did. An array or an object is no id, and an object may
 * have no text.
 * @param {unknown} one
 * @param {unknown} other
 */
function sameCompany(one, other) {
  const plain = (/** @type {any} */ id) => (typeof id === "object" ? id : String(id).toLowerCase().replace(/[-{}\s]/g, ""));
  return plain(one) === plain(other) && (/(^|:)[0-9a-f]{32}$/.test(plain(one)) || String(one) === String(other));
}

/**
 * A copy of what the application gave.
 * @param {Filter} options
 * @returns {Filter}
 */
function filterOf({ entities, where }) {
  return JSON.parse(JSON.stringify({ entities: entities ?? undefined, where: where ?? undefined }));
}

/**
 * @param {Filter} one
 * @param {Filter} other
 */
function sameFilter(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/**
 * @param {Company | null} company
 * @param {string} entity
 */
function rowsOf(company, entity) {
  if (!company?.store) throw new Error("There are no rows without the option state.");
  return company.store.table(entity).view;
}

/**
 * @param {Company} company
 * @returns {Snapshot | null}
 */
function snapshotOf({ companyId, accepted, filter, position, store }) {
  if (!store || !position) return null;
  return { companyId, filter: accepted ?? filter, position: /** @type {Position} */ (copyOf(position)), rows: store.all() };
}
