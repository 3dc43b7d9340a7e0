// A server behind a line that drops, repeats, delays and reorders, that closes with any code, freezes,
// forgets, and begins new epochs; and an application that believes every word of the client. Whatever
// happens, what the application holds is never behind the position that the client claims; and once the
// line is good again, both are level.
//
// FUZZ_SEED=n runs one seed, FUZZ_RUNS=n more of them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../notifier/client/js/client.js";
import { pass, settle, stopTheClock } from "./world.mjs";

const RUNS = Number(process.env.FUZZ_RUNS ?? 150);
const STEPS = 150;
const KEYS = 5;
const CLOSES = [1000, 1001, 1006, 1011, 1012, 4401, 4408, 4419, 4429, 4500, 4503, 4508];

/** A random number in [0, 1) from a seed: mulberry32. */
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A company's log: message n of it set `key` to `value`; values grow, so the older is the smaller. */
class Company {
  epoch = 1;
  head = 0;
  kept = 0; // messages up to here are beyond the retention
  log = new Map();
  rows = Array(KEYS).fill(0);
  /** "epoch/position" → the rows at that moment. */
  history = new Map();
  #value = 0;

  constructor(id) {
    this.id = id;
    this.remember();
  }

  get position() {
    return { Position: this.head, Epoch: `e${this.epoch}` };
  }

  remember() {
    this.history.set(`e${this.epoch}/${this.head}`, [...this.rows]);
  }

  write(key) {
    this.rows[key] = ++this.#value;
    this.append({ Type: "EventUpdated", Data: { key, value: this.#value } });
  }

  /** More than can be told: the rows have changed, and a Resync stands for all of it. */
  writeMany(key) {
    for (let i = 0; i < 3; i++) this.rows[(key + i) % KEYS] = ++this.#value;
    this.append({ Type: "Resync", Data: { Reason: "bulk", Epoch: `e${this.epoch}` } });
  }

  /** A log that is gone, and whatever was written meanwhile with it. */
  begin(key, position) {
    this.epoch++;
    this.rows[key] = ++this.#value;
    this.head = this.kept = position;
    this.log.clear();
    this.append({ Type: "Resync", Data: { Reason: "epoch", Epoch: `e${this.epoch}` } });
  }

  append(message) {
    this.log.set(++this.head, { ...message, Position: this.head });
    this.remember();
  }
}

class World {
  bad = true;
  lines = new Set();
  counts = {};

  constructor(random) {
    this.random = random;
    this.companies = { a: new Company("a"), b: new Company("b") };
  }

  chance(probability) {
    return this.bad && this.random() < probability;
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  count(what) {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  WebSocket() {
    const world = this;
    return class {
      constructor() {
        this.line = new Line(world, this);
        world.lines.add(this.line);
      }
      send(text) {
        this.line.hear(JSON.parse(text));
      }
      close() {
        world.lines.delete(this.line);
      }
    };
  }

  /** What is under way arrives, and lines open. */
  async carry() {
    for (const line of [...this.lines]) line.carry();
    await settle();
  }

  commit() {
    const company = this.pick(Object.values(this.companies));
    const key = Math.floor(this.random() * KEYS);
    if (this.chance(0.04)) {
      // What a message does not say itself, its epoch and its company, only the order of the stream
      // says: across these two the line keeps that order, as TCP does.
      for (const line of this.lines) if (line.company === company) line.flush();
      company.begin(key, Math.floor(this.random() * (company.head + 2)));
      this.tell(company, true);
    } else {
      if (this.chance(0.05)) company.writeMany(key);
      else company.write(key);
      // Some cannot be had at all, however often the client asks.
      company.log.get(company.head).lost = this.chance(0.02);
      this.tell(company);
    }
    if (this.chance(0.05)) company.kept = Math.max(company.kept, company.head - 3);
  }

  tell(company, surely = false) {
    for (const line of this.lines) if (line.company === company) line.say(company.log.get(company.head), surely);
  }
}

/** The server's end of a socket, and the bad line before it. */
class Line {
  opened = false;
  frozen = false;
  admitted = false;
  company = null;
  queue = [];

  constructor(world, socket) {
    this.world = world;
    this.socket = socket;
    this.deaf = world.chance(0.1);
  }

  hear(message) {
    if (this.frozen || this.world.chance(0.03)) return;
    this.answer(message);
    if (this.world.chance(0.03)) this.answer(message);
  }

  answer({ type, data }) {
    if (type === "authenticate") {
      this.admitted = true;
      this.say({ Type: "AuthenticationResult", Success: true, Data: {} });
    } else if (type === "ping") this.say({ Type: "Pong" });
    else if (!this.admitted) this.say({ Type: "Error", Error: { Code: "not_authenticated" } });
    else this.subscribe(this.world.companies[data.companyId], data);
  }

  subscribe(company, { after, epoch }) {
    if (this.company !== company) this.flush();
    this.company = company;
    const Data = { CompanyId: company.id, ...company.position };
    const resumes =
      epoch === company.position.Epoch && after >= company.kept && after <= company.head && !this.world.chance(0.1);
    if (after !== undefined) Data.Recovered = resumes;
    if (resumes) Data.Position = after;
    this.say({ Type: "SetCompanyResult", Success: true, Data });
    for (let position = Data.Position + 1; position <= company.head; position++) this.say(company.log.get(position));
  }

  say(message, surely = false) {
    if (this.frozen || message.lost || (!surely && this.world.chance(0.05))) return;
    const text = JSON.stringify(message);
    this.queue.push(text);
    if (this.world.chance(0.05)) this.queue.push(text);
    if (surely) this.flush();
  }

  /** Hands over everything, in order. */
  flush() {
    for (const text of this.queue.splice(0)) this.socket.onmessage?.({ data: text });
  }

  carry() {
    if (this.deaf || this.frozen) return;
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

  end(code) {
    this.world.lines.delete(this);
    if (this.world.random() < 0.5) {
      const Data = { Code: code, Reason: "", Reconnect: true, RetryAfterMs: Math.floor(this.world.random() * 900) };
      this.socket.onmessage({ data: JSON.stringify({ Type: "Disconnect", Data }) });
    }
    this.socket.onclose({ code, reason: "" });
  }
}

/** Keeps the rows of the company that it shows, by nothing but what the client reports. */
class Application {
  rows = null;
  last = null;
  disappointment = null;

  constructor(world, random) {
    this.world = world;
    let tokens = 0;
    this.options = {
      url: "ws://notifier.test/",
      getToken: () => {
        if (world.chance(0.05)) throw new Error("no token today");
        return `token-${++tokens}`;
      },
      WebSocket: world.WebSocket(),
      random,
      onMessage: this.believing((message) => {
        world.count("message");
        assert.notEqual(this.last, null, "a message came before anything was known");
        assert.equal(message.Position, this.last + 1, "positions are dense");
        this.last = message.Position;
        this.rows[message.Data.key] = message.Data.value;
        this.check();
      }),
      onRecovered: this.believing(({ position }) => {
        world.count("recovered");
        assert.equal(position, this.last, "a recovery goes on where the last message ended");
        this.check();
      }),
      onResync: async ({ companyId, position, reason, signal }) => {
        world.count(`resync ${reason}`);
        this.last = null;
        const company = world.companies[companyId];
        let rows = [...company.rows]; // sooner
        if (world.chance(0.5)) await settle();
        if (world.chance(0.2)) throw new Error("no state today");
        if (world.chance(0.5)) rows = [...company.rows]; // or later
        if (signal.aborted) return;
        this.rows = rows;
        this.last = position;
      },
    };
    this.client = connect({ ...this.options, companyId: "a" });
  }

  /** An assertion that fails in a callback is thrown where the seed is known. */
  believing(callback) {
    return (report) => {
      try {
        callback(report);
      } catch (error) {
        this.disappointment ??= error;
      }
    };
  }

  /** What is held is nowhere older than the position claims. */
  check() {
    if (this.disappointment) throw this.disappointment;
    const { position, companyId } = this.client;
    if (!position) return;
    const due = this.world.companies[companyId].history.get(`${position.epoch}/${position.after}`);
    assert.ok(due, `position ${position.epoch}/${position.after} never was`);
    for (const [key, value] of due.entries()) {
      assert.ok(this.rows[key] >= value, `row ${key} is behind position ${position.after}`);
    }
  }

  /** The process dies and starts again with the state and the position that it had saved. */
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
  const world = new World(random);
  const application = new Application(world, random);
  for (let step = 0; step < STEPS; step++) {
    if (random() < 0.6) world.commit();
    for (const line of [...world.lines]) {
      if (line.opened && random() < 0.01) line.end(world.pick(CLOSES));
      else if (random() < 0.005) line.frozen = true;
    }
    if (random() < 0.01) application.restart();
    if (random() < 0.01) application.switch();
    if (random() < 0.01) application.client.reconnect();
    await world.carry();
    application.check();
    await pass(random() < 0.05 ? 20_000 : 200);
    application.check();
  }
  world.bad = false;
  for (const line of world.lines) line.deaf = false;
  for (let quiet = 0; quiet < 1_000; quiet++) {
    await world.carry();
    await pass(100);
    const { client, rows } = application;
    const company = world.companies[client.companyId];
    // The last frame of all may be the one that was dropped: the next change brings it to light.
    if (quiet % 100 === 0) world.commit();
    if (quiet % 100 > 50 && client.status.state === "live" && client.position?.after === company.head) {
      assert.equal(client.position.epoch, company.position.Epoch);
      assert.deepEqual(rows, company.rows);
      client.close();
      return world.counts;
    }
  }
  throw new Error(`not level in time: ${JSON.stringify(application.client.status)}`);
}

test("what the client claims is true on any line", async (t) => {
  const only = process.env.FUZZ_SEED;
  const total = {};
  for (let seed = only ? Number(only) : 1; seed <= (only ? Number(only) : RUNS); seed++) {
    let counts;
    try {
      counts = await run(seed);
    } catch (error) {
      error.message = `FUZZ_SEED=${seed}: ${error.message}`;
      throw error;
    }
    for (const [what, count] of Object.entries(counts)) total[what] = (total[what] ?? 0) + count;
  }
  t.diagnostic(JSON.stringify(total));
  if (!only) for (const what of ["message", "recovered", "resync gap", "resync epoch", "resync expired"]) assert.ok(total[what], what);
});
