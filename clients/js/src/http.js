/**
 * Companies over HTTP, for networks that let no WebSocket through: docs/http.md. It has the interface of a WebSocket,
 * takes the same commands and reports the same messages, already parsed, so the client above it makes the same checks.
 */

/** @typedef {{ companyId: string, after?: number, epoch?: string, at?: string | undefined, entities?: string[], where?: object, state?: boolean }} Request */
/** @typedef {{ after: number, epoch: string, at: string | undefined }} Place */

/** Browsers open six connections to a server over HTTP/1.1, of which the application needs some. Streams keep theirs. */
const MAX_REQUESTS = 5;
const MAX_STREAMS = 3;
/** How long a poll may wait for a message, in seconds. */
const WAIT = 25;
const SHARED_WAIT = 2;
/** The pause after a poll, in milliseconds: a busy company is not polled for each message, nor a cache that answers at once without end. */
const PAUSE_MS = 200;
/** The server sends a comment on a silent stream every 10 seconds. */
const COMMENT_MS = 11_000;
const UNKNOWN_TX_MS = 10_000;
/** So many transactions are remembered for `await`. */
const MAX_SEEN = 256;
/** What is reported in place of a text that is no message. */
const UNREADABLE = "unreadable message";
/** The longest event, in characters. */
const MAX_EVENT = 4 * 1024 * 1024;
/** The longest page of a poll, and the longest problem document, in bytes. */
const MAX_PAGE = 64 * 1024 * 1024;
const MAX_PROBLEM = 64 * 1024;

/** Problem documents that refuse one company, and those that end the connection, with the code of a close. */
const REFUSALS = new Set(["company_forbidden", "bad_filter", "state_too_large", "state_unavailable"]);
/** @type {Record<string, number>} */
const CLOSES = { token_invalid: 4401, not_authenticated: 4401, token_expired: 4419, malformed: 4400, too_many: 4429, unavailable: 4503 };

/** Why a reader cannot go on. */
class Failure extends Error {
  /**
   * @param {string} code The one of a problem document, or empty.
   * @param {string} message
   * @param {number} [retryAfter] In seconds.
   */
  constructor(code, message, retryAfter) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * What `parse` returns; a Failure where it throws.
 * @param {() => any} parse
 */
function parsed(parse) {
  try {
    return parse();
  } catch {
    throw new Failure("", UNREADABLE);
  }
}

/**
 * The text of a body; a Failure where it has more than `limit` bytes.
 * @param {Response} response
 * @param {number} limit
 */
async function textOf(response, limit) {
  const reader = response.body?.getReader();
  if (!reader) return response.text();
  const decoder = new TextDecoder();
  let text = "";
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    size += value.length;
    if (size > limit) {
      reader.cancel().catch(() => {});
      throw new Failure("", UNREADABLE);
    }
    text += decoder.decode(value, { stream: true });
  }
}

export class HttpSocket {
  onopen = () => {};
  /** @type {(event: { data: any, length: number }) => void} */
  onmessage = () => {};
  /** @type {(event: { code: number, reason: string }) => void} */
  onclose = () => {};
  onerror = () => {};
  readyState = 1;
  token = "";
  control = new AbortController();
  /** @type {Map<string, Reader>} The company's id → the reader that has its place, or was requested last. */
  readers = new Map();
  streams = 0;
  polls = 0;
  /** @type {(() => void)[]} Polls that wait for a connection. */
  queue = [];

  /**
   * @param {string} url The one of the WebSocket.
   * @param {boolean} streaming Whether to try server-sent events before polls.
   * @param {{ heartbeatMs: number, timeoutMs: number, fetch: typeof fetch }} options
   */
  constructor(url, streaming, options) {
    const base = new URL(url.replace("ws", "http"));
    base.search = "";
    base.pathname = base.pathname.replace(/\/?$/, "/");
    this.base = base.href;
    this.streaming = streaming;
    this.options = options;
    setTimeout(() => this.onopen(), 0); // when the caller has set it
  }

  /** @param {string} text A command of docs/protocol.md. */
  send(text) {
    const { type, token, data } = JSON.parse(text);
    if (type === "authenticate") {
      if (this.token) queueMicrotask(() => this.#authenticated());
      else this.#reach();
      this.token = token;
      for (const reader of this.readers.values()) reader.renewed();
    } else if (type === "ping") {
      for (const reader of this.readers.values()) reader.check();
    } else if (type === "await") {
      this.readers.get(data.companyId)?.expect(data.tx);
    } else {
      const { companyId } = data;
      /** @type {Reader | undefined} */
      const former = this.readers.get(companyId);
      if (type === "setCompany") for (const reader of this.readers.values()) if (reader !== former) reader.stop();
      if (type === "unsubscribe") former?.stop();
      else new Reader(this, type, data, former);
    }
  }

  /** Whether the service can be reached at all; the token is verified with each request. */
  async #reach() {
    const { signal } = this.control;
    try {
      await this.options.fetch(this.base, { method: "HEAD", mode: "no-cors", cache: "no-store", signal });
      this.#authenticated();
    } catch {
      this.end(1006, "connection lost");
    }
  }

  #authenticated() {
    this.report({ Type: "AuthenticationResult", Success: true });
  }

  close() {
    this.readyState = 3;
    this.control.abort();
    for (const reader of this.readers.values()) reader.stop();
    this.readers.clear();
  }

  /** A poll has ended: the next one may begin. */
  leave() {
    const next = this.queue.shift();
    if (next) next();
    else this.polls--;
  }

  /**
   * @param {object | string} message A text is no message, and is counted as an unreadable one.
   * @param {number} [length] Characters in which it was received.
   */
  report(message, length = 0) {
    if (this.readyState === 1) this.onmessage({ data: message, length });
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  end(code, reason) {
    if (this.readyState !== 1) return;
    this.close();
    this.onclose({ code, reason });
  }
}

/** One company of an HttpSocket. */
class Reader {
  /** @type {Place | null} The last message that was reported; none while rows of the state are missing. */
  place = null;
  /** @type {Place | null} The place after the state. */
  pending = null;
  answered = false;
  /** The token of the present stream or poll. */
  token = "";
  /** Whether a token was accepted since another one was requested. */
  accepted = false;
  checking = false;
  /** @type {AbortController} */
  control = new AbortController();
  stopped = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** @type {Map<string, number>} Transactions whose messages were reported → the position of the last. */
  seen = new Map();
  /** @type {Map<string, ReturnType<typeof setTimeout>>} Transactions that are waited for. */
  awaited = new Map();
  /** @type {(() => void) | null} Goes on with a new token. */
  renew = null;
  /** @type {Reader | undefined} The one that this one replaces once it is accepted. */
  former;

  /**
   * @param {HttpSocket} socket
   * @param {string} type `setCompany` or `subscribe`.
   * @param {Request} request
   * @param {Reader | undefined} former
   */
  constructor(socket, type, request, former) {
    this.socket = socket;
    this.type = type;
    this.request = request;
    this.former = former;
    former?.former?.stop();
    socket.readers.set(request.companyId, this);
    this.streams = socket.streaming && socket.streams < MAX_STREAMS;
    if (this.streams) socket.streams++;
    this.#run();
  }

  async #run() {
    try {
      while (!this.stopped) {
        try {
          await (this.streams ? this.#stream() : this.#poll());
        } catch (error) {
          if (/** @type {Failure} */ (error).code !== "token_expired") throw error;
          await this.#newToken(/** @type {Failure} */ (error));
        }
      }
    } catch (error) {
      if (!this.stopped) this.#fail(error instanceof Failure ? error : new Failure("", "connection lost"));
    }
  }

  stop() {
    if (this.stopped) return;
    this.stopped = true;
    if (this.streams) this.socket.streams--;
    if (this.socket.readers.get(this.request.companyId) === this) this.socket.readers.delete(this.request.companyId);
    this.former?.stop();
    this.renew?.();
    clearTimeout(this.timer);
    for (const timer of this.awaited.values()) clearTimeout(timer);
    this.control.abort();
  }

  /**
   * @param {Failure} failure
   */
  #fail({ code, message, retryAfter }) {
    const { socket, request } = this;
    if (message === UNREADABLE) socket.report(UNREADABLE); // is counted: the position may have to be given up
    if (REFUSALS.has(code) && !this.answered) {
      const { former } = this;
      this.former = undefined; // goes on
      this.stop();
      if (former && !former.stopped) socket.readers.set(request.companyId, former);
      const Type = this.type === "subscribe" ? "SubscribeResult" : "SetCompanyResult";
      socket.report({ Type, Success: false, Error: { Code: code, Message: message }, Data: { CompanyId: request.companyId } });
    } else if (code === "company_forbidden") {
      this.stop();
      socket.report({ Type: "CompanyRevoked", Data: { CompanyId: request.companyId } });
    } else {
      const closing = Object.hasOwn(CLOSES, code) ? CLOSES[code] : undefined;
      if (closing) {
        const Data = { Code: closing, Reason: message, Reconnect: closing !== 4400, ...(retryAfter ? { RetryAfterMs: retryAfter * 1000 } : {}) };
        socket.report({ Type: "Disconnect", Data });
      }
      socket.end(closing ?? 1006, message);
    }
  }

  /**
   * The link is dead unless something is received within `ms`.
   * @param {number} ms
   */
  #expectWithin(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#fail(new Failure("", "silent link")), ms);
  }

  /** The machine woke up or the network changed: is the link alive? */
  check() {
    if (!this.answered) return;
    if (this.streams) return this.#expectWithin(Math.max(COMMENT_MS, this.socket.options.timeoutMs));
    this.checking = true;
    this.control.abort(); // and again, without a wait
  }

  renewed() {
    this.renew?.();
    this.renew = null;
  }

  /**
   * @param {string} accept
   * @param {Record<string, unknown>} [more]
   */
  async #fetch(accept, more) {
    const { socket, request, place } = this;
    const { companyId, after, epoch, at, state, entities, where } = request;
    const address = new URL(`companies/${encodeURIComponent(companyId)}/messages`, socket.base);
    const parameters = {
      ...(place ?? (this.answered ? {} : { after, epoch, at })),
      entities,
      where: where && JSON.stringify(where),
      state: state && !place ? true : undefined,
      ...more,
    };
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) address.searchParams.set(name, String(value));
    }
    const { fetch } = socket.options;
    const headers = { Accept: accept, Authorization: `Bearer ${socket.token}` };
    const response = await fetch(address, { headers, cache: "no-store", signal: this.control.signal });
    if (!response.ok) {
      const { code, detail, title } = (await textOf(response, MAX_PROBLEM).then(JSON.parse).catch(() => null)) ?? {};
      throw new Failure(String(code ?? ""), String(detail || title || `HTTP ${response.status}`), Number(response.headers.get("Retry-After")));
    }
    this.accepted = true;
    return response;
  }

  /**
   * The token of the request has ended: goes on with the next one.
   * @param {Failure} failure Thrown where there is none in time.
   */
  async #newToken(failure) {
    const { socket } = this;
    // The new token too, as with clocks that differ: the next attempt waits.
    if (!this.place || !this.accepted) throw failure;
    this.accepted = false;
    if (this.token !== socket.token) return;
    clearTimeout(this.timer);
    const renewed = new Promise((resolve) => (this.renew = () => resolve(undefined)));
    const late = setTimeout(() => this.renewed(), 3 * socket.options.timeoutMs);
    socket.report({ Type: "TokenExpiring" });
    await renewed;
    clearTimeout(late);
    if (!this.stopped && this.token === socket.token) throw failure;
  }

  // ------------------------------------------------------------------ server-sent events

  async #stream() {
    const { heartbeatMs, timeoutMs } = this.socket.options;
    this.control = new AbortController();
    // A proxy that buffers a stream holds back its first event too.
    this.#expectWithin(heartbeatMs);
    this.token = this.socket.token;
    const response = await this.#fetch("text/event-stream");
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let text = "";
    for (let begun = false; ; ) {
      const { done, value } = await reader.read();
      if (this.stopped) return;
      if (done) throw new Failure("", "connection lost");
      text += parsed(() => decoder.decode(value, { stream: true }));
      const events = text.split(/\r?\n\r?\n/);
      text = /** @type {string} */ (events.pop());
      if (text.length > MAX_EVENT) throw new Failure("", UNREADABLE);
      if (begun || events.length) this.#expectWithin(Math.max(heartbeatMs, COMMENT_MS) + timeoutMs);
      for (const event of events) {
        const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
        if (!data.length) continue;
        begun = true;
        const message = parsed(() => JSON.parse(data.join("\n")));
        if (message?.Type === "Disconnect" && message.Data?.Code === CLOSES.token_expired && this.place) {
          this.control.abort();
          throw new Failure("token_expired", message.Data.Reason);
        }
        this.#accept(message, undefined, event.length);
        if (this.stopped) return;
      }
    }
  }

  // ------------------------------------------------------------------ long polls

  async #poll() {
    const { socket } = this;
    const room = MAX_REQUESTS - socket.streams;
    if (socket.polls < room) socket.polls++;
    else await new Promise((resolve) => socket.queue.push(() => resolve(undefined))); // takes over the place of another one
    if (this.stopped) return socket.leave();
    const crowded = socket.readers.size - socket.streams > room;
    const wait = !this.answered || this.checking ? 0 : crowded ? SHARED_WAIT : WAIT;
    this.checking = false;
    this.control = new AbortController();
    this.#expectWithin(wait * 1000 + socket.options.timeoutMs);
    this.token = socket.token;
    /** @type {any} */
    let page = null;
    try {
      const answer = await textOf(await this.#fetch("application/json", { wait }), MAX_PAGE);
      page = parsed(() => JSON.parse(answer));
      if (typeof page !== "object" || !Array.isArray(page?.Messages)) throw new Failure("", UNREADABLE);
    } catch (error) {
      if (!this.checking) throw error;
    } finally {
      clearTimeout(this.timer);
      socket.leave();
    }
    if (!page || this.stopped) return;
    const { CompanyId, Position, Epoch, At, Recovered, State, Messages } = page;
    if (this.answered) {
      if (Recovered !== true) throw new Failure("", "connection lost"); // the client requests its place again
    } else {
      const { after, epoch, at } = this.request;
      const here = Recovered ? { Position: after, Epoch: epoch, At: at } : { Position, Epoch, At };
      this.#accept({ Type: "SubscribeResult", Success: true, Data: { CompanyId, ...here, Recovered } }, State);
      for (const Entity in State) this.#accept({ Type: "State", Data: { CompanyId, Entity, Rows: State[Entity] } });
      if (State) this.#accept({ Type: "StateEnd", Data: { CompanyId, Position } });
    }
    for (const message of Messages) if (!this.stopped) this.#accept(message);
    if (Messages.length || wait) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }

  // ------------------------------------------------------------------ messages

  /**
   * @param {any} message
   * @param {unknown} [state] The rows follow.
   * @param {number} [length]
   */
  #accept(message, state = this.request.state && !message?.Data?.Recovered, length = 0) {
    const { Type, Data, Position, At, Tx } = message ?? {};
    switch (Type) {
      case undefined:
        throw new Failure("", UNREADABLE);
      case "SubscribeResult": {
        if (!Data) throw new Failure("", UNREADABLE);
        const place = { after: Data.Position, epoch: Data.Epoch, at: Data.At };
        if (this.answered) {
          if (Data.Recovered === true) return;
          throw new Failure("", "connection lost"); // the client requests its place again
        }
        this.answered = true;
        this.former?.stop();
        this.former = undefined;
        if (state) this.pending = place;
        else this.place = place;
        return this.socket.report(this.type === "subscribe" ? message : { ...message, Type: "SetCompanyResult" });
      }
      case "StateEnd":
        this.place = this.pending;
        break;
      case "Disconnect":
        this.socket.report(message);
        return this.socket.end(1006, "");
      case "TokenExpiring":
        if (this.token !== this.socket.token) return;
        break;
      case "CompanyRevoked":
        this.stop();
        break;
      default:
        if (Position !== undefined && this.place) {
          this.place = { after: Position, epoch: (Type === "Resync" && Data?.Epoch) || this.place.epoch, at: At };
          if (Tx) this.#remember(Tx, Position);
        }
    }
    this.socket.report(message, length);
    if (Tx && this.awaited.has(Tx)) this.#confirm(Tx);
  }

  // ------------------------------------------------------------------ has a write arrived?

  /**
   * @param {string} tx
   * @param {number} position
   */
  #remember(tx, position) {
    this.seen.delete(tx);
    this.seen.set(tx, position);
    if (this.seen.size > MAX_SEEN) this.seen.delete(/** @type {string} */ (this.seen.keys().next().value));
  }

  /**
   * Over HTTP there is no `await`. A transaction is known by its messages; one without any is a `timeout`.
   * @param {string} tx
   */
  expect(tx) {
    if (this.awaited.has(tx)) return;
    const data = { CompanyId: this.request.companyId, Tx: tx };
    this.awaited.set(tx, setTimeout(() => {
      this.awaited.delete(tx);
      this.socket.report({ Type: "Error", Error: { Code: "timeout", Message: "no message of this transaction" }, Data: data });
    }, UNKNOWN_TX_MS));
    if (this.seen.has(tx)) this.#confirm(tx);
  }

  /**
   * Reports the arrival once the log has no further message of the transaction.
   * @param {string} tx
   */
  async #confirm(tx) {
    const at = this.seen.get(tx);
    const request = this.#fetch("application/json", { wait: 0 });
    const page = await request.then((response) => textOf(response, MAX_PAGE)).then(JSON.parse).catch(() => null);
    // Something else may have answered, or the log is another one.
    if (page?.Recovered !== true || !Array.isArray(page.Messages)) return;
    if (page.Messages.some((/** @type {any} */ message) => message?.Tx === tx)) return; // the next message repeats it
    const timer = this.awaited.get(tx);
    if (timer === undefined || this.stopped || this.seen.get(tx) !== at) return;
    clearTimeout(timer);
    this.awaited.delete(tx);
    this.socket.report({ Type: "Arrived", Data: { CompanyId: this.request.companyId, Tx: tx, Position: at } });
  }
}
