// A TanStack DB collection on the fake service: run by test_package.py, where the package @tanstack/db is.

import assert from "node:assert/strict";

import { createCollection } from "@tanstack/db";
import { connect } from "postgres-notifier";
import { notifierCollectionOptions } from "postgres-notifier/tanstack";
import { FakeService } from "postgres-notifier/testing";

const service = new FakeService();
const acme = service.company("acme");
acme.create("Event", { EventId: "1", Title: "one" });
const client = connect({ ...service.options, companyId: "acme", state: true });
const titles = (collection) => collection.toArray.map(({ Title }) => Title).sort();

let answer;
const events = createCollection(notifierCollectionOptions({
  client,
  entity: "Event",
  onInsert: () => new Promise((resolve) => (answer = resolve)),
  onUpdate: async () => {
    throw new Error("refused");
  },
}));
await events.preload();
assert.deepEqual(titles(events), ["one"]);
assert.equal(events.get("1").Title, "one");

// Changes of others.
acme.update("Event", { EventId: "1", Title: "two" });
acme.create("Event", { EventId: "2", Title: "other" });
await service.settled();
assert.deepEqual(titles(events), ["other", "two"]);
acme.delete("Event", { EventId: "2" });
await service.settled();
assert.deepEqual(titles(events), ["two"]);

// An own one stays until its messages have arrived.
const row = { EventId: "3", Title: "own" };
const written = events.insert(row);
assert.deepEqual(titles(events), ["own", "two"]);
const tx = acme.create("Event", { ...row, Title: "own, stored" });
await service.settled();
answer({ tx });
await written.isPersisted.promise;
assert.deepEqual(titles(events), ["own, stored", "two"]);

// A refused one is taken back.
const refused = events.update("1", (draft) => void (draft.Title = "never"));
assert.deepEqual(titles(events), ["never", "own, stored"]);
await assert.rejects(refused.isPersisted.promise, /refused/);
assert.deepEqual(titles(events), ["own, stored", "two"]);

// Missed changes, a state that is read again, and lost access.
service.goOffline();
acme.create("Event", { EventId: "4", Title: "missed" });
service.goOnline();
await service.settled();
assert.deepEqual(titles(events), ["missed", "own, stored", "two"]);
acme.resync();
await service.settled();
assert.deepEqual(titles(events), ["missed", "own, stored", "two"]);
acme.revoke();
await service.settled();
assert.deepEqual(titles(events), []);
client.close();
