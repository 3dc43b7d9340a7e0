// Several companies on one connection that breaks, freezes and loses messages, to a server that begins epochs, prunes
// its log, revokes and refuses. The application subscribes, leaves, changes filters and waits for writes at random.
// Its rows are never older than its position or than a write that has arrived, hold nothing that its filter leaves out,
// and are complete once the link is good again.
//
// FUZZ_SEED=n runs one seed, FUZZ_RUNS=n more of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../clients/js/src/client.js";
import { dice, runSeeds, World } from "./fuzzing.mjs";
import { pass, settle, stopTheClock } from "./world.mjs";

const RUNS = 60;
const STEPS = 150;
const KEYS = 4;
const ENTITIES = ["Event", "Employee"];
const FILTERS = [{}, { entities: ["Event"] }, { entities: ["Employee"] }, { entities: ENTITIES }];
const LIMIT = 3;

const passes = ({ entities }, entity) => entities?.includes(entity) ?? true;

/** A company's log: each message sets `key` of an entity to `value`. Values grow. */
class Company {
  epoch = 1;
  kept = 0;
  log = [];
  rows = { Event: Array(KEYS).fill(0), Employee: Array(KEYS).fill(0) };
  /** The rows at each position of the epoch. */
  history = [];
  allowed = true;

  constructor(id) {
    this.id = id;
    this.record();
  }

  get head() {
    return this.log.length;
  }

  record() {
    this.history[this.head] = structuredClone(this.rows);
  }

  write(entity, key, value, tx) {
    this.rows[entity][key] = value;
    const Data = { CompanyId: this.id, key, value };
    this.log.push({ Type: `${entity}Updated`, Data, Position: this.head + 1, At: `t${value}`, Tx: String(tx), entity });
    this.record();
  }

  beginEpoch() {
    this.epoch++;
    this.kept = 0;
    this.history = [];
    const Data = { CompanyId: this.id, Reason: "epoch", Epoch: `e${this.epoch}` };
    this.log = [{ Type: "Resync", Data, Position: 1, At: `r${this.epoch}` }];
    this.record();
  }
}

class Companies extends World {
  value = 0;
  tx = 0;

  constructor(random) {
    super(random, Link);
    this.companies = Object.fromEntries(["a", "b", "c", "d"].map((id) => [id, new Company(id)]));
  }

  /** One transaction: a few rows of one or two companies. */
  commit() {
    const tx = ++this.tx;
    for (let n = 1 + Math.floor(this.random() * 3); n > 0; n--) {
      this.pick(Object.values(this.companies)).write(this.pick(ENTITIES), Math.floor(this.random() * KEYS), ++this.value, tx);
    }
    return tx;
  }
}

/** The server's end of a socket: in order, as TCP is; a frame may be lost only where that leaves a visible gap. */
class Link {
  opened = false;
  frozen = false;
  queue = [];
  /** Company → the filter, the last position sent or covered, and what is awaited. */
  subscriptions = new Map();

  constructor(world, socket) {
    this.world = world;
    this.socket = socket;
  }

  receive({ type, data }) {
    if (this.frozen) return;
    this[type](data);
  }

  authenticate() {
    this.queue.push({ Type: "AuthenticationResult", Success: true, Data: {} });
  }

  ping() {
    this.queue.push({ Type: "Pong" });
  }

  setCompany() {
    assert.fail("with subscriptions only");
  }

  subscribe({ companyId, after, epoch, entities }) {
    const company = this.world.companies[companyId];
    const refuse = (Code) => this.queue.push({ Type: "SubscribeResult", Success: false, Data: { CompanyId: companyId }, Error: { Code, Message: "" } });
    if (!company.allowed) return refuse("company_forbidden");
    if (this.world.chance(0.05)) return refuse("bad_filter");
    if (this.subscriptions.size === LIMIT && !this.subscriptions.has(companyId)) return refuse("too_many_companies");
    const resumes = epoch === `e${company.epoch}` && after >= company.kept && after <= company.head && !this.world.chance(0.1);
    const Position = resumes ? after : company.head;
    const Data = { CompanyId: companyId, Position, Epoch: `e${company.epoch}`, At: company.log[Position - 1]?.At };
    if (after !== undefined) Data.Recovered = resumes;
    this.queue.push({ Type: "SubscribeResult", Success: true, Data });
    this.subscriptions.set(companyId, { filter: { entities }, sent: Position, epoch: company.epoch, covered: Position, waits: [] });
  }

  unsubscribe({ companyId }) {
    this.queue.push({ Type: "UnsubscribeResult", Success: this.subscriptions.delete(companyId), Data: { CompanyId: companyId } });
  }

  await({ companyId, tx }) {
    const subscription = this.subscriptions.get(companyId);
    if (subscription) subscription.waits.push(tx);
    else this.queue.push({ Type: "Error", Error: { Code: "not_subscribed" }, Data: { CompanyId: companyId, Tx: tx } });
  }

  /** Sends what has happened since the last time. */
  deliver() {
    if (this.frozen) return;
    for (const [id, subscription] of this.subscriptions) {
      const company = this.world.companies[id];
      if (!company.allowed) {
        this.subscriptions.delete(id);
        for (const Tx of subscription.waits) this.queue.push({ Type: "Error", Error: { Code: "not_subscribed" }, Data: { CompanyId: id, Tx } });
        this.queue.push({ Type: "CompanyRevoked", Data: { CompanyId: id } });
        continue;
      }
      if (subscription.epoch !== company.epoch) Object.assign(subscription, { epoch: company.epoch, sent: 0, covered: 0 });
      for (const { entity, ...message } of company.log.slice(subscription.sent)) {
        subscription.sent = message.Position;
        if (entity && !passes(subscription.filter, entity)) continue;
        if (subscription.covered < message.Position - 1 && entity) this.skip(id, subscription, message.Position - 1);
        subscription.covered = message.Position;
        if (entity && !subscription.filter.entities && this.world.chance(0.03)) subscription.lossy = true;
        else this.queue.push(message);
      }
      if (subscription.covered < subscription.sent && (!this.world.bad || this.world.random() < 0.3)) this.skip(id, subscription, subscription.sent);
      // What was lost has not arrived; the client finds the gap with the next message, and waits again.
      if (subscription.lossy) continue;
      for (const Tx of subscription.waits.splice(0)) this.queue.push({ Type: "Arrived", Data: { CompanyId: id, Tx, Position: subscription.sent } });
    }
  }

  skip(CompanyId, subscription, Position) {
    subscription.covered = Position;
    this.queue.push({ Type: "Skipped", Data: { CompanyId }, Position, At: this.world.companies[CompanyId].log[Position - 1]?.At });
  }

  async carry() {
    if (this.frozen) return;
    if (!this.opened) {
      this.opened = true;
      return this.socket.onopen({});
    }
    while (this.queue.length && !this.world.chance(0.2)) {
      this.socket.onmessage({ data: JSON.stringify(this.queue.shift()) });
      await settle(); // as in a browser: each message is a task of its own
    }
  }

  close(code) {
    this.world.links.delete(this);
    this.socket.onclose({ code, reason: "" });
  }
}

/** Keeps the rows of its companies from nothing but the reports. */
class Application {
  /** Company → subscription, its filter as far as it was accepted, and rows. */
  parts = new Map();
  failure = null;

  constructor(world, random) {
    this.world = world;
    this.client = connect({ url: "ws://notifier.test/", getToken: () => "t", WebSocket: world.WebSocket(), transport: "websocket", random });
  }

  subscribe(id, position = null) {
    const { world } = this;
    const company = world.companies[id];
    const part = { id, last: position?.after ?? null, rows: null, wanted: world.pick(FILTERS), arrived: 0 };
    part.filter = part.wanted;
    const checking = (callback) => (report) => {
      try {
        callback(report);
      } catch (error) {
        this.failure ??= error;
      }
    };
    const advance = (position, by) => {
      assert.notEqual(part.rows, null, "nothing is reported before there is a state");
      assert.ok(by === undefined ? position > part.last : position === part.last + by, `${position} after ${part.last}`);
      part.last = position;
    };
    part.subscription = this.client.subscribe(id, {
      ...part.filter,
      onMessage: checking((message) => {
        world.count("message");
        const entity = message.Type.replace("Updated", "");
        assert.equal(message.Data.CompanyId, id);
        assert.ok(passes(part.filter, entity) || passes(part.wanted, entity), "it passes the filter");
        advance(message.Position, 1);
        part.rows[entity][message.Data.key] = message.Data.value;
      }),
      onSkipped: checking(({ position }) => {
        world.count("skipped");
        advance(position);
      }),
      onRecovered: checking(({ position }) => {
        world.count("recovered");
        assert.equal(position, part.last);
      }),
      onResync: async ({ reason, position, signal }) => {
        world.count(`resync ${reason}`);
        if (reason === "start" || reason === "filter") part.filter = part.wanted;
        part.last = part.rows = null;
        if (world.random() < 0.5) await settle();
        if (signal.aborted) return;
        part.rows = structuredClone(company.rows);
        part.last = position;
      },
      onStatus: ({ reason }) => {
        if (reason) world.count(reason);
        if (reason === "bad_filter" && part.rows) part.wanted = part.filter;
      },
    });
    this.parts.set(id, part);
  }

  act() {
    const { world } = this;
    const id = world.pick(Object.keys(world.companies));
    const part = this.parts.get(id);
    if (!part) return this.subscribe(id);
    const { subscription } = part;
    if (world.random() < 0.3 || ["company_forbidden", "revoked", "too_many_companies"].includes(subscription.status.reason)) {
      subscription.unsubscribe();
      this.parts.delete(id);
    } else if (world.random() < 0.4) subscription.setFilter((part.wanted = world.pick(FILTERS)));
    else {
      const tx = world.commit();
      const value = world.value;
      const rows = structuredClone(world.companies[id].rows);
      subscription.arrived(tx).then(
        () => {
          world.count("arrived");
          for (const [entity, keys] of Object.entries(rows)) {
            if (!passes(part.filter, entity) || !passes(part.wanted, entity)) continue;
            for (const [key, at] of keys.entries()) if (part.rows[entity][key] < at) this.failure ??= new Error(`the write ${value} has not arrived`);
          }
        },
        ({ code }) => world.count(`arrived: ${code}`),
      );
    }
  }

  check() {
    if (this.failure) throw this.failure;
    for (const { id, subscription, rows, filter, wanted } of this.parts.values()) {
      const { position } = subscription;
      const company = this.world.companies[id];
      if (!position || position.epoch !== `e${company.epoch}`) continue;
      for (const [entity, keys] of Object.entries(company.history[position.after] ?? {})) {
        if (!passes(filter, entity) || !passes(wanted, entity)) continue;
        for (const [key, value] of keys.entries()) assert.ok(rows[entity][key] >= value, `${id} ${entity} ${key} is behind ${position.after}`);
      }
    }
  }

  isComplete() {
    return [...this.parts.values()].every(({ id, subscription, rows, filter }) => {
      const company = this.world.companies[id];
      const { status, position } = subscription;
      if (status.state === "idle") return status.reason !== "no company";
      if (status.state !== "live" || position?.after !== company.head || position.epoch !== `e${company.epoch}`) return false;
      for (const entity of ENTITIES) if (passes(filter, entity)) assert.deepEqual(rows[entity], company.rows[entity]);
      return true;
    });
  }
}

async function run(seed) {
  stopTheClock();
  const random = dice(seed);
  const world = new Companies(random);
  const application = new Application(world, random);
  const turn = async (ms) => {
    for (const link of [...world.links]) {
      link.deliver();
      await link.carry();
    }
    await settle();
    application.check();
    await pass(ms);
    application.check();
  };
  for (let step = 0; step < STEPS; step++) {
    if (random() < 0.5) world.commit();
    if (random() < 0.25) application.act();
    const company = world.pick(Object.values(world.companies));
    if (random() < 0.02) company.beginEpoch();
    else if (random() < 0.03) company.kept = Math.max(0, company.head - 2);
    if (random() < 0.02) company.allowed = !company.allowed;
    for (const link of [...world.links]) {
      if (link.opened && random() < 0.03) link.close(world.pick([1001, 1006, 1012, 4503, 4508]));
      else if (random() < 0.005) link.frozen = true;
    }
    if (random() < 0.01) application.client.reconnect();
    await turn(random() < 0.03 ? 20_000 : 200);
  }
  world.bad = false;
  for (let quiet = 0; quiet < 1_000; quiet++) {
    await turn(100);
    if (quiet % 100 === 0) for (const each of Object.values(world.companies)) each.write("Event", 0, ++world.value, ++world.tx);
    if (quiet % 100 > 50 && application.isComplete()) {
      application.client.close();
      await settle();
      return world.counts;
    }
  }
  throw new Error(`not complete in time: ${JSON.stringify([...application.parts.values()].map(({ id, subscription }) => [id, subscription.status, subscription.position]))}`);
}

test("each company's state is never older than its position, and finally complete", (t) => {
  const events = ["message", "skipped", "recovered", "arrived", "arrived: not_subscribed", "bad_filter", "too_many_companies", "revoked"];
  const resyncs = ["filter", "expired", "epoch", "start"].map((reason) => `resync ${reason}`);
  return runSeeds(t, RUNS, run, [...events, ...resyncs]);
});
