// The rows that the service sends before the changes.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { answered, authenticated, change, follow, pass, rejected, resync, settle, stopTheClock } from "./world.mjs";

const { deepEqual, equal } = assert;

beforeEach(stopTheClock);

const part = (Rows, Entity = "Event", CompanyId = "a") => ({ Type: "State", Data: { CompanyId, Entity, Rows } });
const end = (Position, CompanyId = "a") => ({ Type: "StateEnd", Data: { CompanyId, Position } });
const row = (EventId, Title) => ({ EventId, CompanyId: "a", Title });
const titles = (client) => client.rows("Event").all().map(({ Title }) => Title);

/** A client that has authenticated; its states are among the reports. */
async function begin(options) {
  const world = await follow({ state: true, ...options, onState: (state) => (world.reports.push(["state", state.reason, state.position]), options?.onState?.(state)) });
  await world.peer.open();
  await world.peer.send(authenticated());
  return world;
}

/** After a broken link: the next socket, up to its request. */
async function again(world, code = 1006) {
  await world.peer.close(code);
  await pass(1_000);
  await world.peer.open();
  await world.peer.send(authenticated());
  return world.peer.last;
}

describe("a state", () => {
  test("is requested, collected, and followed by the changes", async () => {
    const world = await begin();
    deepEqual(world.peer.last, { type: "subscribe", data: { companyId: "a", state: true } });
    await world.peer.send(answered("a", 10), part([row("1", "one")]), part([row("2", "two")]));
    deepEqual([world.newReports(), world.client.position, world.client.status.state], [[], null, "connecting"]);
    await world.peer.send(end(10), change(11, { EventId: "2", Title: "changed" }));
    deepEqual(world.newReports(), [["state", "start", 10], ["message", 11]]);
    deepEqual([titles(world.client), world.client.position.after, world.client.status.state], [["one", "changed"], 11, "live"]);
  });

  test("begins again, without a position, if the link breaks before its end", async () => {
    const world = await begin();
    await world.peer.send(answered("a", 10), part([row("1", "old")]));
    deepEqual((await again(world)).data, { companyId: "a", state: true });
    await world.peer.send(answered("a", 12), part([row("2", "new")]), end(12));
    deepEqual([titles(world.client), world.newReports()], [["new"], [["state", "start", 12]]]);
  });

  test("is not sent again where the position can be resumed, and is where it cannot", async () => {
    const world = await begin();
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10));
    world.newReports();
    deepEqual((await again(world)).data, { companyId: "a", after: 10, epoch: "e1", state: true });
    await world.peer.send(answered("a", 10, { recovered: true }), change(11, { Title: "missed" }));
    deepEqual([titles(world.client), world.newReports()], [["missed"], [["recovered", 10], ["message", 11]]]);
    await again(world);
    await world.peer.send(answered("a", 90, { recovered: false }), part([row("9", "other")]), end(90));
    deepEqual([titles(world.client), world.newReports()], [["other"], [["state", "expired", 90]]]);
  });

  test("is requested in the place of a resync; the former rows stay until it is complete", async () => {
    const world = await begin();
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10), resync(11));
    deepEqual(world.peer.last.data, { companyId: "a", state: true });
    deepEqual([titles(world.client), world.client.position], [["one"], null]);
    await world.peer.send(change(12), answered("a", 12), part([row("2", "two")]));
    deepEqual(titles(world.client), ["one"]);
    await world.peer.send(end(12));
    deepEqual([titles(world.client), world.newReports()], [["two"], [["state", "start", 10], ["state", "bulk", 12]]]);
  });

  test("of another filter replaces the rows once it is there", async () => {
    const world = await follow({ companyId: undefined });
    await world.peer.open();
    await world.peer.send(authenticated());
    const reports = [];
    const mine = world.client.subscribe("a", { state: true, onState: ({ reason }) => reports.push(reason) });
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10));
    mine.setFilter({ where: { Event: { Title: ["two"] } } });
    await world.peer.send(answered("a", 10), part([row("2", "two")]), end(10));
    deepEqual([mine.rows("Event").all().map(({ Title }) => Title), reports], [["two"], ["start", "filter"]]);
    await world.peer.send(change(11, { EventId: "2", Title: "three" }));
    equal(mine.rows("Event").size, 0, "the row has left the filter");
    deepEqual(mine.snapshot(), { companyId: "a", filter: { where: { Event: { Title: ["two"] } } }, position: { after: 11, epoch: "e1" }, rows: { Event: [] } });
  });

  test("that has no end is not collected", async () => {
    const world = await begin();
    await world.peer.send(answered("a", 10));
    const one = part([row("1", "x".repeat(9_000_000))]);
    for (let part = 0; part < 8; part++) await world.peer.send(one);
    deepEqual([world.client.status.state, world.client.status.reason], ["idle", "state_too_large"]);
    deepEqual(world.peer.last, { type: "unsubscribe", data: { companyId: "a" } });
    await world.peer.send(end(10), change(11));
    deepEqual([world.newReports(), world.client.position], [[], null]);
  });

  test("that is refused leaves the client idle, and of a former subscription nothing follows", async () => {
    const world = await begin();
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10), resync(11));
    await world.peer.send(rejected("a", "state_too_large"));
    deepEqual([world.client.status.state, world.client.status.reason], ["idle", "state_too_large"]);
    await world.peer.send(change(12));
    deepEqual(world.newReports(), [["state", "start", 10]]);
    deepEqual(world.peer.last, { type: "unsubscribe", data: { companyId: "a" } });
  });

  test("is applied before the changes, also while the application takes it", async () => {
    let taken;
    const world = await begin({ onState: () => new Promise((resolve) => (taken = resolve)) });
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10), change(11, { Title: "two" }));
    deepEqual([titles(world.client), world.client.position], [["one"], null]);
    taken();
    await settle();
    deepEqual([titles(world.client), world.client.position.after], [["two"], 11]);
  });

  test("of several companies is kept apart", async () => {
    const world = await begin();
    const other = world.client.subscribe("b", { state: true });
    await world.peer.send(answered("a", 10), answered("b", 20), part([row("1", "of a")]), part([row("1", "of b")], "Event", "b"), end(20, "b"), end(10));
    deepEqual([titles(world.client), other.rows("Event").get(1).Title, other.position.after], [["of a"], "of b", 20]);
    other.unsubscribe();
    equal(other.rows("Event").size, 0);
    deepEqual(titles(world.client), ["of a"]);
  });
});

describe("the row of a message", () => {
  test("stays if it has its keys only, which do not show whether it has left the filter", async () => {
    const world = await begin({ where: { Event: { Title: ["one"] } } });
    await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10), { ...change(11), Partial: true });
    deepEqual(world.client.rows("Event").get("1"), { EventId: "1", CompanyId: "a" });
    await world.peer.send(change(12, { Title: "two" }));
    equal(world.client.rows("Event").size, 0);
  });

  test("is found by its key where tables share the name of the message", async () => {
    const world = await begin({ tables: { Order: { key: "OrderId", updated: "Changed" }, Invoice: { key: "InvoiceId", updated: "Changed" } } });
    await world.peer.send(answered("a", 10), end(10), { Type: "Changed", Data: { CompanyId: "a", InvoiceId: "7" }, Position: 11 });
    deepEqual([world.client.rows("Order").size, world.client.rows("Invoice").size], [0, 1]);
  });
});

describe("rows that a message makes unknown", () => {
  for (const [why, message, expected] of [
    ["its name", { ...change(11), Type: "Renamed" }, /Which rows Renamed changes is not known/],
    ["its key", { ...change(11), Type: "InvoiceUpdated" }, /Which property names a row of Invoice is not known/],
  ]) {
    test(`by ${why} are an error wherever they are read, and are reported`, async () => {
      const world = await begin();
      await world.peer.send(answered("a", 10), part([row("1", "one")]), end(10));
      const events = world.client.rows("Event");
      deepEqual(titles(world.client), ["one"]);
      const changes = [];
      events.subscribe((changed) => changes.push(changed));
      await world.peer.send(message);
      for (const read of [() => events.all(), () => events.get("1"), () => events.size, () => world.client.snapshot()]) assert.throws(read, expected);
      deepEqual(changes, [undefined]);
    });
  }
});

describe("a snapshot", () => {
  const snapshot = { companyId: "a", filter: {}, position: { after: 10, epoch: "e1", at: "t" }, rows: { Event: [row("1", "saved")] } };

  test("shows its rows at once and resumes at its position", async () => {
    const world = await begin({ snapshot });
    deepEqual(titles(world.client), ["saved"]);
    deepEqual(world.peer.last.data, { companyId: "a", after: 10, epoch: "e1", at: "t", state: true });
    await world.peer.send(answered("a", 10, { recovered: true, at: "t" }), change(11, { Title: "changed" }));
    deepEqual(titles(world.client), ["changed"]);
    deepEqual(snapshot.rows.Event[0].Title, "saved");
  });

  test("of another company or filter is ignored, and so is a position without rows", async () => {
    for (const options of [{ snapshot: { ...snapshot, companyId: "b" } }, { snapshot: { ...snapshot, filter: { entities: ["Event"] } } }, { position: snapshot.position }]) {
      const world = await begin(options);
      deepEqual([world.client.rows("Event").size, world.peer.last.data], [0, { companyId: "a", state: true }]);
      world.client.close();
    }
  });

  test("is removed if access was lost meanwhile", async () => {
    const world = await begin({ snapshot });
    await world.peer.send(rejected("a", "company_forbidden"));
    deepEqual([world.client.status.reason, world.client.rows("Event").size, world.client.snapshot()], ["company_forbidden", 0, null]);
  });

  test("there is none without the option, nor while rows are missing", async () => {
    const world = await begin();
    equal(world.client.snapshot(), null);
    const plain = await follow();
    assert.throws(() => plain.client.rows("Event"), /option state/);
    equal(plain.client.snapshot(), null);
  });
});
