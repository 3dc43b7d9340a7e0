import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { connect } from "../../clients/js/src/client.js";
import {
  EPOCH,
  authenticated,
  change,
  follow,
  pass,
  refused,
  resync,
  settle,
  stopTheClock,
  subscribed,
} from "./world.mjs";

const { deepEqual, equal, ok, throws } = assert;

beforeEach(stopTheClock);
afterEach(() => mock.timers.reset());

describe("the conversation", () => {
  test("it authenticates, subscribes, and reports one resync", async () => {
    const { peer, client, newReports } = await follow();
    equal(peer.url, "ws://notifier.test/");
    await peer.open();
    deepEqual(peer.received, [{ type: "authenticate", token: "token-1" }]);
    await peer.send(authenticated());
    deepEqual(peer.last, { type: "setCompany", data: { companyId: "a" } });
    equal(client.status.state, "connecting");
    await peer.send(subscribed("a", 10));
    equal(client.status.state, "live");
    deepEqual(newReports(), [["resync", "start", 10]]);
    deepEqual(client.position, { after: 10, epoch: EPOCH });
    await peer.send(change(11), change(12));
    deepEqual(newReports(), [["message", 11], ["message", 12]]);
    deepEqual(client.position, { after: 12, epoch: EPOCH });
  });

  test("without a company it waits for one", async () => {
    const { peer, client, newReports } = await follow({ companyId: null });
    await peer.open();
    await peer.send(authenticated());
    equal(client.status.state, "idle");
    client.setCompany(7);
    deepEqual(peer.last, { type: "setCompany", data: { companyId: "7" } });
    await peer.send(subscribed("7", 0));
    deepEqual(newReports(), [["resync", "start", 0]]);
  });

  test("the server may spell a uuid differently", async () => {
    const { peer, client } = await follow({ companyId: "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11" });
    await peer.open();
    await peer.send(authenticated(), subscribed("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 3));
    equal(client.status.state, "live");
  });

  test("a message of a later protocol is ignored, an unreadable one ends the connection", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send({ Type: "SomethingNew", Data: {} }, { Type: "Pong" });
    equal(client.status.state, "live");
    deepEqual(newReports(), []);
    await peer.send("{");
    equal(client.status.state, "waiting");
    ok(peer.closed);
  });

  test("an unreadable message is requested again but not for ever", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    world.newReports();
    for (let i = 0; i < 4; i++) {
      await world.peer.send("{");
      await pass(world.client.status.retryInMs);
      await world.peer.acknowledge({ recovered: i < 3 || undefined });
      deepEqual(world.peer.last.data, i < 3 ? { companyId: "a", after: 10, epoch: EPOCH } : { companyId: "a" });
    }
    deepEqual(world.newReports().at(-1), ["resync", "gap", 10]);
  });

  test("an option that is undefined has its default", async () => {
    const options = ["heartbeatMs", "timeoutMs", "minDelayMs", "maxDelayMs"].map((name) => [name, undefined]);
    const world = await follow(Object.fromEntries(options));
    await world.peer.acknowledge();
    await pass(25_000);
    equal(world.client.status.reason, "silent link");
    equal(world.client.status.retryInMs, 500);
  });

  test("a socket that the browser blocks without an event stops it", async () => {
    class Blocked {
      readyState = 3;
    }
    const { client } = await follow({ WebSocket: Blocked });
    equal(client.status.state, "stopped");
    equal(client.status.reason, "cannot connect");
    await pass(60_000);
    equal(client.status.state, "stopped");
  });

  test("an http URL becomes a ws URL, and a wrong one is refused at once", async () => {
    for (const [url, opened] of [
      ["http://notifier.test/x/", "ws://notifier.test/x/"],
      ["https://notifier.test", "wss://notifier.test/"],
      ["wss://notifier.test/#fragment", "wss://notifier.test/"],
      [new URL("ws://notifier.test:8181"), "ws://notifier.test:8181/"],
    ]) {
      const { peer } = await follow({ url });
      equal(peer.url, opened);
    }
    for (const url of ["ftp://notifier.test/", "/realtime/"]) {
      throws(() => connect({ url, getToken: () => "t", WebSocket: class {} }), TypeError);
    }
  });

  test("options that cannot work are refused at once", () => {
    const getToken = () => "t";
    class WebSocket {}
    throws(() => connect({ url: "not a url", getToken, WebSocket }), TypeError);
    throws(() => connect({ url: "ws://x/", WebSocket }), /getToken/);
    if (!globalThis.WebSocket) throws(() => connect({ url: "ws://x/", getToken }), /WebSocket/);
  });

  test("a closed client stays closed", async () => {
    const { peer, client, tokensFetched, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    client.close();
    client.close();
    ok(peer.closed);
    equal(client.status.state, "closed");
    await peer.send(change(11));
    await pass(60_000);
    deepEqual(newReports(), []);
    equal(tokensFetched.length, 1);
    throws(() => client.setCompany("b"), /closed/);
    throws(() => client.reconnect(), /closed/);
  });

  test("an error in a callback is thrown and stops nothing", async () => {
    const thrown = [];
    const queue = mock.method(globalThis, "queueMicrotask", (task) => {
      try {
        task();
      } catch (error) {
        thrown.push(error.message);
      }
    });
    const onMessage = ({ Position }) => {
      if (Position === 11) throw new Error("an error of the application");
    };
    const { peer, newReports } = await follow({ onMessage });
    await peer.acknowledge();
    newReports();
    await peer.send(change(11), change(12));
    queue.mock.restore();
    deepEqual(newReports(), [["message", 11], ["message", 12]]);
    deepEqual(thrown, ["an error of the application"]);
  });
});

describe("the close codes", () => {
  const RETURNS = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4419, 4429, 4500, 4503, 4508, 4999];
  const FINAL = [1002, 1003, 1007, 1009, 4400, 4403, 4409];

  for (const code of RETURNS) {
    test(`${code}: it reconnects with a new token and resumes`, async () => {
      const world = await follow();
      await world.peer.acknowledge();
      await world.peer.send(change(11));
      world.newReports();
      await world.peer.close(code, "for a reason");
      const { state, retryInMs, reason } = world.client.status;
      equal(state, "waiting");
      equal(world.client.status.code, code);
      equal(reason, "for a reason");
      equal(retryInMs, code === 4429 ? 5_500 : 500);
      await pass(retryInMs - 1);
      equal(world.peers.length, 1);
      await pass(1);
      equal(world.peers.length, 2);
      await world.peer.open();
      await world.peer.send(authenticated());
      deepEqual(world.peer.received, [
        { type: "authenticate", token: "token-2" },
        { type: "setCompany", data: { companyId: "a", after: 11, epoch: EPOCH } },
      ]);
      await world.peer.send(subscribed("a", 11, { recovered: true }), change(12));
      deepEqual(world.newReports(), [["recovered", 11], ["message", 12]]);
    });
  }

  for (const code of FINAL) {
    test(`${code}: it stops`, async () => {
      const world = await follow();
      await world.peer.acknowledge();
      await world.peer.close(code);
      equal(world.client.status.state, "stopped");
      equal(world.client.status.code, code);
      await pass(120_000);
      equal(world.peers.length, 1);
      world.client.reconnect();
      await settle();
      equal(world.peers.length, 2);
    });
  }

  test("4401: it does not reconnect with that token", async () => {
    const world = await follow({ getToken: () => "the same" });
    await world.peer.open();
    await world.peer.close(4401);
    await pass(120_000);
    equal(world.peers.length, 1);
    equal(world.tokensFetched.length, 2);
    equal(world.client.status.state, "stopped");
    equal(world.client.status.code, 4401);
  });

  test("4401: it reconnects with another one", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.close(4401);
    await pass(1_000);
    await world.peer.open();
    deepEqual(world.peer.received, [{ type: "authenticate", token: "token-2" }]);
  });

  test("4419: an expired token is not presented again", async () => {
    const world = await follow({ getToken: (time) => (time < 4 ? "old" : "fresh") });
    await world.peer.acknowledge();
    await world.peer.close(4419);
    await pass(500);
    equal(world.client.status.state, "waiting");
    equal(world.peers.length, 1);
    await pass(3_000);
    equal(world.peers.length, 2);
    await world.peer.open();
    deepEqual(world.peer.received, [{ type: "authenticate", token: "fresh" }]);
  });

  test("4403: it stops for this company and starts for another", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.send(authenticated());
    await world.peer.close(4403);
    equal(world.client.status.state, "stopped");
    world.client.setCompany("b");
    await settle();
    await world.peer.open();
    await world.peer.send(authenticated());
    deepEqual(world.peer.last, { type: "setCompany", data: { companyId: "b" } });
  });

  test("it waits as long as the server requests", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await world.peer.send({
      Type: "Disconnect",
      Data: { Code: 4429, Reason: "too many", Reconnect: true, RetryAfterMs: 20_000 },
    });
    await world.peer.close(4429);
    equal(world.client.status.retryInMs, 20_500);
    await pass(20_499);
    equal(world.peers.length, 1);
    await pass(1);
    equal(world.peers.length, 2);
  });

  test("the code of Disconnect counts if the close has no specific code", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await world.peer.send({ Type: "Disconnect", Data: { Code: 4409, Reason: "other user", Reconnect: false } });
    await world.peer.close(1006);
    equal(world.client.status.state, "stopped");
    equal(world.client.status.code, 4409);
    equal(world.client.status.reason, "other user");
  });

  test("Reconnect: false is obeyed for unknown close codes", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await world.peer.send({ Type: "Disconnect", Data: { Code: 4777, Reason: "no more", Reconnect: false } });
    await world.peer.close(4777);
    equal(world.client.status.state, "stopped");
  });

  test("a Disconnect counts even if the close is lost", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await world.peer.send({
      Type: "Disconnect",
      Data: { Code: 4508, Reason: "too slow", Reconnect: true, RetryAfterMs: 100 },
    });
    await pass(10_000);
    equal(world.client.status.code, 4508);
    equal(world.client.status.retryInMs, 600);
    ok(world.peer.closed);
  });
});

describe("reconnecting", () => {
  test("the delays grow with full jitter up to a bound", async () => {
    for (const [random, waits] of [
      [0.999999, [999, 1999, 3999, 7999, 15999, 29999, 29999]],
      [0.5, [500, 1000, 2000, 4000, 8000, 15000, 15000]],
      [0, [0, 0, 0]],
    ]) {
      const world = await follow({ random: () => random });
      for (const wait of waits) {
        await world.peer.close(1006);
        equal(world.client.status.retryInMs, wait);
        await pass(wait + 1);
      }
      world.client.close();
    }
  });

  test("a connection that breaks at once does not reset the backoff", async () => {
    const world = await follow();
    for (const wait of [500, 1000, 2000]) {
      await world.peer.acknowledge();
      await world.peer.close(1012);
      equal(world.client.status.retryInMs, wait);
      await pass(wait);
    }
    await world.peer.acknowledge();
    await pass(4_999);
    await world.peer.close(1012);
    equal(world.client.status.retryInMs, 4_000);
    await pass(4_000);
    await world.peer.acknowledge();
    await pass(5_000);
    await world.peer.close(1012);
    equal(world.client.status.retryInMs, 500);
  });

  test("a connection without a company may last, too", async () => {
    const world = await follow({ companyId: null });
    for (const wait of [500, 500, 500]) {
      await world.peer.open();
      await world.peer.send(authenticated());
      await pass(5_000);
      await world.peer.close(1006);
      equal(world.client.status.retryInMs, wait);
      await pass(wait);
    }
  });

  test("a server that authenticates but never answers does not reset the backoff", async () => {
    const world = await follow();
    for (const wait of [500, 1_000, 2_000]) {
      await world.peer.open();
      await world.peer.send(authenticated());
      for (let i = 0; i < 3; i++) {
        await pass(10_000);
        await world.peer.send({ Type: "Pong" });
      }
      equal(world.client.status.retryInMs, wait);
      await pass(wait);
    }
  });

  test("a server that does not open, authenticate or answer is left after the timeout", async () => {
    const world = await follow();
    await pass(9_999);
    equal(world.client.status.state, "connecting");
    await pass(1);
    equal(world.client.status.state, "waiting");
    await pass(500);
    await world.peer.open();
    await pass(10_000);
    equal(world.client.status.state, "waiting");
    await pass(1_000);
    await world.peer.open();
    await world.peer.send(authenticated());
    for (let i = 0; i < 2; i++) {
      await pass(10_000);
      await world.peer.send({ Type: "Pong" });
    }
    equal(world.client.status.state, "connecting");
    await pass(10_000);
    equal(world.client.status.state, "waiting");
    ok(world.peers.every((peer) => peer.closed));
  });

  test("another client resumes a saved position", async () => {
    const first = await follow();
    await first.peer.acknowledge();
    await first.peer.send(change(11));
    const position = JSON.parse(JSON.stringify(first.client.position));
    first.client.close();
    const second = await follow({ position });
    await second.peer.acknowledge({ position: 11, recovered: true });
    deepEqual(second.peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await second.peer.send(change(12));
    deepEqual(second.newReports(), [["recovered", 11], ["message", 12]]);
  });

  test("it proves its position with the time of the last message", async () => {
    const world = await follow();
    await world.peer.acknowledge({ at: "t10" });
    deepEqual(world.client.position, { after: 10, epoch: EPOCH, at: "t10" });
    await world.peer.close(1006);
    await pass(500);
    await world.peer.open();
    await world.peer.send(authenticated());
    const resume = { companyId: "a", after: 10, epoch: EPOCH, at: "t10" };
    deepEqual(world.peer.last.data, resume);
    await world.peer.send(subscribed("a", 10, { recovered: true, at: "t10" }), { ...change(11), At: "t11" });
    deepEqual(world.client.position, { after: 11, epoch: EPOCH, at: "t11" });
    await world.peer.send(change(13));
    deepEqual(world.peer.last.data, { ...resume, after: 11, at: "t11" });
    await world.peer.send(subscribed("a", 11, { recovered: true }), { ...resync(12), At: "t12" });
    deepEqual(world.client.position, { after: 12, epoch: EPOCH, at: "t12" });
    await world.peer.send(change(13), change(15));
    deepEqual(world.peer.last.data, { companyId: "a", after: 13, epoch: EPOCH }, "a time that is not known is not sent");
    world.client.setCompany("b", { after: 3, epoch: "e2", at: "t3" });
    await world.peer.send(subscribed("a", 13, { recovered: true }));
    deepEqual(world.peer.last.data, { companyId: "b", after: 3, epoch: "e2", at: "t3" });
  });

  test("a position of another time is not recovered", async () => {
    const world = await follow({ position: { after: 10, epoch: EPOCH, at: "before the backup was restored" } });
    await world.peer.acknowledge({ recovered: true, at: "t10" });
    deepEqual(world.newReports(), [["resync", "epoch", 10]]);
    deepEqual(world.client.position, { after: 10, epoch: EPOCH, at: "t10" });
  });

  test("a time that only one side knows is kept", async () => {
    for (const [ours, theirs] of [["t10", undefined], [undefined, "t10"], ["t10", "t10"]]) {
      const world = await follow({ position: { after: 10, epoch: EPOCH, at: ours } });
      await world.peer.acknowledge({ recovered: true, at: theirs });
      deepEqual(world.newReports(), [["recovered", 10]]);
      await world.peer.send(change(12));
      deepEqual(world.peer.last.data, { companyId: "a", after: 10, epoch: EPOCH, at: "t10" });
      world.client.close();
    }
  });

  test("what cannot be recovered is a resync: expired, another epoch, or another position than requested", async () => {
    for (const [answer, reason] of [
      [{ position: 50, recovered: false }, "expired"],
      [{ position: 50 }, "expired"],
      [{ position: 50, recovered: true }, "expired"],
      [{ position: 3, epoch: "e2", recovered: false }, "epoch"],
      [{ position: 11, epoch: "e2", recovered: true }, "epoch"],
    ]) {
      const world = await follow({ position: { after: 11, epoch: EPOCH } });
      await world.peer.acknowledge(answer);
      deepEqual(world.newReports(), [["resync", reason, answer.position]]);
      await world.peer.send(change(answer.position + 1));
      deepEqual(world.client.position, { after: answer.position + 1, epoch: answer.epoch ?? EPOCH });
      world.client.close();
    }
  });

  test("position 0 can be resumed", async () => {
    const world = await follow({ position: { after: 0, epoch: EPOCH } });
    await world.peer.acknowledge({ position: 0, recovered: true });
    deepEqual(world.newReports(), [["recovered", 0]]);
  });

  test("an answer without position or epoch is unreadable", async () => {
    for (const broken of [{ position: "10" }, { epoch: null }]) {
      const world = await follow();
      await world.peer.acknowledge(broken);
      equal(world.client.status.state, "waiting");
      deepEqual(world.newReports(), []);
      world.client.close();
    }
  });
});

describe("the token", () => {
  const EXPIRING = { Type: "TokenExpiring", Data: { ExpiresAt: "2026-11-22T18:00:00Z" } };

  test("it is renewed on the live socket", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send(EXPIRING);
    deepEqual(peer.last, { type: "authenticate", token: "token-2" });
    await peer.send(authenticated(), change(11));
    deepEqual(newReports(), [["message", 11]]);
    equal(client.status.state, "live");
    equal(peer.received.length, 3);
  });

  test("renewals in succession are spaced", async () => {
    const { peer, tokensFetched } = await follow(); // as where the server's clock is ahead: each new token is about to expire
    await peer.acknowledge();
    for (let i = 0; i < 100; i++) {
      await peer.send(EXPIRING, authenticated());
      await pass(100);
    }
    ok(tokensFetched.length >= 3 && tokensFetched.length <= 6, `${tokensFetched.length}`);
    for (let i = 0; i < 5; i++) {
      await pass(10_000);
      await peer.send({ Type: "Pong" });
    }
    const before = tokensFetched.length;
    await peer.send(EXPIRING);
    equal(tokensFetched.length, before + 1);
  });

  test("a renewal that fails, hangs or returns the old token is tried again", async () => {
    const answers = [
      () => "first",
      () => Promise.reject(new Error("provider down")),
      () => "first",
      () => new Promise(() => {}),
      () => "second",
    ];
    const errors = [];
    const { peer, tokensFetched } = await follow({
      getToken: (time) => answers[time - 1](),
      onStatus: ({ error }) => error && errors.push(error.message),
    });
    await peer.acknowledge();
    await peer.send(EXPIRING, EXPIRING);
    equal(tokensFetched.length, 2);
    for (let i = 0; i < 5; i++) {
      await pass(10_000);
      await peer.send({ Type: "Pong" });
    }
    equal(tokensFetched.length, 5);
    deepEqual(errors, ["provider down", "getToken() did not answer."]);
    deepEqual(
      peer.received.filter(({ type }) => type === "authenticate"),
      [
        { type: "authenticate", token: "first" },
        { type: "authenticate", token: "second" },
      ],
    );
  });

  test("a renewal that comes too late is not sent on the next socket", async () => {
    let renew;
    const world = await follow({
      getToken: (time) => (time === 2 ? new Promise((resolve) => (renew = resolve)) : `token-${time}`),
    });
    await world.peer.acknowledge();
    await world.peer.send(EXPIRING);
    await world.peer.close(4419);
    await pass(500);
    await world.peer.open();
    renew("late");
    await settle();
    deepEqual(world.peer.received, [{ type: "authenticate", token: "token-3" }]);
    equal(world.peers[0].received.length, 2);
  });

  test("without a token no socket is opened, and the delay grows", async () => {
    const world = await follow({
      getToken: (time) => {
        if (time === 1) throw new Error("offline");
        return time === 2 ? "" : "token";
      },
    });
    equal(world.client.status.reason, "no token");
    equal(world.client.status.error.message, "offline");
    await pass(500);
    equal(world.client.status.retryInMs, 1_000);
    equal(world.peers.length, 0);
    await pass(1_000);
    equal(world.peers.length, 1);
  });

  test("a refused token counts even if the close is lost", async () => {
    const refusal = { Type: "AuthenticationResult", Success: false };
    for (const [code, close] of [["token_invalid", 4401], ["token_expired", 4419]]) {
      const world = await follow({ getToken: () => "the same" });
      await world.peer.open();
      await world.peer.send({ ...refusal, Error: { Code: code, Message: "No." } });
      equal(world.peer.received.length, 1);
      await pass(10_000);
      equal(world.client.status.state, "waiting");
      equal(world.client.status.code, close);
      world.client.close();
    }
  });
});

describe("gaps and duplicates", () => {
  test("a duplicate is dropped", async () => {
    const { peer, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send(change(11), change(11), change(10), change(12), change(3));
    deepEqual(newReports(), [["message", 11], ["message", 12]]);
    equal(peer.received.length, 2);
  });

  test("a gap is requested again, and nothing after it is reported before", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    await peer.send(change(11));
    newReports();
    await peer.send(change(13), change(14));
    deepEqual(newReports(), []);
    deepEqual(client.position, { after: 11, epoch: EPOCH });
    equal(client.status.state, "connecting");
    equal(peer.received.length, 3);
    deepEqual(peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await peer.send(subscribed("a", 11, { recovered: true }), change(12), change(13), change(14));
    deepEqual(newReports(), [["recovered", 11], ["message", 12], ["message", 13], ["message", 14]]);
    equal(client.status.state, "live");
  });

  test("a gap that cannot be filled is a resync", async () => {
    const { peer, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send(change(13));
    await peer.send(subscribed("a", 20, { recovered: false }), change(21));
    deepEqual(newReports(), [["resync", "expired", 20], ["message", 21]]);
  });

  test("a gap that is never filled is a resync after three retries", async () => {
    const { peer, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    for (let i = 0; i < 3; i++) {
      await peer.send(change(13));
      deepEqual(peer.last.data, { companyId: "a", after: 10, epoch: EPOCH });
      await peer.send(subscribed("a", 10, { recovered: true }));
      deepEqual(newReports(), [["recovered", 10]]);
    }
    await peer.send(change(13));
    deepEqual(peer.last.data, { companyId: "a" });
    await peer.send(subscribed("a", 13), change(14));
    deepEqual(newReports(), [["resync", "gap", 13], ["message", 14]]);
  });

  test("a position that is not a number ends the connection", async () => {
    for (const position of ["11", 11.5, null, -1e300]) {
      const world = await follow();
      await world.peer.acknowledge();
      world.newReports();
      await world.peer.send(change(position));
      deepEqual(world.newReports(), []);
      equal(world.client.status.state, "waiting");
      world.client.close();
    }
  });

  test("messages and answers that were not requested are ignored", async () => {
    const { peer, newReports } = await follow();
    await peer.open();
    await peer.send(change(11), authenticated(), change(11), subscribed("b", 99));
    deepEqual(newReports(), []);
    await peer.send(subscribed("a", 10), subscribed("a", 4), change(11));
    deepEqual(newReports(), [["resync", "start", 10], ["message", 11]]);
  });
});

describe("resync", () => {
  test("a Resync of the server has a position and replaces earlier messages", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send(change(11), resync(12), change(13));
    deepEqual(newReports(), [["message", 11], ["resync", "bulk", 12], ["message", 13]]);
    await peer.send(resync(12), resync(20, { reason: "truncate" }), change(15), change(21));
    deepEqual(newReports(), [["resync", "truncate", 20], ["message", 21]]);
    await peer.send(resync(1, { reason: "epoch", epoch: "e2" }), change(2));
    deepEqual(newReports(), [["resync", "epoch", 1], ["message", 2]]);
    deepEqual(client.position, { after: 2, epoch: "e2" });
  });

  /** An onResync whose reloads the test ends. */
  function reloads() {
    const open = [];
    return {
      open,
      onResync: ({ signal }) =>
        new Promise((resolve, reject) => open.push({ resolve, reject, signal })),
    };
  }

  test("messages wait until the state is reloaded, and until then there is no position", async () => {
    const { open, onResync } = reloads();
    const { peer, client, newReports } = await follow({ onResync });
    await peer.acknowledge();
    await peer.send(change(11), change(12));
    deepEqual(newReports(), [["resync", "start", 10]]);
    equal(client.position, null);
    open[0].resolve();
    await settle();
    deepEqual(newReports(), [["message", 11], ["message", 12]]);
    deepEqual(client.position, { after: 12, epoch: EPOCH });
  });

  test("a connection that breaks during a reload is resumed in order", async () => {
    const { open, onResync } = reloads();
    const world = await follow({ onResync });
    await world.peer.acknowledge();
    await world.peer.send(change(11));
    await world.peer.close(1006);
    await pass(500);
    await world.peer.acknowledge({ position: 11, recovered: true });
    deepEqual(world.peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await world.peer.send(change(12));
    open[0].resolve();
    await settle();
    deepEqual(world.newReports(), [["resync", "start", 10], ["message", 11], ["recovered", 11], ["message", 12]]);
  });

  test("a second one waits for the first reload to end and then reloads again", async () => {
    const { open, onResync } = reloads();
    const { peer, client, newReports } = await follow({ onResync });
    await peer.acknowledge();
    await peer.send(change(11), resync(12), change(13));
    equal(open.length, 1);
    open[0].resolve();
    await settle();
    equal(open.length, 2);
    equal(client.position, null);
    open[1].resolve();
    await settle();
    deepEqual(newReports(), [["resync", "start", 10], ["resync", "bulk", 12], ["message", 13]]);
  });

  test("a reload that fails is tried again, and nothing is reported before it succeeds", async () => {
    const { open, onResync } = reloads();
    const errors = [];
    const { peer, client, newReports } = await follow({
      onResync,
      onStatus: ({ error }) => error && errors.push(error.message),
    });
    await peer.acknowledge();
    await peer.send(change(11));
    open[0].reject(new Error("HTTP 502"));
    await pass(500);
    open[1].reject(new Error("HTTP 503"));
    await pass(999);
    equal(open.length, 2);
    await pass(1);
    equal(open.length, 3);
    deepEqual(errors, ["HTTP 502", "HTTP 503"]);
    equal(client.position, null);
    open[2].resolve();
    await settle();
    deepEqual(newReports().slice(-2), [["resync", "start", 10], ["message", 11]]);
  });

  test("too many waiting messages are replaced by another reload", async () => {
    const { open, onResync } = reloads();
    const { peer, newReports } = await follow({ onResync });
    await peer.acknowledge();
    for (let position = 11; position <= 10_020; position++) await peer.socket.onmessage({ data: JSON.stringify(change(position)) });
    open[0].resolve();
    await settle();
    open[1].resolve();
    await settle();
    const reported = newReports();
    deepEqual(reported.slice(0, 3), [["resync", "start", 10], ["resync", "overflow", 10_011], ["message", 10_012]]);
    deepEqual(reported.at(-1), ["message", 10_020]);
  });

  test("leaving the company aborts its reload, and nothing more of it is reported", async () => {
    const { open, onResync } = reloads();
    const { peer, client, newReports } = await follow({ onResync });
    await peer.acknowledge();
    await peer.send(change(11));
    newReports();
    client.setCompany("b");
    ok(open[0].signal.aborted);
    await peer.send(change(12), subscribed("b", 5), change(6));
    equal(open.length, 1, "two reloads at a time would overwrite each other");
    open[0].reject(new Error("aborted"));
    await settle();
    open[1].resolve();
    await settle();
    deepEqual(newReports(), [["resync", "start", 5], ["message", 6]]);
    equal(client.companyId, "b");
  });

  test("leaving while waiting messages are reported drops the rest", async () => {
    const { open, onResync } = reloads();
    const world = await follow({
      onResync,
      onMessage: ({ Position }) => Position === 12 && world.client.setCompany("b"),
    });
    await world.peer.acknowledge();
    await world.peer.send(change(11), change(12), change(13));
    open[0].resolve();
    await settle();
    deepEqual(world.newReports(), [["resync", "start", 10], ["message", 11], ["message", 12]]);
  });
});

describe("companies", () => {
  test("nothing of the former one is reported after the switch", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    client.setCompany("b");
    equal(client.position, null);
    await peer.send(change(11), subscribed("b", 11), change(12));
    deepEqual(newReports(), [["resync", "start", 11], ["message", 12]]);
  });

  test("a company is resumed from a saved position", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    const position = client.position;
    client.setCompany("b");
    await peer.send(subscribed("b", 3));
    client.setCompany("a", position);
    deepEqual(peer.last.data, { companyId: "a", after: 10, epoch: EPOCH });
    newReports();
    await peer.send(subscribed("a", 10, { recovered: true }), change(11));
    deepEqual(newReports(), [["recovered", 10], ["message", 11]]);
  });

  test("of several switches in a row only the last one counts", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    for (const company of ["b", "c", "a", "d"]) client.setCompany(company);
    await peer.send(subscribed("b", 1), change(2));
    deepEqual(peer.last.data, { companyId: "d" });
    equal(peer.received.length, 4);
    await peer.send(subscribed("d", 7));
    deepEqual(newReports(), [["resync", "start", 7]]);
  });

  test("a switch without a connection is requested on reconnect", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await world.peer.close(1006);
    world.client.setCompany("b");
    await pass(500);
    await world.peer.open();
    await world.peer.send(authenticated());
    deepEqual(world.peer.last.data, { companyId: "b" });
  });

  test("a refused company is not requested again, even on another socket", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.send(authenticated(), refused());
    equal(world.client.status.state, "idle");
    equal(world.client.status.reason, "company_forbidden");
    await world.peer.close(1012);
    await pass(500);
    await world.peer.open();
    await world.peer.send(authenticated());
    equal(world.client.status.state, "idle");
    equal(world.peer.received.length, 1);
    world.client.setCompany("a");
    deepEqual(world.peer.last.data, { companyId: "a" });
  });

  test("a request that failed for another reason is repeated", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.send(authenticated(), refused("unavailable"));
    equal(world.client.status.state, "waiting");
    await pass(500);
    equal(world.peers.length, 2);
  });

  test("revoked access ends the messages and is reported", async () => {
    const { peer, client, newReports } = await follow();
    await peer.acknowledge();
    newReports();
    await peer.send({ Type: "CompanyRevoked", Data: { CompanyId: "b" } }, change(11));
    deepEqual(newReports(), [["message", 11]]);
    await peer.send({ Type: "CompanyRevoked", Data: { CompanyId: "a" } }, change(12));
    deepEqual(newReports(), []);
    equal(client.status.state, "idle");
    equal(client.status.reason, "revoked");
    client.setCompany("b");
    await peer.send(subscribed("b", 2));
    equal(client.status.state, "live");
  });

  test("a callback may switch; nothing of the company that it left is reported", async () => {
    const world = await follow({
      onStatus: ({ state, companyId }) => state === "live" && companyId === "a" && world.client.setCompany("b"),
    });
    await world.peer.acknowledge();
    deepEqual(world.newReports(), []);
    deepEqual(world.peer.last.data, { companyId: "b" });
  });
});

describe("a silent link", () => {
  test("gets a ping, and any message is a sign of life", async () => {
    const { peer, client } = await follow();
    await peer.acknowledge();
    await pass(1_000);
    await peer.send(change(11));
    await pass(14_999);
    equal(peer.received.length, 2);
    await pass(1);
    deepEqual(peer.last, { type: "ping" }, "15 s after the last message: some proxies cut a link after 16 s");
    await peer.send({ Type: "Pong" });
    await pass(4_000);
    equal(client.status.state, "live");
    for (let i = 12; i < 20; i++) {
      await pass(10_000);
      await peer.send(change(i));
    }
    equal(client.status.state, "live");
    equal(peer.received.filter(({ type }) => type === "ping").length, 1);
  });

  test("never lasts 16 seconds on an idle link: some proxies cut it then", async () => {
    const { peer, peers } = await follow();
    await peer.acknowledge();
    let [sent, silence, position] = [peer.received.length, 0, 10];
    for (let second = 0; second < 600; second++) {
      await pass(1_000);
      silence += 1_000;
      if (second % 97 === 0) {
        silence = 0;
        await peer.send(change(++position));
      }
      if (peer.received.length > sent) {
        [sent, silence] = [peer.received.length, 0];
        await peer.send({ Type: "Pong" });
      }
      ok(silence < 16_000);
    }
    equal(peers.length, 1);
  });

  test("is dropped without a sign of life", async () => {
    const world = await follow();
    await world.peer.acknowledge();
    await pass(24_999);
    equal(world.client.status.state, "live");
    await pass(1);
    equal(world.client.status.state, "waiting");
    equal(world.client.status.reason, "silent link");
    ok(world.peer.closed);
    world.newReports();
    await world.peer.send(change(11));
    deepEqual(world.newReports(), [], "messages from the dead socket are not reported");
    await pass(500);
    await world.peer.acknowledge({ recovered: true });
    deepEqual(world.newReports(), [["recovered", 10]]);
  });
});

describe("in a window", () => {
  let page;
  beforeEach(() => {
    page = new EventTarget();
    globalThis.addEventListener = page.addEventListener.bind(page);
    globalThis.removeEventListener = page.removeEventListener.bind(page);
    globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  });
  afterEach(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
    delete globalThis.document;
  });

  const EVENTS = {
    online: () => page.dispatchEvent(new Event("online")),
    offline: () => page.dispatchEvent(new Event("offline")),
    pageshow: () => page.dispatchEvent(new Event("pageshow")),
    visibilitychange: () => globalThis.document.dispatchEvent(new Event("visibilitychange")),
  };

  for (const [name, dispatch] of Object.entries(EVENTS)) {
    test(`${name}: a ping is sent at once, and repeating the event does not extend its deadline`, async () => {
      const { peer, client } = await follow();
      await peer.acknowledge();
      for (let i = 0; i < 5; i++) {
        dispatch();
        await pass(2_000);
      }
      equal(peer.received.filter(({ type }) => type === "ping").length, 1);
      equal(client.status.state, "waiting");
    });
  }

  test("a relative URL is resolved against the page", async () => {
    globalThis.document.baseURI = "https://calendar.test/app/index.html";
    for (const [url, opened] of [
      ["/realtime/", "wss://calendar.test/realtime/"],
      ["realtime/", "wss://calendar.test/app/realtime/"],
      [".", "wss://calendar.test/app/"],
    ]) {
      const { peer } = await follow({ url });
      equal(peer.url, opened);
    }
  });

  test("a hidden page sends no ping", async () => {
    const { peer } = await follow();
    await peer.acknowledge();
    globalThis.document.visibilityState = "hidden";
    EVENTS.visibilitychange();
    equal(peer.received.length, 2);
  });

  test("a long wait is shortened once when the network is back, unless the server requested it", async () => {
    const world = await follow();
    for (let i = 0; i < 8; i++) {
      await world.peer.close(1006);
      await pass(i < 7 ? world.client.status.retryInMs : 0);
    }
    equal(world.client.status.retryInMs, 15_000);
    EVENTS.offline();
    await pass(1_000);
    equal(world.peers.length, 8);
    EVENTS.online();
    await pass(400);
    EVENTS.online();
    await pass(100);
    equal(world.peers.length, 9);

    await world.peer.open();
    await world.peer.send({ Type: "Disconnect", Data: { Code: 4503, Reconnect: true, RetryAfterMs: 9_000 } });
    await world.peer.close(4503);
    EVENTS.online();
    await pass(8_000);
    equal(world.peers.length, 9);
  });

  test("a closed client ignores all events", async () => {
    const { peer, client } = await follow();
    await peer.acknowledge();
    client.close();
    for (const dispatch of Object.values(EVENTS)) dispatch();
    equal(peer.received.length, 2);
  });
});
