// What the client's tests stand on: sockets that the test holds the other end of, and time that
// passes only when the test says so.

import { mock } from "node:test";

import { connect } from "../../notifier/client/js/client.js";

export const EPOCH = "e1";

/** Lets everything happen that is due now. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Lets `ms` pass, timer by timer. */
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
  /** What the client said. */
  said = [];
  closed = false;

  constructor(socket, url) {
    this.socket = socket;
    this.url = url;
  }

  get last() {
    return this.said.at(-1);
  }

  async open() {
    this.socket.onopen({});
    await settle();
  }

  async say(...messages) {
    for (const message of messages) {
      this.socket.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
    }
    await settle();
  }

  async end(code, reason = "") {
    this.closed = true;
    this.socket.onclose({ code, reason });
    await settle();
  }

  /** From the handshake to the acknowledgement. */
  async welcome({ position = 10, epoch = EPOCH, recovered } = {}) {
    await this.open();
    await this.say(admitted());
    await this.say(subscribed(this.last.data.companyId, position, { epoch, recovered }));
  }
}

export const admitted = () => ({ Type: "AuthenticationResult", Success: true, Data: { UserId: "u1" } });

export const subscribed = (companyId, position, { epoch = EPOCH, recovered } = {}) => ({
  Type: "SetCompanyResult",
  Success: true,
  Data: { CompanyId: companyId, Position: position, Epoch: epoch, Recovered: recovered },
});

export const refused = (code = "company_forbidden") => ({
  Type: "SetCompanyResult",
  Success: false,
  Error: { Code: code, Message: "No." },
});

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

/** A client, the sockets that it opened, and a list of what it reported. */
export async function follow(options = {}) {
  const peers = [];
  const reports = [];
  const asked = [];

  class WebSocket {
    constructor(url) {
      this.peer = new Peer(this, url);
      peers.push(this.peer);
    }
    send(text) {
      this.peer.said.push(JSON.parse(text));
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
    ...options,
    getToken: () => {
      asked.push(null);
      return options.getToken ? options.getToken(asked.length) : `token-${asked.length}`;
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
    asked,
    get peer() {
      return peers.at(-1);
    },
    /** What was reported since the last time that one asked. */
    news: () => reports.splice(0),
  };
}
