// The client over HTTP, on a service that is cut, silent, slow, refusing and restarting: whatever happens, the rows are those of
// the position, and finally complete.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { connect } from "../../clients/js/src/client.js";
// The client loads it when it first needs it, which takes real time: the virtual clock would run on meanwhile.
import "../../clients/js/src/http.js";
import { FakeService } from "../../clients/js/src/testing.js";
import { dice } from "./fuzzing.mjs";
import { pass, settle } from "./world.mjs";

const SEEDS = 60;
const STEPS = 60;

const text = (rows) => JSON.stringify([...rows].sort((one, other) => (one.EventId < other.EventId ? -1 : 1)));
const problem = (status, code, headers = {}) => Response.json({ code, detail: code }, { status, headers });

/** The endpoint of docs/http.md for the companies of a fake service, and the accidents that happen to it while `bad`. */
class Http {
  bad = true;
  /** Streams are held back, as by a proxy that buffers. */
  buffers = false;
  /** The next request cannot resume. */
  forgets = false;
  /** The answer to the next request for messages, in the place of its own. */
  refusal = null;
  token = "t0";
  streams = new Set();
  waiting = new Set();
  requests = 0;
  most = 0;
  open = 0;

  constructor(service, random) {
    this.service = service;
    this.random = random;
    service.publish = (company, message) => this.deliver(company, message);
    this.fetch = this.fetch.bind(this);
  }

  chance(probability) {
    return this.bad && this.random() < probability;
  }

  async fetch(address, { method = "GET", headers, signal }) {
    this.requests++;
    await settle();
    if (signal?.aborted || this.chance(0.08)) throw new TypeError("Failed to fetch");
    if (method === "HEAD") return new Response();
    if (this.chance(0.03)) return problem(503, "unavailable", { "Retry-After": "1" });
    if (this.chance(0.02)) return problem(429, "too_many", { "Retry-After": "2" });
    if (this.chance(0.03)) return new Response("<html>", { status: this.random() < 0.5 ? 200 : 502 });
    const { refusal } = this;
    this.refusal = null;
    if (refusal) return refusal;
    if (headers.Authorization !== `Bearer ${this.token}`) return problem(401, "token_expired");
    const [, id] = /companies\/(.*)\/messages/.exec(new URL(address).pathname);
    const company = this.service.company(decodeURIComponent(id));
    if (!company.isAllowed) return problem(403, "company_forbidden");
    const given = new URL(address).searchParams;
    this.most = Math.max(this.most, ++this.open);
    const left = () => this.open--;
    return headers.Accept === "text/event-stream" ? this.stream(company, given, signal, left) : this.poll(company, given, signal, left);
  }

  answer(company, given) {
    const { log } = company;
    const resumes = given.has("after");
    const after = Number(given.get("after"));
    const sameAt = !given.has("at") || given.get("at") === log[after - 1]?.message.At;
    const Recovered = resumes && given.get("epoch") === this.service.epoch && after <= log.length && sameAt && !this.chance(0.15) && !this.forgets;
    this.forgets = false;
    const Position = Recovered ? after : log.length;
    const state = !Recovered && given.has("state") ? company.state() : null;
    const data = { CompanyId: company.id, Position, Epoch: this.service.epoch, At: log[Position - 1]?.message.At, ...(resumes && { Recovered }) };
    return { data, state, missed: log.slice(Position).map(({ message }) => message) };
  }

  stream(company, given, signal, left) {
    const link = { company, ended: false, buffered: this.buffers };
    const body = new ReadableStream({ start: (controller) => void (link.controller = controller) });
    link.end = (error) => {
      if (link.ended) return;
      link.ended = true;
      left();
      this.streams.delete(link);
      if (error) link.controller.error(error);
      else link.controller.close();
    };
    link.write = (chunk) => {
      if (link.ended || link.buffered) return;
      const bytes = new TextEncoder().encode(chunk);
      const cut = Math.floor(this.random() * bytes.length);
      link.controller.enqueue(bytes.slice(0, cut));
      link.controller.enqueue(bytes.slice(cut));
    };
    const queue = [];
    const pump = () => {
      const message = queue[0];
      if (message === null) return link.end();
      link.write(`data: ${JSON.stringify(message)}\n\n`);
      if (this.chance(0.06)) link.end(new TypeError("network error"));
      setTimeout(() => {
        queue.shift();
        if (queue.length) pump();
      }, this.random() * 30);
    };
    /** Slowly: it may be cut anywhere. Null ends the stream. */
    link.send = (message) => {
      if (queue.push(message) === 1) pump();
    };
    /** Ends the stream with this message, in the place of what waits. */
    link.disconnect = (message) => {
      queue.splice(1);
      link.send(message);
      link.send(null);
    };
    link.comment = () => {
      link.write(":\n\n");
      if (!link.ended) setTimeout(link.comment, 10_000);
    };
    signal.addEventListener("abort", () => link.end(signal.reason));
    this.streams.add(link);
    const { data, state, missed } = this.answer(company, given);
    link.send({ Type: "SubscribeResult", Success: true, Data: data });
    for (const Entity in state) {
      for (const row of state[Entity]) link.send({ Type: "State", Data: { CompanyId: company.id, Entity, Rows: [row] } });
    }
    if (state) link.send({ Type: "StateEnd", Data: { CompanyId: company.id, Position: data.Position } });
    for (const message of missed) link.send(message);
    link.comment();
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  async poll(company, given, signal, left) {
    try {
      const { data, state, missed } = this.answer(company, given);
      const wait = 1000 * Number(given.get("wait") ?? 25);
      const hasAnswer = state || missed.length || !given.has("after") || data.Recovered === false;
      let messages = missed;
      if (!hasAnswer && wait) {
        messages = await new Promise((resolve, reject) => {
          const waiter = { company, resolve };
          this.waiting.add(waiter);
          const timer = setTimeout(resolve, wait, []);
          signal.addEventListener("abort", () => reject(signal.reason));
          waiter.expire = () => resolve(null);
          waiter.done = () => (clearTimeout(timer), this.waiting.delete(waiter));
        });
      }
      if (!messages) return problem(401, "token_expired");
      if (this.chance(0.05)) throw new TypeError("network error");
      const last = messages.at(-1);
      const place = last ? { Position: last.Position, At: last.At } : {};
      return Response.json({ ...data, ...place, ...(state && { State: state }), Messages: messages });
    } finally {
      left();
    }
  }

  deliver(company, message) {
    for (const link of [...this.streams]) if (link.company === company) link.send(message);
    for (const link of [...this.streams]) if (link.company === company && message.Type === "CompanyRevoked") link.send(null);
    for (const waiter of [...this.waiting]) {
      if (waiter.company !== company) continue;
      waiter.done();
      waiter.resolve([message]);
    }
  }

  /** The present token ends: streams end with it, polls are refused. */
  expire(next) {
    this.token = next;
    const end = { Type: "Disconnect", Data: { Code: 4419, Reason: "expired", Reconnect: true } };
    for (const link of [...this.streams]) link.disconnect(end);
    for (const waiter of [...this.waiting]) (waiter.done(), waiter.expire());
  }

  accident() {
    const link = [...this.streams][Math.floor(this.random() * this.streams.size)];
    const kind = Math.floor(this.random() * 5);
    if (kind === 0) link?.end(new TypeError("network error"));
    else if (kind === 1) link?.end();
    else if (kind === 2 && link) link.buffered = true; // it is silent from now on
    else if (kind === 3) this.buffers = !this.buffers;
    else if (kind === 4) this.expire(`t${Math.floor(this.random() * 1e9)}`);
  }
}

/** Never opens. */
class Blocked {
  readyState = 0;
  constructor() {
    setTimeout(() => this.onclose({ code: 1006, reason: "" }));
  }
  send() {}
  close() {}
}

class Run {
  history = new Map();
  events = 0;

  constructor(seed) {
    this.random = dice(seed);
    this.service = new FakeService();
    this.http = new Http(this.service, this.random);
    this.company = this.service.company("a/ü");
    for (let row = 0; row < 15; row++) this.company.create("Event", { EventId: `first ${row}`, Title: "-" });
    this.record();
    const transport = ["sse", "poll", "auto"][seed % 3];
    this.client = connect({
      url: "ws://notifier.test/realtime",
      getToken: () => this.http.token,
      companyId: "a/ü",
      state: true,
      transport,
      WebSocket: Blocked,
      fetch: this.http.fetch,
      random: this.random,
      minDelayMs: 50,
      maxDelayMs: 400,
      onMessage: () => this.check(),
      onState: () => this.random() < 0.2 && new Promise((resolve) => setTimeout(resolve, 500)),
    });
  }

  record() {
    this.history.set(this.company.position, text(this.company.state().Event ?? []));
  }

  write() {
    const { company, random } = this;
    const rows = company.state().Event ?? [];
    const row = rows[Math.floor(random() * rows.length)];
    const kind = random();
    if (!row || kind < 0.35) company.create("Event", { EventId: String(++this.events), Title: "ä" });
    else if (kind < 0.7) company.update("Event", { EventId: row.EventId, Title: String(random()) });
    else if (kind < 0.9) company.delete("Event", row);
    else company.resync();
    this.record();
  }

  /** Where there is a position, the rows are those of that position. */
  check() {
    const snapshot = this.client.snapshot();
    if (snapshot) assert.equal(text(snapshot.rows.Event ?? []), this.history.get(snapshot.position.after));
  }

  /** Returns when the client is live, and has the last position. */
  async arrives() {
    const { client, company } = this;
    const done = () => client.position?.after === company.position && client.status.state === "live";
    for (let waited = 0; waited < 300 && !done(); waited++) await pass(1000);
    assert.ok(done(), `${JSON.stringify(client.status)} at ${client.position?.after} of ${company.position}`);
    this.check();
  }

  async go() {
    for (let step = 0; step < STEPS; step++) {
      if (this.random() < 0.7) this.write();
      if (this.random() < 0.2) this.http.accident();
      await pass(this.random() < 0.1 ? 20_000 * this.random() : 400 * this.random());
      this.check();
    }
    this.http.bad = this.http.buffers = false;
    await this.arrives();
    // One last accident.
    const last = this.random();
    if (last < 0.3) {
      for (const link of this.http.streams) link.buffered = true;
      this.write();
    } else if (last < 0.6) {
      this.write();
      this.http.forgets = true;
      if (last < 0.45) this.http.expire("last");
      this.write();
    } else if (last < 0.8) {
      this.company.resync();
      this.record();
      await pass(300 * this.random());
      this.http.expire("last");
    }
    await this.arrives();
    this.client.close();
    await pass(1000);
    assert.equal(this.http.open, 0, "closing ends all requests");
  }
}

/** A test with a virtual clock. */
function virtual(name, run) {
  test(name, async () => {
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout"] });
    await run();
    mock.timers.reset();
  });
}

function follow({ transport = "auto", companies = ["a"] } = {}) {
  const service = new FakeService();
  const http = new Http(service, dice(1));
  http.bad = false;
  const messages = [];
  const statuses = [];
  const resyncs = [];
  const getToken = () => http.token;
  const client = connect({
    url: "ws://notifier.test/",
    getToken,
    transport,
    WebSocket: Blocked,
    fetch: http.fetch,
    random: () => 0.5,
    onStatus: ({ state }) => statuses.push(state),
    onMessage: ({ Data }) => messages.push(Data.CompanyId),
    onResync: ({ reason, position }) => void resyncs.push([reason, position]),
  });
  const subscriptions = companies.map((id) => client.subscribe(id));
  return { service, http, client, messages, statuses, resyncs, subscriptions };
}

const accepted = (Epoch) => ({ Type: "SubscribeResult", Success: true, Data: { CompanyId: "a", Position: 0, Epoch } });

for (const [name, transport, body] of [
  ["a page that is no JSON", "poll", "<html>"],
  ["an event that is no JSON", "sse", "data: <html>\n\n"],
  ["an event that is no message", "sse", "data: null\n\n"],
  ["an answer without data", "sse", `data: {"Type":"SubscribeResult","Success":true}\n\n`],
  ["a page with what is no message", "poll", JSON.stringify({ CompanyId: "a", Position: 0, Epoch: "e", Messages: [7] })],
  ["an event that is no UTF-8", "sse", Buffer.from(`data: ${JSON.stringify(accepted("\xff"))}\n\n`, "latin1")],
]) {
  virtual(`${name} is an unreadable message`, async () => {
    const { http, client } = follow({ transport });
    http.refusal = new Response(body);
    await pass(100);
    assert.deepEqual([client.status.state, client.status.reason], ["waiting", "unreadable message"]);
    await pass(client.status.retryInMs + 100);
    assert.equal(client.status.state, "live");
    client.close();
  });
}

virtual("a stream that is held back is found within the heartbeat's time, and polls take its place", async () => {
  const { http, client, service, messages } = follow();
  http.buffers = true;
  await pass(15_000);
  assert.equal(client.transport, "sse");
  await pass(8_000);
  assert.equal(client.transport, "poll");
  service.company("a").create("Event", { EventId: "1" });
  await pass(1_000);
  assert.deepEqual(messages, ["a"]);
  client.close();
});

/** A client whose WebSockets reach the service unless they are blocked; `opened` counts them. */
function guarded(options) {
  const service = new FakeService();
  const http = new Http(service, dice(1));
  http.bad = false;
  const sockets = service.options.WebSocket;
  const publish = service.publish;
  service.publish = (...change) => {
    FakeService.prototype.publish.apply(service, change);
    publish(...change);
  };
  const network = { blocked: false, opened: 0 };
  const WebSocket = function () {
    network.opened++;
    return network.blocked ? new Blocked() : new sockets();
  };
  const messages = [];
  const statuses = [];
  const client = connect({
    ...service.options,
    transport: "auto",
    minDelayMs: 1_000,
    maxDelayMs: 30_000,
    companyId: "a",
    getToken: () => "t0",
    WebSocket,
    fetch: http.fetch,
    random: () => 0.5,
    onStatus: ({ state }) => statuses.push([state, client?.transport ?? null]),
    onMessage: ({ Position }) => messages.push(Position),
    ...options,
  });
  return { service, http, client, network, messages, statuses };
}

virtual("where a WebSocket has worked three must fail; the way back is tried beside the stream, and interrupts nothing", async () => {
  const { service, client, network, messages, statuses } = guarded();
  await pass(1_000);
  assert.equal(client.transport, "websocket");
  Object.assign(network, { blocked: true, opened: 0 });
  service.disconnect();
  await pass(4_000); // waits of 0.5, 1 and 2 s
  assert.equal(network.opened, 3);
  await pass(4_000);
  assert.equal(client.transport, "sse");
  service.company("a").create("Event", { EventId: "1" });
  await pass(3_000);
  assert.ok(network.opened > 3, "a WebSocket is tried again");
  network.blocked = false;
  statuses.length = 0;
  for (let event = 2; event < 40 && client.transport === "sse"; event++) {
    service.company("a").create("Event", { EventId: String(event) });
    await pass(500);
  }
  await pass(500);
  assert.deepEqual(statuses, [["connecting", "websocket"], ["live", "websocket"]]);
  service.company("a").create("Event", { EventId: "last" });
  await pass(500);
  assert.deepEqual(messages, service.company("a").log.map(({ message }) => message.Position));
  client.close();
});

virtual("a final code from something on the way, before anything was received, does not stop the client", async () => {
  class Meddled {
    constructor() {
      setTimeout(() => this.onclose({ code: 1002, reason: "" }));
    }
    close() {}
  }
  const { client } = guarded({ WebSocket: Meddled });
  await pass(5_000);
  assert.deepEqual([client.transport, client.status.state], ["sse", "live"]);
  client.close();
});

virtual("where none has worked one is enough, and the next is tried after 30 seconds", async () => {
  const { client, network } = guarded();
  network.blocked = true;
  await pass(3_000);
  assert.deepEqual([network.opened, client.transport], [1, "sse"]);
  await pass(25_000);
  assert.equal(network.opened, 1);
  await pass(75_000);
  assert.equal(network.opened, 3, "after 30 s, and after 60 s more");
  client.close();
});

virtual("a stream whose token was renewed goes on with the new one, also after an arrival was confirmed with it", async () => {
  const { http, client, service, messages, statuses, subscriptions } = follow({ transport: "sse" });
  await pass(3_000);
  http.token = "t1";
  for (const link of http.streams) link.send({ Type: "TokenExpiring" });
  await pass(1_000);
  const tx = service.company("a").create("Event", { EventId: "1" });
  const arrived = subscriptions[0].arrived(tx);
  await pass(1_000);
  assert.equal(await arrived, 1);
  statuses.length = 0;
  http.expire("t1"); // the stream's token, t0
  service.company("a").create("Event", { EventId: "2" });
  await pass(60_000);
  assert.deepEqual([messages, statuses], [["a", "a"], []]);
  client.close();
});

for (const transport of ["sse", "poll"]) {
  virtual(`${transport}: a transaction has arrived with its last message, also behind one that the filter skips`, async () => {
    const { client, service, subscriptions } = follow({ transport });
    const { log } = service.company("a");
    const [first, skipped, last] = [
      { Type: "EventUpdated", Data: { CompanyId: "a" }, Tx: "7", Position: 1, At: "1" },
      { Type: "Skipped", Data: { CompanyId: "a" }, Position: 2, At: "2" },
      { Type: "EventUpdated", Data: { CompanyId: "a" }, Tx: "7", Position: 3, At: "3" },
    ];
    await pass(3_000);
    for (const message of [first, skipped]) {
      log.push({ message });
      service.publish(service.company("a"), message);
      await pass(1_000);
    }
    log.push({ message: last }); // not sent yet
    let position = null;
    subscriptions[0].arrived("7").then((arrived) => (position = arrived));
    await settle();
    await settle();
    assert.equal(position, null);
    service.publish(service.company("a"), last);
    await pass(1_000);
    assert.equal(position, 3);
    client.close();
  });

  virtual(`${transport}: a transaction that was received before has arrived`, async () => {
    const { client, messages, service, subscriptions } = follow({ transport });
    await pass(3_000);
    const tx = service.company("a").create("Event", { EventId: "1" });
    await pass(3_000);
    assert.deepEqual(messages, ["a"]);
    let position = null;
    subscriptions[0].arrived(tx).then((arrived) => (position = arrived));
    await pass(3_000);
    assert.equal(position, 1);
    client.close();
  });

  virtual(`${transport}: a transaction without a message here is a timeout after 10 seconds`, async () => {
    const { client, service, subscriptions } = follow({ transport });
    await pass(3_000);
    service.company("a").create("Event", { EventId: "1" });
    let code = null;
    subscriptions[0].arrived("9").catch((error) => (code = error.code));
    await pass(9_900);
    assert.equal(code, null);
    await pass(200);
    assert.equal(code, "timeout");
    client.close();
  });

  virtual(`${transport}: a log that was replaced is a resync, after which messages follow`, async () => {
    const { http, client, service, messages, resyncs } = follow({ transport });
    await pass(3_000);
    service.company("a").create("Event", { EventId: "1" });
    await pass(1_000);
    service.epoch = "fake-2";
    for (const link of [...http.streams]) link.end();
    await pass(60_000);
    service.company("a").create("Event", { EventId: "2" });
    await pass(3_000);
    assert.deepEqual([resyncs, messages], [[["start", 0], ["epoch", 1]], ["a", "a"]]);
    client.close();
  });

  virtual(`${transport}: a filter that is refused leaves the former request, which goes on with all it does`, async () => {
    const { http, client, service, messages, resyncs, subscriptions } = follow({ transport });
    await pass(3_000);
    http.refusal = problem(400, "bad_filter");
    subscriptions[0].setFilter({ entities: ["Nothing"] });
    await pass(3_000);
    assert.deepEqual([subscriptions[0].status.state, subscriptions[0].status.reason], ["live", "bad_filter"]);
    let position = null;
    subscriptions[0].arrived(service.company("a").create("Event", { EventId: "1" })).then((arrived) => (position = arrived));
    await pass(3_000);
    assert.deepEqual([messages, resyncs, position], [["a"], [["start", 0]], 1]);
    client.close();
  });

  virtual(`${transport}: a refusal for a while is obeyed`, async () => {
    const { http, client } = follow({ transport });
    http.refusal = problem(429, "too_many", { "Retry-After": "20" });
    await pass(3_000);
    const { state, code, retryInMs } = client.status;
    assert.deepEqual([state, code, retryInMs >= 20_000], ["waiting", 4429, true]);
    await pass(25_000);
    assert.equal(client.transport, transport);
    client.close();
  });

  virtual(`${transport}: many companies share the few connections that a browser opens`, async () => {
    const companies = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const { http, client, service, messages, subscriptions } = follow({ transport, companies });
    await pass(20_000);
    assert.ok(subscriptions.every(({ status }) => status.state === "live"));
    assert.equal(http.most, 5);
    for (const id of companies) service.company(id).create("Event", { EventId: id });
    await pass(20_000);
    assert.deepEqual(messages.sort(), companies);
    client.close();
    await pass(1_000);
    assert.equal(http.open, 0);
  });

  virtual(`${transport}: a token that ends is replaced without an interruption`, async () => {
    const { http, client, service, messages, statuses } = follow({ transport });
    await pass(3_000);
    statuses.length = 0;
    http.expire("next");
    service.company("a").create("Event", { EventId: "1" });
    await pass(3_000);
    assert.deepEqual(messages, ["a"]);
    assert.deepEqual(statuses, []);
    client.close();
  });

  virtual(`${transport}: lost access ends the company, and only that`, async () => {
    const { client, service, messages, subscriptions } = follow({ transport, companies: ["a", "b"] });
    await pass(3_000);
    service.company("a").revoke();
    await pass(3_000);
    assert.deepEqual([subscriptions[0].status.state, subscriptions[0].status.reason], ["idle", "revoked"]);
    service.company("a").create("Event", { EventId: "1" });
    service.company("b").create("Event", { EventId: "2" });
    await pass(3_000);
    assert.deepEqual(messages, ["b"]);
    client.close();
  });
}

for (const transport of ["sse", "poll"]) {
  virtual(`${transport}: a new token that has expired too is not replaced without a wait`, async () => {
    const { http, client, statuses } = follow({ transport });
    await pass(3_000);
    assert.equal(statuses.at(-1), "live");
    let tokens = 0;
    Object.defineProperty(http, "token", { get: () => `t${++tokens}`, set() {} });
    Object.defineProperty(http, "refusal", { get: () => problem(401, "token_expired"), set() {} });
    for (const link of [...http.streams]) link.disconnect({ Type: "Disconnect", Data: { Code: 4419, Reason: "expired", Reconnect: true } });
    for (const waiter of [...http.waiting]) (waiter.done(), waiter.expire());
    await pass(1_000);
    assert.ok(statuses.includes("waiting"), `${tokens} tokens`);
    client.close();
  });
}

/** A body that goes on until the client leaves, or has sent `most` parts. */
function endless(first, part, most) {
  const encoder = new TextEncoder();
  const sent = { parts: 0, left: false };
  const fetch = async (_, { method, signal }) => {
    if (method === "HEAD") return new Response();
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(encoder.encode(first));
        signal.addEventListener("abort", () => (sent.left ||= Boolean(controller.error(signal.reason)) || true));
      },
      async pull(controller) {
        await new Promise((resolve) => setImmediate(resolve));
        if (sent.left || sent.parts >= most) return;
        sent.parts++;
        controller.enqueue(encoder.encode(part));
      },
      cancel: () => void (sent.left = true),
    });
    return new Response(body);
  };
  return { fetch, sent };
}

for (const [name, transport, first, part, reason] of [
  ["a state over a stream", "sse", `data: ${JSON.stringify(accepted("e"))}\n\n`, `data: ${JSON.stringify({ Type: "State", Data: { CompanyId: "a", Entity: "Event", Rows: [{ EventId: "1", Title: "x".repeat(2_000_000) }] } })}\n\n`, "state_too_large"],
  ["a page of a poll", "poll", "", " ".repeat(2_000_000), "unreadable message"],
]) {
  test(`${name} that has no end is not collected`, async () => {
    mock.timers.reset();
    const { fetch, sent } = endless(first, part, 60);
    const client = connect({ url: "ws://notifier.test/", companyId: "a", state: true, transport, getToken: () => "t", fetch });
    for (let waited = 0; waited < 3000 && !sent.left && sent.parts < 60; waited++) await new Promise((resolve) => setTimeout(resolve, 5));
    const { parts } = sent;
    assert.equal(client.status.reason, reason);
    client.close();
    assert.ok(parts < 40, `${parts} parts`);
  });
}

virtual("polls that are answered at once without messages are spaced", async () => {
  const { http, client, service } = follow({ transport: "poll" });
  await pass(3_000);
  const page = { CompanyId: "a", Position: 0, Epoch: service.epoch, Recovered: true, Messages: [] };
  Object.defineProperty(http, "refusal", { get: () => Response.json(page), set() {} });
  const before = http.requests;
  service.company("a").create("Event", { EventId: "1" });
  await pass(2_000);
  const polls = http.requests - before;
  assert.ok(polls > 2 && polls <= 11, `${polls} polls`);
  client.close();
});

test("over any HTTP the rows are those of the position, and finally complete", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout"] });
    try {
      await new Run(seed).go();
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
  }
  mock.timers.reset();
});

for (const [name, answer] of Object.entries({ "no page": {}, "no object": null, "no list": { Recovered: true, Messages: 1 }, "another log": { Recovered: false, Messages: [] } })) {
  virtual(`an answer that is ${name} confirms no arrival, and ends nothing`, async () => {
    const { http, client, service, subscriptions } = follow({ transport: "sse" });
    await pass(3_000);
    const tx = service.company("a").create("Event", { EventId: "1" });
    let outcome = "none";
    subscriptions[0].arrived(tx).then(
      () => (outcome = "arrived"),
      (error) => (outcome = error.code),
    );
    http.refusal = Response.json(answer);
    await pass(1_000);
    assert.equal(outcome, "none");
    client.close();
  });
}

virtual("an event without end is not collected", async () => {
  const { http, client, statuses } = follow({ transport: "sse" });
  await pass(3_000);
  const [link] = http.streams;
  link.controller.enqueue(new TextEncoder().encode(`data: ${"x".repeat(5 * 1024 * 1024)}`));
  await pass(1_000);
  assert.ok(link.ended, "the stream is closed");
  client.close();
});
