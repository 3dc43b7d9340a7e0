// The fake service for tests of applications, with the real client, its rows and the TanStack options that need no package.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { connect } from "../../clients/js/src/client.js";
import { notifierCollectionOptions, queryInvalidation } from "../../clients/js/src/tanstack.js";
import { FakeService } from "../../clients/js/src/testing.js";

const titles = (rows) => rows.all().map(({ Title }) => Title).sort();

test("rows follow the service through changes, absence, resync and revocation", async () => {
  const service = new FakeService();
  const acme = service.company("acme");
  acme.create("Event", { EventId: "1", Title: "one" });
  const states = [];
  const client = connect({ ...service.options, companyId: "acme", state: true, onState: ({ reason }) => states.push(reason) });
  const events = client.rows("Event");
  assert.equal(events.complete, false);
  await service.settled();
  assert.deepEqual([titles(events), events.complete, client.transport], [["one"], true, "websocket"]);
  const all = events.all();
  assert.equal(events.all(), all, "the same array until a row changes");

  const changes = [];
  const stop = events.subscribe((change) => changes.push([change?.key, change?.row?.Title]));
  const tx = acme.update("Event", { EventId: "1", Title: "two" });
  assert.equal(await client.arrived(tx), 2);
  assert.deepEqual(changes, [["1", "two"]]);
  stop();

  service.goOffline();
  acme.create("Event", { EventId: "2", Title: "missed" });
  acme.delete("Event", { EventId: "1" });
  await service.settled();
  assert.deepEqual(titles(events), ["two"]);
  service.goOnline();
  await service.settled();
  assert.deepEqual(titles(events), ["missed"]);
  assert.equal(changes.length, 1, "the listener has ended");

  acme.resync();
  await service.settled();
  assert.deepEqual(states, ["start", "bulk"]);
  const snapshot = JSON.parse(JSON.stringify(client.snapshot()));
  acme.revoke();
  await service.settled();
  assert.deepEqual([events.size, events.complete, client.status.reason, client.snapshot()], [0, false, "revoked", null]);
  client.close();

  acme.allow();
  acme.create("Event", { EventId: "3", Title: "later" });
  const again = connect({ ...service.options, companyId: "acme", state: true, snapshot, onState: () => states.push("again") });
  assert.deepEqual(titles(again.rows("Event")), ["missed"]);
  await service.settled();
  assert.deepEqual(titles(again.rows("Event")), ["later", "missed"]);
  assert.deepEqual(states, ["start", "bulk"], "nothing had to be read again");
  again.close();
});

test("rows whose messages or keys are not known are never silently wrong", async () => {
  const tables = { Invoice: { key: "number", created: "Saved", updated: "Saved", deleted: "Gone" } };
  const service = new FakeService({ tables });
  const acme = service.company("acme");
  const named = connect({ ...service.options, companyId: "acme", state: true });
  const unnamed = connect({ ...service.options, tables: undefined, companyId: "acme", state: true });
  await service.settled();
  acme.create("Invoice", { number: 7 });
  await service.settled();
  assert.equal(named.rows("Invoice").get("7").number, 7);
  assert.throws(() => unnamed.rows("Event").all(), /Saved.*tables/);
  acme.delete("Invoice", { number: 7 });
  await service.settled();
  assert.equal(named.rows("Invoice").size, 0);
  named.close();
  unnamed.close();
});

test("a row that leaves the filter leaves the rows", async () => {
  const service = new FakeService();
  const acme = service.company("acme");
  acme.create("Event", { EventId: "1", Title: "mine", AllDay: true });
  acme.create("Event", { EventId: "2", Title: "theirs", AllDay: true });
  const client = connect({ ...service.options, companyId: "acme", state: true, where: { Event: { Title: ["mine"] } } });
  await service.settled();
  assert.deepEqual(titles(client.rows("Event")), ["mine"]);
  acme.update("Event", { EventId: "1", Title: "theirs" });
  acme.update("Event", { EventId: "2", Title: "mine" });
  await service.settled();
  assert.deepEqual(client.rows("Event").all().map(({ EventId }) => EventId), ["2"]);
  client.close();
});

test("queries are invalidated once for changes that come together, and all of them by a resync", async () => {
  const service = new FakeService();
  const acme = service.company("acme");
  const invalid = [];
  const queries = { invalidateQueries: async ({ queryKey }) => void invalid.push(queryKey.join("/")) };
  const keys = { Event: ["events"], Employee: (row) => (row ? ["employee", row.EmployeeId] : ["employee"]) };
  const client = connect({ ...service.options, companyId: "acme", ...queryInvalidation(queries, keys, { delayMs: 1 }) });
  await service.settled();
  assert.deepEqual(invalid.splice(0), ["events", "employee"]);
  acme.create("Event", { EventId: "1" });
  acme.create("Event", { EventId: "2" });
  acme.create("Employee", { EmployeeId: "9" });
  await service.settled();
  assert.deepEqual(invalid.splice(0), ["events", "employee/9"]);
  acme.resync();
  await service.settled();
  assert.deepEqual(invalid, ["events", "employee"]);
  client.close();
});

test("an optimistic change waits for its messages", async () => {
  const service = new FakeService();
  const acme = service.company("acme");
  const client = connect({ ...service.options, companyId: "acme", state: true });
  const { onInsert, getKey, utils } = notifierCollectionOptions({
    client,
    entity: "Event",
    onInsert: async ({ row }) => ({ tx: acme.create("Event", row) }),
  });
  await onInsert({ row: { EventId: "1", Title: "own" } });
  assert.deepEqual(titles(client.rows("Event")), ["own"]);
  assert.equal(getKey({ EventId: 1 }), "1");
  assert.equal(await utils.awaitTx(acme.update("Event", { EventId: "1", Title: "again" })), 2);
  client.close();
});

test("the documentation's example runs as it stands there", async () => {
  const page = await readFile(new URL("../../docs/javascript.md", import.meta.url), "utf8");
  const [, block] = /## Test your application\n[^`]*```js\n(.*?)```/s.exec(page);
  const source = (name) => new URL(`../../clients/js/src/${name}.js`, import.meta.url).href;
  const program = block
    .replace('"postgres-notifier"', `"${source("client")}"`)
    .replace('"postgres-notifier/testing"', `"${source("testing")}"`);
  const text = `import assert from "node:assert/strict";\n${program}\nclient.close();\nexport const rows = client.rows("Event");`;
  const { rows } = await import(`data:text/javascript,${encodeURIComponent(text)}`);
  assert.equal(rows.complete, true);
});
