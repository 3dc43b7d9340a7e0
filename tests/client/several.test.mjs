// Several companies on one connection, filters, and writes that the application waits for.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { ArrivalError } from "../../clients/js/src/client.js";
import {
  EPOCH,
  answered,
  authenticated,
  change,
  follow,
  pass,
  rejected,
  resync,
  settle,
  stopTheClock,
  subscribed,
} from "./world.mjs";

const { deepEqual, equal, rejects, throws } = assert;

const MINE = { Event: { OrganizerId: ["u1", null] } };

beforeEach(stopTheClock);
afterEach(() => mock.timers.reset());

const of = (CompanyId, message) => ({ ...message, Data: { ...message.Data, CompanyId } });
const skipped = (CompanyId, Position) => ({ Type: "Skipped", Data: { CompanyId }, Position });
const arrival = (CompanyId, Tx, Position = 11) => ({ Type: "Arrived", Data: { CompanyId, Tx, Position } });
const failure = (CompanyId, Tx, Code) => ({ Type: "Error", Error: { Code, Message: "No." }, Data: { CompanyId, Tx } });
const commands = ({ peer }) => peer.received.slice(1).map(({ type, data }) => [type, data]);
const requested = (world) => commands(world).map(([, { companyId }]) => companyId);
const state = ({ status }) => [status.state, status.reason];

/** A client whose subscriptions report into one list, with their companies. */
async function several(options) {
  const reports = [];
  const statuses = [];
  const callbacks = (id) => ({
    onMessage: ({ Position, Data }) => reports.push([Data.CompanyId, "message", Position]),
    onRecovered: ({ companyId, position }) => reports.push([companyId, "recovered", position]),
    onSkipped: ({ companyId, position }) => reports.push([companyId, "skipped", position]),
    onResync: ({ companyId, reason, position }) => void reports.push([companyId, "resync", reason, position]),
    onStatus: (status) => statuses.push([id, status.companyId, status.state, status.reason]),
  });
  const world = await follow({ ...callbacks("client"), ...options });
  return {
    __proto__: world,
    get peer() {
      return world.peer;
    },
    statuses,
    subscribe: (companyId, more) => world.client.subscribe(companyId, more),
    callbacks,
    newReports: () => reports.splice(0),
    async reconnected() {
      await pass(world.client.status.retryInMs);
      await world.peer.open();
      await world.peer.send(authenticated());
    },
  };
}

/** The same after `a`, the company of `connect`, and `b`, a further one, were acknowledged. */
async function two(options) {
  const world = await several(options);
  const b = world.subscribe("b");
  await world.peer.open();
  await world.peer.send(authenticated(), answered("a", 10), answered("b", 20));
  deepEqual(world.newReports(), [["a", "resync", "start", 10], ["b", "resync", "start", 20]]);
  return Object.assign(world, { b });
}

describe("several companies", () => {
  test("each has its own position, gap and resync", async () => {
    const { peer, client, b, newReports } = await two();
    await peer.send(of("b", change(21)), change(11), of("b", change(23)), change(12));
    deepEqual(newReports(), [["b", "message", 21], ["a", "message", 11], ["a", "message", 12]]);
    deepEqual([client.position, b.position], [{ after: 12, epoch: EPOCH }, { after: 21, epoch: EPOCH }]);
    deepEqual(peer.last, { type: "subscribe", data: { companyId: "b", after: 21, epoch: EPOCH } });
    deepEqual(state(b), ["connecting", undefined]);
    await peer.send(answered("b", 21, { recovered: true }), of("b", change(22)), of("b", change(23)), of("b", resync(30)), change(13));
    deepEqual(newReports(), [
      ["b", "recovered", 21],
      ["b", "message", 22],
      ["b", "message", 23],
      ["b", "resync", "bulk", 30],
      ["a", "message", 13],
    ]);
  });

  test("after a reconnect each one resumes with its filter", async () => {
    const world = await several();
    const b = world.subscribe("b", { entities: ["Event"], where: MINE, position: { after: 3, epoch: "e2", at: "t" } });
    await world.peer.open();
    await world.peer.send(authenticated());
    const known = { companyId: "b", entities: ["Event"], where: MINE };
    deepEqual(commands(world), [["subscribe", { companyId: "a" }], ["subscribe", { ...known, after: 3, epoch: "e2", at: "t" }]]);
    await world.peer.send(answered("a", 10), answered("b", 20));
    deepEqual(world.newReports().at(-1), ["b", "resync", "epoch", 20]);
    await world.peer.send(skipped("b", 57), skipped("b", 57), of("b", change(58)), change(11));
    deepEqual(world.newReports()[0], ["b", "skipped", 57]);
    await world.peer.close(1012);
    deepEqual([world.client.status.state, b.status.state], ["waiting", "waiting"]);
    await world.reconnected();
    deepEqual(commands(world), [
      ["subscribe", { companyId: "a", after: 11, epoch: EPOCH }],
      ["subscribe", { ...known, after: 58, epoch: EPOCH }],
    ]);
  });

  test("a lost skip is a gap", async () => {
    const world = await several({ entities: ["Event"] });
    await world.peer.open();
    await world.peer.send(authenticated());
    deepEqual(commands(world), [["subscribe", { companyId: "a", entities: ["Event"] }]]);
    await world.peer.send(answered("a", 10), { ...skipped("a", 20), At: "t20" });
    const place = { after: 20, epoch: EPOCH, at: "t20" };
    deepEqual(world.client.position, place);
    await world.peer.send(skipped("a", 15)); // a duplicate
    deepEqual(world.client.position, place);
    await world.peer.send(change(25));
    deepEqual(world.peer.last.data, { companyId: "a", ...place, entities: ["Event"] });
  });

  test("losing one leaves the others", async () => {
    const world = await two();
    const { b, newReports } = world;
    await world.peer.send({ Type: "CompanyRevoked", Data: { CompanyId: "b" } }, of("b", change(21)), change(11));
    deepEqual(newReports(), [["a", "message", 11]]);
    deepEqual([state(world.client)[0], state(b)], ["live", ["idle", "revoked"]]);
  });

  test("what was lost or refused is not requested again, unless the application wants it", async () => {
    for (const code of ["company_forbidden", "bad_filter", "too_many_companies"]) {
      const world = await several();
      const b = world.subscribe("b");
      await world.peer.open();
      await world.peer.send(authenticated(), answered("a", 10), rejected("b", code));
      deepEqual([state(world.client)[0], state(b)], ["live", ["idle", code]]);
      deepEqual(world.statuses.at(-1), ["client", "b", "idle", code]);
      await world.peer.close(1006);
      await world.reconnected();
      deepEqual(requested(world), ["a"]);
      world.client.reconnect();
      await settle();
      await world.peer.open();
      await world.peer.send(authenticated());
      deepEqual(requested(world), ["a", "b"]);
    }
  });

  test("the close for refused companies stops only those", async () => {
    const world = await several();
    const b = world.subscribe("b");
    await world.peer.open();
    await world.peer.send(authenticated());
    await world.peer.close(4403);
    await world.reconnected();
    deepEqual(requested(world), ["b"]);
    await world.peer.send(answered("b", 1));
    deepEqual(state(b), ["live", undefined]);
  });

  test("nothing of one is reported after it was left", async () => {
    const { peer, b, newReports } = await two();
    b.unsubscribe();
    b.unsubscribe();
    await peer.send(of("b", change(22)), change(11));
    deepEqual(peer.last, { type: "unsubscribe", data: { companyId: "b" } });
    deepEqual(newReports(), [["a", "message", 11]]);
    deepEqual([b.position, state(b)], [null, ["closed", undefined]]);
    throws(() => b.setFilter(), /ended/);
  });

  test("one that is left and followed again takes only its own answer", async () => {
    const { peer, client, newReports } = await several();
    await peer.open();
    await peer.send(authenticated(), subscribed("a", 10));
    client.subscribe("b").unsubscribe();
    const again = client.subscribe("b", { entities: ["Event"] });
    await peer.send(answered("b", 5), of("b", change(6)), answered("b", 6));
    deepEqual(newReports(), [["a", "resync", "start", 10], ["b", "resync", "start", 6]]);
    deepEqual(again.position, { after: 6, epoch: EPOCH });
  });

  test("without any the client is idle", async () => {
    const { peer, client } = await several({ companyId: undefined });
    const b = client.subscribe("b");
    throws(() => client.subscribe("b"), /already/);
    await peer.open();
    await peer.send(authenticated(), answered("b", 5));
    equal(client.status.state, "live");
    b.unsubscribe();
    deepEqual(state(client), ["idle", "no company"]);
    await rejects(client.arrived("1"), ArrivalError);
  });

  test("setCompany replaces its own only", async () => {
    const world = await two();
    const { client, newReports } = world;
    client.setCompany("c");
    throws(() => client.setCompany("b"), /already/);
    await world.peer.send(change(11), answered("c", 7));
    await world.peer.send(of("c", change(8)), of("b", change(21)));
    deepEqual(commands(world).slice(-2), [["unsubscribe", { companyId: "a" }], ["subscribe", { companyId: "c" }]]);
    deepEqual(newReports(), [["c", "resync", "start", 7], ["c", "message", 8], ["b", "message", 21]]);
  });

  test("that of a message may be spelled otherwise", async () => {
    const { peer, newReports, client, b } = await two();
    await peer.send({ ...change(21), Data: { id: 1, tenant: "b", title: "c", notes: { a: 1 } } });
    deepEqual(newReports(), [[undefined, "message", 21]]);
    deepEqual(b.position, { after: 21, epoch: EPOCH });
    b.unsubscribe(); // its last messages may be under way
    await peer.send({ ...change(11), Data: { tenant: "b", partner: "a" } });
    deepEqual([newReports(), state(client)], [[], ["waiting", "unreadable message"]]);
  });

  test("a message that does not name its company is never guessed", async () => {
    const { peer, client } = await two();
    await peer.send({ ...change(11), Data: {} });
    deepEqual(state(client), ["waiting", "unreadable message"]);
  });

  test("of only one, no message has to name it: `case` and `rename` may spell it otherwise", async () => {
    const world = await several({ companyId: null });
    throws(() => world.client.subscribe(undefined), TypeError);
    world.client.subscribe("b");
    await world.peer.open();
    await world.peer.send(authenticated(), rejected("b", "company_forbidden"));
    await world.peer.close(1012);
    world.client.subscribe("a", { entities: ["Event"] });
    await world.reconnected();
    await world.peer.send(answered("a", 10));
    await world.peer.send({ ...change(11), Data: {} });
    deepEqual(world.newReports().at(-1), [undefined, "message", 11]);
  });

  test("a value of a row that has no text, or a long one, is no company of its message", async () => {
    const world = await several();
    world.subscribe("b");
    await world.peer.open();
    await world.peer.send(authenticated(), answered("a", 10), answered("b", 20));
    const nested = "[".repeat(20_000) + "]".repeat(20_000);
    const values = ['{"toString":null}', nested, '["b"]', JSON.stringify("b".repeat(300_000))];
    for (const [n, value] of values.entries()) {
      await world.peer.send(`{"Type":"NoteCreated","Position":${11 + n},"Data":{"id":1,"company_id":"a","extra":${value}}}`);
    }
    deepEqual(world.client.position?.after, 14);
    equal(world.client.status.state, "live");
  });

  test("each reports to its own callbacks, and the state of the connection to all", async () => {
    const world = await several();
    const own = [];
    const b = world.client.subscribe("b", { ...world.callbacks("b"), onMessage: ({ Position }) => own.push(Position) });
    await world.peer.open();
    await world.peer.send(authenticated(), answered("a", 10), answered("b", 20), of("b", change(21)));
    deepEqual(own, [21]);
    await world.peer.close(1012, "restart");
    deepEqual(world.statuses.slice(-4), [
      ["client", "a", "live", undefined],
      ["b", "b", "live", undefined],
      ["client", "a", "waiting", "restart"],
      ["b", "b", "waiting", "restart"],
    ]);
    b.unsubscribe();
    deepEqual(world.statuses.at(-1), ["b", "b", "closed", undefined]);
  });
});

describe("filters", () => {
  test("another one is a resync, and the former one goes on until then", async () => {
    const { peer, b, newReports } = await two();
    b.setFilter({ where: MINE });
    await peer.send(of("b", change(21)));
    deepEqual(peer.last, { type: "subscribe", data: { companyId: "b", where: MINE } });
    await peer.send(answered("b", 25), of("b", change(26)));
    deepEqual(newReports(), [["b", "message", 21], ["b", "resync", "filter", 25], ["b", "message", 26]]);
  });

  test("one that changes while it is requested is requested again", async () => {
    const world = await two();
    const { b, newReports } = world;
    for (const name of ["Event", "Employee"]) b.setFilter({ entities: [name] });
    await world.peer.send(answered("b", 25), of("b", change(26)));
    deepEqual(world.peer.last.data, { companyId: "b", entities: ["Employee"] });
    await world.peer.close(1006);
    await world.reconnected();
    deepEqual(world.peer.last.data, { companyId: "b", entities: ["Employee"] });
    await world.peer.send(answered("a", 10, { recovered: true }), answered("b", 27));
    deepEqual(newReports(), [["a", "recovered", 10], ["b", "resync", "filter", 27]]);
  });

  test("a refused one leaves the former one", async () => {
    const world = await two();
    const { b } = world;
    b.setFilter({ entities: ["Nothing"] });
    await world.peer.send(rejected("b", "bad_filter"), of("b", change(21)));
    deepEqual(world.newReports(), [["b", "message", 21]]);
    deepEqual(state(b), ["live", "bad_filter"]);
    b.setFilter({ entities: ["Nothing"] });
    await world.peer.close(1006);
    await world.reconnected();
    await world.peer.send(rejected("b", "bad_filter"));
    deepEqual(world.peer.last.data, { companyId: "b", after: 21, epoch: EPOCH });
  });

  test("one that was refused at first can be replaced", async () => {
    const { peer, client, newReports } = await several();
    const b = client.subscribe("b", { entities: ["Nothing"] });
    await peer.open();
    await peer.send(authenticated(), answered("a", 10), rejected("b", "bad_filter"));
    b.setFilter({ entities: ["Event"] });
    await peer.send(answered("b", 20));
    deepEqual(newReports().at(-1), ["b", "resync", "start", 20]);
  });
});

describe("has my write arrived?", () => {
  test("it is repeated after a reconnect, and comes after a reload", async () => {
    let loaded;
    const world = await several({ onResync: () => new Promise((resolve) => (loaded = resolve)) });
    await world.peer.acknowledge();
    loaded();
    let position;
    world.client.arrived(7).then((found) => (position = found));
    deepEqual(world.peer.last, { type: "await", data: { companyId: "a", tx: "7" } });
    await world.peer.close(1006);
    await world.reconnected();
    equal(commands(world).length, 1);
    await world.peer.send(subscribed("a", 20, { recovered: false }));
    deepEqual(world.peer.last, { type: "await", data: { companyId: "a", tx: "7" } });
    await world.peer.send(arrival("a", "7", 20), resync(21));
    loaded();
    await settle();
    equal(position, undefined);
    loaded();
    await settle();
    equal(position, 20);
  });

  test("it is repeated after a gap", async () => {
    const { peer, client } = await several();
    await peer.acknowledge();
    let position;
    client.arrived("7").then((found) => (position = found));
    await peer.send(change(12), arrival("a", "7", 12));
    await peer.send(subscribed("a", 10, { recovered: true }));
    deepEqual(peer.last, { type: "await", data: { companyId: "a", tx: "7" } });
    equal(position, undefined);
    await peer.send(change(11), change(12), arrival("a", "7", 12));
    equal(position, 12);
  });

  test("a failed wait has its code", async () => {
    for (const code of ["unknown_tx", "timeout", "not_subscribed"]) {
      const { peer, client, b } = await two();
      const failed = rejects(b.arrived("7"), { name: "ArrivalError", code });
      const [reached] = [client.arrived("7")];
      await peer.send(failure("b", "7", code), arrival("a", "7"));
      equal(await reached, 11);
      await failed;
      equal(client.status.state, "live");
    }
  });

  test("it ends with its company and with the client", async () => {
    const { peer, client, b } = await two();
    const c = client.subscribe("c");
    const code = "not_subscribed";
    const ended = [];
    for (const [name, each] of Object.entries({ b, c, client })) {
      each.arrived("7").catch((error) => ended.push([name, error.code]));
    }
    b.unsubscribe();
    await settle();
    deepEqual(ended.splice(0), [["b", code]]);
    await peer.send(rejected("c", "company_forbidden"));
    deepEqual(ended.splice(0), [["c", code]]);
    client.close();
    await settle();
    deepEqual(ended, [["client", code]]);
    for (const each of [b, c, client]) await rejects(each.arrived("7"), { code });
  });

  test("it is requested once the company is subscribed, and ends with the answer for that company", async () => {
    const world = await two();
    const c = world.client.subscribe("c");
    let position;
    c.arrived("7").then((reached) => (position = reached));
    deepEqual(commands(world).at(-1), ["subscribe", { companyId: "c" }]);
    await world.peer.send(answered("c", 20));
    deepEqual(commands(world).at(-1), ["await", { companyId: "c", tx: "7" }]);
    await world.peer.send(arrival("a", "7"));
    equal(position, undefined);
    await world.peer.send(arrival("c", "7", 20));
    equal(position, 20);
  });

  test("it ends when the client stops", async () => {
    const { peer, client } = await two();
    const failed = rejects(client.arrived("7"), { code: "not_subscribed" });
    await peer.close(4409);
    await failed;
  });

  test("one that waits for a reload is not requested again", async () => {
    let loaded;
    const world = await several({ onResync: () => new Promise((resolve) => (loaded = resolve)) });
    await world.peer.acknowledge();
    const both = [world.client.arrived("7")];
    await world.peer.send(arrival("a", "7"));
    both.push(world.client.arrived("8"));
    await world.peer.send(arrival("a", "8"));
    deepEqual(commands(world).map(([, { tx }]) => tx), [undefined, "7", "8"]);
    loaded();
    deepEqual(await Promise.all(both), [11, 11]);
  });

  test("it waits for no more transactions than the server allows", async () => {
    const world = await two();
    const many = 102;
    const all = Promise.all(Array.from({ length: many }, (_, tx) => world.client.arrived(tx)));
    equal(commands(world).length, 2 + 100);
    for (let tx = 0; tx < many; tx++) await world.peer.send(arrival("a", String(tx)));
    deepEqual(await all, Array(many).fill(11));
    equal(commands(world).length, 2 + many);
  });
});
