// A server behind a link that loses, repeats, delays and reorders messages; it closes with any code,
// freezes, prunes its log, begins new epochs, and is restored from backups. The application knows only the client's reports. Its
// rows are never older than the client's position, and once the link is good again, they are complete.
//
// FUZZ_SEED=n runs one seed, FUZZ_RUNS=n more of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../clients/js/src/client.js";
import { dice, runSeeds, World } from "./fuzzing.mjs";
import { pass, settle, stopTheClock } from "./world.mjs";

const RUNS = 150;
const STEPS = 150;
const KEYS = 5;
const CLOSES = [1000, 1001, 1006, 1011, 1012, 4401, 4408, 4419, 4429, 4500, 4503, 4508];

/** A company's log: each message sets `key` to `value`. Values grow, so an older one is smaller. */
class Company {
  epoch = 1;
  head = 0;
  kept = 0; // messages up to this position are beyond the retention
  log = new Map();
  rows = Array(KEYS).fill(0);
  /** "epoch/position/at" → the rows at that position. */
  history = new Map();
  #value = 0;
  #time = 0;
  #backup = null;

  constructor(id) {
    this.id = id;
    this.record();
  }

  get position() {
    return { Position: this.head, Epoch: `e${this.epoch}`, At: this.log.get(this.head)?.At };
  }

  record() {
    const { Position, Epoch, At } = this.position;
    this.history.set(`${Epoch}/${Position}/${At}`, [...this.rows]);
  }

  backUp() {
    this.#backup = { epoch: this.epoch, head: this.head, kept: this.kept, rows: [...this.rows], log: new Map(this.log), history: new Map(this.history) };
  }

  /** Loses what was written since the backup: the same epoch, and positions that will be used again. */
  restore() {
    if (!this.#backup) return;
    const { rows, log, history, ...rest } = this.#backup;
    Object.assign(this, rest, { rows: [...rows], log: new Map(log), history: new Map(history) });
  }

  write(key) {
    this.rows[key] = ++this.#value;
    this.append({ Type: "EventUpdated", Data: { key, value: this.#value } });
  }

  /** A bulk change: several rows have changed, and one Resync stands for all of it. */
  writeMany(key) {
    for (let i = 0; i < 3; i++) this.rows[(key + i) % KEYS] = ++this.#value;
    this.append({ Type: "Resync", Data: { Reason: "bulk", Epoch: `e${this.epoch}` } });
  }

  /** The log is lost, together with a change that was written meanwhile. */
  beginEpoch(key, position) {
    this.epoch++;
    this.rows[key] = ++this.#value;
    this.head = this.kept = position;
    this.log.clear();
    this.append({ Type: "Resync", Data: { Reason: "epoch", Epoch: `e${this.epoch}` } });
  }

  append(message) {
    this.log.set(++this.head, { ...message, Position: this.head, At: `t${++this.#time}` });
    this.record();
  }
}

class Companies extends World {
  constructor(random) {
    super(random, Link);
    this.companies = { a: new Company("a"), b: new Company("b") };
  }

  /** Queued messages arrive, and links open. */
  async carry() {
    for (const link of [...this.links]) link.carry();
    await settle();
  }

  commit() {
    const company = this.pick(Object.values(this.companies));
    const key = Math.floor(this.random() * KEYS);
    if (this.chance(0.04)) {
      // A message does not name its epoch and company; only its place in the stream does. So the link
      // keeps the order across a change of these two, as TCP does.
      for (const link of this.links) if (link.company === company) link.flush();
      company.beginEpoch(key, Math.floor(this.random() * (company.head + 2)));
      this.deliver(company, true);
    } else {
      if (this.chance(0.05)) company.writeMany(key);
      else company.write(key);
      // Some are never delivered, however often the client requests them.
      company.log.get(company.head).lost = this.chance(0.02);
      this.deliver(company);
    }
    if (this.chance(0.05)) company.kept = Math.max(company.kept, company.head - 3);
  }

  /** The database of a company is restored from its backup, and its server starts again. */
  restore() {
    const company = this.pick(Object.values(this.companies));
    for (const link of [...this.links]) if (link.company === company) link.close(1006);
    company.restore();
  }

  deliver(company, reliably = false) {
    for (const link of this.links) if (link.company === company) link.transmit(company.log.get(company.head), reliably);
  }
}

/** The server's end of a socket, behind a bad link. */
class Link {
  opened = false;
  frozen = false;
  authenticated = false;
  company = null;
  queue = [];

  constructor(world, socket) {
    this.world = world;
    this.socket = socket;
    this.blocked = world.chance(0.1);
  }

  receive(message) {
    if (this.frozen || this.world.chance(0.03)) return;
    this.answer(message);
    if (this.world.chance(0.03)) this.answer(message);
  }

  answer({ type, data }) {
    if (type === "authenticate") {
      this.authenticated = true;
      this.transmit({ Type: "AuthenticationResult", Success: true, Data: {} });
    } else if (type === "ping") this.transmit({ Type: "Pong" });
    else if (!this.authenticated) this.transmit({ Type: "Error", Error: { Code: "not_authenticated" } });
    else this.subscribe(this.world.companies[data.companyId], data);
  }

  subscribe(company, { after, epoch, at }) {
    if (this.company !== company) this.flush();
    this.company = company;
    const Data = { CompanyId: company.id, ...company.position };
    const resumes =
      epoch === company.position.Epoch &&
      after >= company.kept &&
      after <= company.head &&
      (at === undefined || company.log.get(after)?.At === at) &&
      !this.world.chance(0.1);
    if (after !== undefined) Data.Recovered = resumes;
    if (resumes) Object.assign(Data, { Position: after, At: at });
    this.transmit({ Type: "SetCompanyResult", Success: true, Data });
    for (let position = Data.Position + 1; position <= company.head; position++) this.transmit(company.log.get(position));
  }

  transmit(message, reliably = false) {
    if (this.frozen || message.lost || (!reliably && this.world.chance(0.05))) return;
    const text = JSON.stringify(message);
    this.queue.push(text);
    if (this.world.chance(0.05)) this.queue.push(text);
    if (reliably) this.flush();
  }

  /** Delivers everything, in order. */
  flush() {
    for (const text of this.queue.splice(0)) this.socket.onmessage?.({ data: text });
  }

  carry() {
    if (this.blocked || this.frozen) return;
    if (!this.opened) {
      this.opened = true;
      return this.socket.onopen({});
    }
    while (this.queue.length && !this.world.chance(0.3)) {
      const next = this.world.chance(0.1) ? Math.floor(this.world.random() * this.queue.length) : 0;
      const [text] = this.queue.splice(next, 1);
      this.socket.onmessage({ data: text });
    }
  }

  close(code) {
    this.world.links.delete(this);
    if (this.world.random() < 0.5) {
      const Data = { Code: code, Reason: "", Reconnect: true, RetryAfterMs: Math.floor(this.world.random() * 900) };
      this.socket.onmessage({ data: JSON.stringify({ Type: "Disconnect", Data }) });
    }
    this.socket.onclose({ code, reason: "" });
  }
}

/** Keeps a company's rows from nothing but the client's reports. */
class Application {
  rows = null;
  last = null;
  failure = null;

  constructor(world, random) {
    this.world = world;
    let tokens = 0;
    this.options = {
      url: "ws://notifier.test/",
      getToken: () => {
        if (world.chance(0.05)) throw new Error("no token");
        return `token-${++tokens}`;
      },
      WebSocket: world.WebSocket(),
      transport: "websocket",
      random,
      onMessage: this.checking((message) => {
        world.count("message");
        assert.notEqual(this.last, null, "a message was reported before any state");
        assert.equal(message.Position, this.last + 1, "positions are dense");
        this.last = message.Position;
        this.rows[message.Data.key] = message.Data.value;
        this.check();
      }),
      onRecovered: this.checking(({ position }) => {
        world.count("recovered");
        assert.equal(position, this.last, "a recovery continues after the last message");
        this.check();
      }),
      onResync: async ({ companyId, position, reason, signal }) => {
        world.count(`resync ${reason}`);
        this.last = null;
        const company = world.companies[companyId];
        let rows = [...company.rows]; // read early
        if (world.chance(0.5)) await settle();
        if (world.chance(0.2)) throw new Error("no state");
        if (world.chance(0.5)) rows = [...company.rows]; // or late
        if (signal.aborted) return;
        this.rows = rows;
        this.last = position;
      },
    };
    this.client = connect({ ...this.options, companyId: "a" });
  }

  /** Keeps an assertion that fails in a callback, to be thrown where the seed is known. */
  checking(callback) {
    return (report) => {
      try {
        callback(report);
      } catch (error) {
        this.failure ??= error;
      }
    };
  }

  /** No row is older than the position claims, if the server still has that position. */
  check() {
    if (this.failure) throw this.failure;
    const { position, companyId } = this.client;
    if (!position) return;
    const name = `${position.epoch}/${position.after}/${position.at}`;
    const expected = this.world.companies[companyId].history.get(name);
    if (!expected) return; // lost by a restore: the client learns of it when it resumes
    for (const [key, value] of expected.entries()) {
      assert.ok(this.rows[key] >= value, `row ${key} is behind position ${position.after}`);
    }
  }

  /** The process is killed and starts again with its saved state and position. */
  restart() {
    const { companyId, position } = this.client;
    this.client.close();
    if (!position) this.last = null;
    this.client = connect({ ...this.options, companyId, position });
  }

  switch() {
    this.last = null;
    this.client.setCompany(this.client.companyId === "a" ? "b" : "a");
  }
}

async function run(seed) {
  stopTheClock();
  const random = dice(seed);
  const world = new Companies(random);
  const application = new Application(world, random);
  for (let step = 0; step < STEPS; step++) {
    if (random() < 0.6) world.commit();
    for (const link of [...world.links]) {
      if (link.opened && random() < 0.01) link.close(world.pick(CLOSES));
      else if (random() < 0.005) link.frozen = true;
    }
    if (random() < 0.02) world.pick(Object.values(world.companies)).backUp();
    if (random() < 0.01) world.restore();
    if (random() < 0.01) application.restart();
    if (random() < 0.01) application.switch();
    if (random() < 0.01) application.client.reconnect();
    await world.carry();
    application.check();
    await pass(random() < 0.05 ? 20_000 : 200);
    application.check();
  }
  world.bad = false;
  for (const link of world.links) link.blocked = false;
  for (let quiet = 0; quiet < 1_000; quiet++) {
    await world.carry();
    await pass(100);
    const { client, rows } = application;
    const company = world.companies[client.companyId];
    // The very last frame may have been lost: the next change makes that visible.
    if (quiet % 100 === 0) world.commit();
    if (quiet % 100 > 50 && client.status.state === "live" && client.position?.after === company.head) {
      assert.equal(client.position.epoch, company.position.Epoch);
      assert.equal(client.position.at, company.position.At);
      assert.deepEqual(rows, company.rows);
      client.close();
      return world.counts;
    }
  }
  throw new Error(`not complete in time: ${JSON.stringify(application.client.status)}`);
}

test("on any link the state is never older than the position, and finally complete", (t) =>
  runSeeds(t, RUNS, run, ["message", "recovered", "resync gap", "resync epoch", "resync expired"]));
