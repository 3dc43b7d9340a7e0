// The server's end of a client's sockets, and a clock that the tests advance.

import { mock } from "node:test";

import { connect } from "../../clients/js/src/client.js";

export const EPOCH = "e1";

/** Lets everything happen that is due now. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Lets `ms` pass, so that timers fire one after another. */
export async function pass(ms) {
  await settle();
  for (let rest = ms; rest > 0; rest -= 50) {
    mock.timers.tick(Math.min(50, rest));
    await settle();
  }
}

export function stopTheClock() {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
}

/** The server's end of one socket. */
export class Peer {
  /** The messages that the client sent. */
  received = [];
  closed = false;

  constructor(socket, url) {
    this.socket = socket;
    this.url = url;
  }

  get last() {
    return this.received.at(-1);
  }

  async open() {
    this.socket.onopen({});
    await settle();
  }

  async send(...messages) {
    for (const message of messages) {
      this.socket.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
    }
    await settle();
  }

  async close(code, reason = "") {
    this.closed = true;
    this.socket.onclose({ code, reason });
    await settle();
  }

  /** Answers both commands, from the handshake to the acknowledgement. */
  async acknowledge({ position = 10, epoch = EPOCH, recovered, at } = {}) {
    await this.open();
    await this.send(authenticated());
    await this.send(subscribed(this.last.data.companyId, position, { epoch, recovered, at }));
  }
}

export const authenticated = () => ({ Type: "AuthenticationResult", Success: true, Data: { UserId: "u1" } });

export const subscribed = (companyId, position, { epoch = EPOCH, recovered, at } = {}) => ({
  Type: "SetCompanyResult",
  Success: true,
  Data: { CompanyId: companyId, Position: position, Epoch: epoch, Recovered: recovered, At: at },
});

export const refused = (code = "company_forbidden") => ({
  Type: "SetCompanyResult",
  Success: false,
  Error: { Code: code, Message: "No." },
});

/** The answer to `subscribe`. */
export const answered = (companyId, position, options) => ({ ...subscribed(companyId, position, options), Type: "SubscribeResult" });

/** A refusal of `subscribe`. */
export const rejected = (CompanyId, code) => ({ ...refused(code), Type: "SubscribeResult", Data: { CompanyId } });

export const change = (position, data = {}) => ({
  Type: "EventUpdated",
  Data: { EventId: "1", CompanyId: "a", ...data },
  Position: position,
});

export const resync = (position, { reason = "bulk", epoch = EPOCH } = {}) => ({
  Type: "Resync",
  Data: { CompanyId: "a", Reason: reason, Epoch: epoch },
  Position: position,
});

/** A client, the sockets that it opened, and its reports. */
export async function follow(options = {}) {
  const peers = [];
  const reports = [];
  const tokensFetched = [];

  class WebSocket {
    constructor(url) {
      this.peer = new Peer(this, url);
      peers.push(this.peer);
    }
    send(text) {
      this.peer.received.push(JSON.parse(text));
    }
    close() {
      this.peer.closed = true;
    }
  }

  const client = connect({
    url: "ws://notifier.test/",
    companyId: "a",
    WebSocket,
    random: () => 0.5,
    transport: "websocket",
    ...options,
    getToken: () => {
      tokensFetched.push(null);
      return options.getToken ? options.getToken(tokensFetched.length) : `token-${tokensFetched.length}`;
    },
    onMessage: (message) => {
      reports.push(["message", message.Position]);
      options.onMessage?.(message);
    },
    onRecovered: (recovered) => {
      reports.push(["recovered", recovered.position]);
      options.onRecovered?.(recovered);
    },
    onResync: (resync) => {
      reports.push(["resync", resync.reason, resync.position]);
      return options.onResync?.(resync);
    },
    onStatus: (status) => options.onStatus?.(status),
  });
  await settle();
  return {
    client,
    peers,
    reports,
    tokensFetched,
    get peer() {
      return peers.at(-1);
    },
    /** The reports since the last call. */
    newReports: () => reports.splice(0),
  };
}
