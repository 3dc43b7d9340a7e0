// A server that breaks the protocol: the client drops the connection, and connects again; nothing is thrown.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { answered, authenticated, change, EPOCH, follow, pass, refused, rejected, resync, stopTheClock, subscribed } from "./world.mjs";

const { deepEqual, equal, ok } = assert;

beforeEach(stopTheClock);

const ABSENT = Symbol("absent");
const VALUES = [ABSENT, null, true, 7, -1, 2 ** 60, "x", [], [null], {}];

const MESSAGES = {
  "the result of authenticate": authenticated(),
  "its refusal": { Type: "AuthenticationResult", Success: false, Error: { Code: "x", Message: "y" } },
  "an answer": subscribed("a", 10, { recovered: true, at: "then" }),
  "a refusal": { ...refused("bad_filter"), Data: { CompanyId: "a" } },
  "an answer to subscribe": answered("a", 10),
  "its refusal of the company": rejected("a", "bad_filter"),
  "a change": { ...change(11, { Title: "x" }), Old: { Title: "y" }, Tx: "7", At: "t", Actor: "u", Partial: true },
  "a resync": resync(11),
  Skipped: { Type: "Skipped", Data: { CompanyId: "a" }, Position: 12, At: "t" },
  CompanyRevoked: { Type: "CompanyRevoked", Data: { CompanyId: "a" } },
  Arrived: { Type: "Arrived", Data: { CompanyId: "a", Tx: "7", Position: 11 } },
  "an error": { Type: "Error", Error: { Code: "timeout", Message: "y" }, Data: { CompanyId: "a", Tx: "7" } },
  Disconnect: { Type: "Disconnect", Data: { Code: 4503, Reason: "r", Reconnect: true, RetryAfterMs: 5 } },
  TokenExpiring: { Type: "TokenExpiring", Data: { ExpiresAt: "t" } },
  State: { Type: "State", Data: { CompanyId: "a", Entity: "Event", Rows: [{ EventId: "1" }] } },
  StateEnd: { Type: "StateEnd", Data: { CompanyId: "a", Position: 10 } },
};

function* paths(value) {
  for (const [name, inner] of Object.entries(value)) {
    yield [name];
    if (typeof inner === "object" && !Array.isArray(inner)) for (const rest of paths(inner)) yield [name, ...rest];
  }
}

/** The message with each of its properties, at any depth, replaced by each value. */
function* broken(message) {
  for (const path of paths(message)) {
    for (const value of VALUES) {
      const made = structuredClone(message);
      const last = path.at(-1);
      const inner = path.slice(0, -1).reduce((at, name) => at[name], made);
      if (value === ABSENT) delete inner[last];
      else inner[last] = value;
      yield made;
    }
  }
}

/** A client in one of its stages. */
async function at(stage, state) {
  const world = await follow({ state, onState: () => {} });
  await world.peer.open();
  if (stage === "first") return world;
  await world.peer.send(authenticated());
  if (stage === "authenticated") return world;
  await world.peer.send(state ? answered("a", 10) : subscribed("a", 10));
  if (state && stage === "live") await world.peer.send({ Type: "StateEnd", Data: { CompanyId: "a", Position: 10 } });
  return world;
}

describe("a message of a wrong shape", () => {
  let thrown = [];
  const collect = (error) => thrown.push(error);

  for (const [name, message] of Object.entries(MESSAGES)) {
    test(`throws nothing, and is not reported: ${name}`, async () => {
      thrown = [];
      process.on("uncaughtException", collect);
      try {
        for (const made of broken(message)) {
          for (const state of [false, true]) {
            for (const stage of ["first", "authenticated", "subscribed", "live"]) {
              const seen = [];
              const world = await at(stage, state);
              world.client.arrived("7").catch(() => {});
              const text = JSON.stringify(made);
              await world.peer.send(made, change(11)).catch(collect);
              deepEqual([thrown, text], [[], text]);
              ok(["connecting", "live", "waiting", "idle", "stopped"].includes(world.client.status.state), text);
              for (const report of world.reports) seen.push(report);
              for (const [kind, position] of seen) if (kind === "message") ok(Number.isSafeInteger(position), text);
              world.client.close();
            }
          }
        }
      } finally {
        process.off("uncaughtException", collect);
      }
    });
  }

  for (const made of [
    { Type: "SetCompanyResult", Success: true, Data: { CompanyId: "a", Position: 10, Epoch: 7 } },
    { Type: "SetCompanyResult", Success: true },
    { Type: "SetCompanyResult" },
    { Type: 7, Position: 11 },
    { Position: 11 },
    { Type: "EventCreated", Position: 11 },
    { Type: "EventCreated", Data: [], Position: 11 },
    { Type: "EventCreated", Data: {}, Position: null },
  ]) {
    test(`is requested again: ${JSON.stringify(made)}`, async () => {
      const world = await follow();
      await world.peer.open();
      await world.peer.send(authenticated(), made);
      deepEqual([world.client.status.state, world.client.status.reason], ["waiting", "unreadable message"]);
      await pass(world.client.status.retryInMs);
      await world.peer.acknowledge();
      equal(world.client.status.state, "live");
    });
  }

  test("does not move the position of the rows", async () => {
    const world = await at("live", true);
    equal(world.client.position.after, 10);
    await world.peer.send({ Type: "EventCreated", Data: null, Position: 11 });
    equal(world.client.position.after, 10);
    deepEqual([world.client.status.state, world.client.status.reason], ["waiting", "unreadable message"]);
    await pass(world.client.status.retryInMs);
    await world.peer.open();
    await world.peer.send(authenticated());
    deepEqual(world.peer.last.data, { companyId: "a", after: 10, epoch: EPOCH, state: true });
  });

  test("names no property that every object has", async () => {
    const world = await at("subscribed", true);
    for (const Entity of ["__proto__", "constructor", "toString"]) {
      await world.peer.send({ Type: "State", Data: { CompanyId: "a", Entity, Rows: [{ EventId: "1" }] } });
    }
    await world.peer.send({ Type: "StateEnd", Data: { CompanyId: "a", Position: 10 } });
    equal({}.EventId, undefined);
    equal([].length, 0);
  });
});
