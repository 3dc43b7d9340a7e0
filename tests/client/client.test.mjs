import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { connect } from "../../notifier/client/js/client.js";
import {
  EPOCH,
  admitted,
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
  test("it authenticates, asks for the company, and has the state read once", async () => {
    const { peer, client, news } = await follow();
    equal(peer.url, "ws://notifier.test/");
    await peer.open();
    deepEqual(peer.said, [{ type: "authenticate", token: "token-1" }]);
    await peer.say(admitted());
    deepEqual(peer.last, { type: "setCompany", data: { companyId: "a" } });
    equal(client.status.state, "connecting");
    await peer.say(subscribed("a", 10));
    equal(client.status.state, "live");
    deepEqual(news(), [["resync", "start", 10]]);
    deepEqual(client.position, { after: 10, epoch: EPOCH });
    await peer.say(change(11), change(12));
    deepEqual(news(), [["message", 11], ["message", 12]]);
    deepEqual(client.position, { after: 12, epoch: EPOCH });
  });

  test("without a company it waits for one", async () => {
    const { peer, client, news } = await follow({ companyId: null });
    await peer.open();
    await peer.say(admitted());
    equal(client.status.state, "idle");
    client.setCompany(7);
    deepEqual(peer.last, { type: "setCompany", data: { companyId: "7" } });
    await peer.say(subscribed("7", 0));
    deepEqual(news(), [["resync", "start", 0]]);
  });

  test("a uuid may come back in another spelling", async () => {
    const { peer, client } = await follow({ companyId: "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11" });
    await peer.open();
    await peer.say(admitted(), subscribed("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 3));
    equal(client.status.state, "live");
  });

  test("a message of a later protocol is passed over, one that nobody can read ends the connection", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    await peer.say({ Type: "SomethingNew", Data: {} }, { Type: "Pong" });
    equal(client.status.state, "live");
    deepEqual(news(), []);
    await peer.say("{");
    equal(client.status.state, "waiting");
    ok(peer.closed);
  });

  test("options that cannot work are refused at once", () => {
    const getToken = () => "t";
    class WebSocket {}
    throws(() => connect({ url: "not a url", getToken, WebSocket }), TypeError);
    throws(() => connect({ url: "ws://x/", WebSocket }), /getToken/);
    if (!globalThis.WebSocket) throws(() => connect({ url: "ws://x/", getToken }), /WebSocket/);
  });

  test("closed is closed", async () => {
    const { peer, client, asked, news } = await follow();
    await peer.welcome();
    news();
    client.close();
    client.close();
    ok(peer.closed);
    equal(client.status.state, "closed");
    await peer.say(change(11));
    await pass(60_000);
    deepEqual(news(), []);
    equal(asked.length, 1);
    throws(() => client.setCompany("b"), /closed/);
    throws(() => client.reconnect(), /closed/);
  });

  test("an error in the application's callback surfaces and stops nothing", async () => {
    const surfaced = [];
    const queue = mock.method(globalThis, "queueMicrotask", (task) => {
      try {
        task();
      } catch (error) {
        surfaced.push(error.message);
      }
    });
    const onMessage = ({ Position }) => {
      if (Position === 11) throw new Error("the application's own");
    };
    const { peer, news } = await follow({ onMessage });
    await peer.welcome();
    news();
    await peer.say(change(11), change(12));
    queue.mock.restore();
    deepEqual(news(), [["message", 11], ["message", 12]]);
    deepEqual(surfaced, ["the application's own"]);
  });
});

describe("the close codes", () => {
  const RETURNS = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4419, 4429, 4500, 4503, 4508, 4999];
  const BROKEN = [1002, 1003, 1007, 1009, 4400, 4403, 4409];

  for (const code of RETURNS) {
    test(`${code}: it returns after a wait, with a token asked anew, and resumes`, async () => {
      const world = await follow();
      await world.peer.welcome();
      await world.peer.say(change(11));
      world.news();
      await world.peer.end(code, "for a reason");
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
      await world.peer.say(admitted());
      deepEqual(world.peer.said, [
        { type: "authenticate", token: "token-2" },
        { type: "setCompany", data: { companyId: "a", after: 11, epoch: EPOCH } },
      ]);
      await world.peer.say(subscribed("a", 11, { recovered: true }), change(12));
      deepEqual(world.news(), [["recovered", 11], ["message", 12]]);
    });
  }

  for (const code of BROKEN) {
    test(`${code}: it stops, and says so`, async () => {
      const world = await follow();
      await world.peer.welcome();
      await world.peer.end(code);
      equal(world.client.status.state, "stopped");
      equal(world.client.status.code, code);
      await pass(120_000);
      equal(world.peers.length, 1);
      world.client.reconnect();
      await settle();
      equal(world.peers.length, 2);
    });
  }

  test("4401: it does not return with that token", async () => {
    const world = await follow({ getToken: () => "the same" });
    await world.peer.open();
    await world.peer.end(4401);
    await pass(120_000);
    equal(world.peers.length, 1);
    equal(world.asked.length, 2);
    equal(world.client.status.state, "stopped");
    equal(world.client.status.code, 4401);
  });

  test("4401: it returns with another one", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.end(4401);
    await pass(1_000);
    await world.peer.open();
    deepEqual(world.peer.said, [{ type: "authenticate", token: "token-2" }]);
  });

  test("4419: an expired token is not shown again, a fresh one is waited for", async () => {
    const world = await follow({ getToken: (time) => (time < 4 ? "old" : "fresh") });
    await world.peer.welcome();
    await world.peer.end(4419);
    await pass(500);
    equal(world.client.status.state, "waiting");
    equal(world.peers.length, 1);
    await pass(3_000);
    equal(world.peers.length, 2);
    await world.peer.open();
    deepEqual(world.peer.said, [{ type: "authenticate", token: "fresh" }]);
  });

  test("4403: it stops for this company and goes on with another", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.say(admitted());
    await world.peer.end(4403);
    equal(world.client.status.state, "stopped");
    world.client.setCompany("b");
    await settle();
    await world.peer.open();
    await world.peer.say(admitted());
    deepEqual(world.peer.last, { type: "setCompany", data: { companyId: "b" } });
  });

  test("a time that the server names is kept, however the page may hurry", async () => {
    const world = await follow();
    await world.peer.welcome();
    await world.peer.say({
      Type: "Disconnect",
      Data: { Code: 4429, Reason: "too many", Reconnect: true, RetryAfterMs: 20_000 },
    });
    await world.peer.end(4429);
    equal(world.client.status.retryInMs, 20_500);
    await pass(20_499);
    equal(world.peers.length, 1);
    await pass(1);
    equal(world.peers.length, 2);
  });

  test("what Disconnect said counts where the close has no code of its own", async () => {
    const world = await follow();
    await world.peer.welcome();
    await world.peer.say({ Type: "Disconnect", Data: { Code: 4409, Reason: "other user", Reconnect: false } });
    await world.peer.end(1006);
    equal(world.client.status.state, "stopped");
    equal(world.client.status.code, 4409);
    equal(world.client.status.reason, "other user");
  });

  test("a code of a later protocol obeys the word Reconnect", async () => {
    const world = await follow();
    await world.peer.welcome();
    await world.peer.say({ Type: "Disconnect", Data: { Code: 4777, Reason: "no more", Reconnect: false } });
    await world.peer.end(4777);
    equal(world.client.status.state, "stopped");
  });

  test("a Disconnect whose close never comes is one all the same", async () => {
    const world = await follow();
    await world.peer.welcome();
    await world.peer.say({
      Type: "Disconnect",
      Data: { Code: 4508, Reason: "too slow", Reconnect: true, RetryAfterMs: 100 },
    });
    await pass(10_000);
    equal(world.client.status.code, 4508);
    equal(world.client.status.retryInMs, 600);
    ok(world.peer.closed);
  });
});

describe("coming back", () => {
  test("the waits grow with the failures, are random in full, and have an upper end", async () => {
    for (const [random, waits] of [
      [0.999999, [999, 1999, 3999, 7999, 15999, 29999, 29999]],
      [0.5, [500, 1000, 2000, 4000, 8000, 15000, 15000]],
      [0, [0, 0, 0]],
    ]) {
      const world = await follow({ random: () => random });
      for (const wait of waits) {
        await world.peer.end(1006);
        equal(world.client.status.retryInMs, wait);
        await pass(wait + 1);
      }
      world.client.close();
    }
  });

  test("a connection that broke right after the greeting does not count as a success", async () => {
    const world = await follow();
    for (const wait of [500, 1000, 2000]) {
      await world.peer.welcome();
      await world.peer.end(1012);
      equal(world.client.status.retryInMs, wait);
      await pass(wait);
    }
    await world.peer.welcome();
    await pass(14_000);
    await world.peer.say({ Type: "Pong" });
    await pass(1_000);
    await world.peer.end(1012);
    equal(world.client.status.retryInMs, 500);
  });

  test("a server that does not open, admit or answer is left after a while", async () => {
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
    await world.peer.say(admitted());
    for (let i = 0; i < 2; i++) {
      await pass(10_000);
      await world.peer.say({ Type: "Pong" });
    }
    equal(world.client.status.state, "connecting");
    await pass(10_000);
    equal(world.client.status.state, "waiting");
    ok(world.peers.every((peer) => peer.closed));
  });

  test("a saved position is resumed by another client", async () => {
    const first = await follow();
    await first.peer.welcome();
    await first.peer.say(change(11));
    const position = JSON.parse(JSON.stringify(first.client.position));
    first.client.close();
    const second = await follow({ position });
    await second.peer.welcome({ position: 11, recovered: true });
    deepEqual(second.peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await second.peer.say(change(12));
    deepEqual(second.news(), [["recovered", 11], ["message", 12]]);
  });

  test("what was not recovered has to be read: too old, another epoch, or an answer that does not fit", async () => {
    for (const [answer, reason] of [
      [{ position: 50, recovered: false }, "expired"],
      [{ position: 50 }, "expired"],
      [{ position: 50, recovered: true }, "expired"],
      [{ position: 3, epoch: "e2", recovered: false }, "epoch"],
      [{ position: 11, epoch: "e2", recovered: true }, "epoch"],
    ]) {
      const world = await follow({ position: { after: 11, epoch: EPOCH } });
      await world.peer.welcome(answer);
      deepEqual(world.news(), [["resync", reason, answer.position]]);
      await world.peer.say(change(answer.position + 1));
      deepEqual(world.client.position, { after: answer.position + 1, epoch: answer.epoch ?? EPOCH });
      world.client.close();
    }
  });

  test("position 0 is one to resume from", async () => {
    const world = await follow({ position: { after: 0, epoch: EPOCH } });
    await world.peer.welcome({ position: 0, recovered: true });
    deepEqual(world.news(), [["recovered", 0]]);
  });

  test("an answer without position or epoch is no answer", async () => {
    for (const broken of [{ position: "10" }, { epoch: null }]) {
      const world = await follow();
      await world.peer.welcome(broken);
      equal(world.client.status.state, "waiting");
      deepEqual(world.news(), []);
      world.client.close();
    }
  });
});

describe("the token", () => {
  const EXPIRING = { Type: "TokenExpiring", Data: { ExpiresAt: "2026-11-22T18:00:00Z" } };

  test("it is renewed on the live socket, and nothing else happens", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    await peer.say(EXPIRING);
    deepEqual(peer.last, { type: "authenticate", token: "token-2" });
    await peer.say(admitted(), change(11));
    deepEqual(news(), [["message", 11]]);
    equal(client.status.state, "live");
    equal(peer.said.length, 3);
  });

  test("a provider that fails, hangs or has nothing newer is asked again", async () => {
    const answers = [
      () => "first",
      () => Promise.reject(new Error("provider down")),
      () => "first",
      () => new Promise(() => {}),
      () => "second",
    ];
    const errors = [];
    const { peer, asked } = await follow({
      getToken: (time) => answers[time - 1](),
      onStatus: ({ error }) => error && errors.push(error.message),
    });
    await peer.welcome();
    await peer.say(EXPIRING, EXPIRING);
    equal(asked.length, 2);
    for (let i = 0; i < 5; i++) {
      await pass(10_000);
      await peer.say({ Type: "Pong" });
    }
    equal(asked.length, 5);
    deepEqual(errors, ["provider down", "getToken() did not answer."]);
    deepEqual(
      peer.said.filter(({ type }) => type === "authenticate"),
      [
        { type: "authenticate", token: "first" },
        { type: "authenticate", token: "second" },
      ],
    );
  });

  test("a renewal that comes too late is not shown on the next socket", async () => {
    let renew;
    const world = await follow({
      getToken: (time) => (time === 2 ? new Promise((resolve) => (renew = resolve)) : `token-${time}`),
    });
    await world.peer.welcome();
    await world.peer.say(EXPIRING);
    await world.peer.end(4419);
    await pass(500);
    await world.peer.open();
    renew("late");
    await settle();
    deepEqual(world.peer.said, [{ type: "authenticate", token: "token-3" }]);
    equal(world.peers[0].said.length, 2);
  });

  test("without a token there is no socket, and the wait grows", async () => {
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

  test("a refusal whose close never comes is one all the same", async () => {
    const refusal = { Type: "AuthenticationResult", Success: false };
    for (const [code, close] of [["token_invalid", 4401], ["token_expired", 4419]]) {
      const world = await follow({ getToken: () => "the same" });
      await world.peer.open();
      await world.peer.say({ ...refusal, Error: { Code: code, Message: "No." } });
      equal(world.peer.said.length, 1);
      await pass(10_000);
      equal(world.client.status.state, "waiting");
      equal(world.client.status.code, close);
      world.client.close();
    }
  });
});

describe("holes and doubles", () => {
  test("a double is dropped", async () => {
    const { peer, news } = await follow();
    await peer.welcome();
    news();
    await peer.say(change(11), change(11), change(10), change(12), change(3));
    deepEqual(news(), [["message", 11], ["message", 12]]);
    equal(peer.said.length, 2);
  });

  test("a hole is asked for, and nothing behind it is reported before it is filled", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    await peer.say(change(11));
    news();
    await peer.say(change(13), change(14));
    deepEqual(news(), []);
    deepEqual(client.position, { after: 11, epoch: EPOCH });
    equal(client.status.state, "connecting");
    equal(peer.said.length, 3);
    deepEqual(peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await peer.say(subscribed("a", 11, { recovered: true }), change(12), change(13), change(14));
    deepEqual(news(), [["recovered", 11], ["message", 12], ["message", 13], ["message", 14]]);
    equal(client.status.state, "live");
  });

  test("a hole that cannot be filled has the state read", async () => {
    const { peer, news } = await follow();
    await peer.welcome();
    news();
    await peer.say(change(13));
    await peer.say(subscribed("a", 20, { recovered: false }), change(21));
    deepEqual(news(), [["resync", "expired", 20], ["message", 21]]);
  });

  test("a server that promises what is missing and never sends it is not believed for ever", async () => {
    const { peer, news } = await follow();
    await peer.welcome();
    news();
    for (let i = 0; i < 3; i++) {
      await peer.say(change(13));
      deepEqual(peer.last.data, { companyId: "a", after: 10, epoch: EPOCH });
      await peer.say(subscribed("a", 10, { recovered: true }));
      deepEqual(news(), [["recovered", 10]]);
    }
    await peer.say(change(13));
    deepEqual(peer.last.data, { companyId: "a" });
    await peer.say(subscribed("a", 13), change(14));
    deepEqual(news(), [["resync", "gap", 13], ["message", 14]]);
  });

  test("a position that is no number ends the connection", async () => {
    for (const position of ["11", 11.5, null, -1e300]) {
      const world = await follow();
      await world.peer.welcome();
      world.news();
      await world.peer.say(change(position));
      deepEqual(world.news(), []);
      equal(world.client.status.state, "waiting");
      world.client.close();
    }
  });

  test("messages before the acknowledgement, and acknowledgements that nobody asked for, count for nothing", async () => {
    const { peer, news } = await follow();
    await peer.open();
    await peer.say(change(11), admitted(), change(11), subscribed("b", 99));
    deepEqual(news(), []);
    await peer.say(subscribed("a", 10), subscribed("a", 4), change(11));
    deepEqual(news(), [["resync", "start", 10], ["message", 11]]);
  });
});

describe("resync", () => {
  test("the server's own counts as one message and covers what came before", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    await peer.say(change(11), resync(12), change(13));
    deepEqual(news(), [["message", 11], ["resync", "bulk", 12], ["message", 13]]);
    await peer.say(resync(12), resync(20, { reason: "truncate" }), change(15), change(21));
    deepEqual(news(), [["resync", "truncate", 20], ["message", 21]]);
    await peer.say(resync(1, { reason: "epoch", epoch: "e2" }), change(2));
    deepEqual(news(), [["resync", "epoch", 1], ["message", 2]]);
    deepEqual(client.position, { after: 2, epoch: "e2" });
  });

  /** An onResync whose readings end when the test says so. */
  function readings() {
    const open = [];
    return {
      open,
      onResync: ({ signal }) =>
        new Promise((resolve, reject) => open.push({ resolve, reject, signal })),
    };
  }

  test("messages wait until the state has been read, and until then nothing is known", async () => {
    const { open, onResync } = readings();
    const { peer, client, news } = await follow({ onResync });
    await peer.welcome();
    await peer.say(change(11), change(12));
    deepEqual(news(), [["resync", "start", 10]]);
    equal(client.position, null);
    open[0].resolve();
    await settle();
    deepEqual(news(), [["message", 11], ["message", 12]]);
    deepEqual(client.position, { after: 12, epoch: EPOCH });
  });

  test("a connection that breaks meanwhile is resumed where it stood, in order", async () => {
    const { open, onResync } = readings();
    const world = await follow({ onResync });
    await world.peer.welcome();
    await world.peer.say(change(11));
    await world.peer.end(1006);
    await pass(500);
    await world.peer.welcome({ position: 11, recovered: true });
    deepEqual(world.peer.last.data, { companyId: "a", after: 11, epoch: EPOCH });
    await world.peer.say(change(12));
    open[0].resolve();
    await settle();
    deepEqual(world.news(), [["resync", "start", 10], ["message", 11], ["recovered", 11], ["message", 12]]);
  });

  test("a second one lets the first reading end and then reads again", async () => {
    const { open, onResync } = readings();
    const { peer, client, news } = await follow({ onResync });
    await peer.welcome();
    await peer.say(change(11), resync(12), change(13));
    equal(open.length, 1);
    open[0].resolve();
    await settle();
    equal(open.length, 2);
    equal(client.position, null);
    open[1].resolve();
    await settle();
    deepEqual(news(), [["resync", "start", 10], ["resync", "bulk", 12], ["message", 13]]);
  });

  test("a reading that fails is tried again, and nothing is reported before it succeeds", async () => {
    const { open, onResync } = readings();
    const errors = [];
    const { peer, client, news } = await follow({
      onResync,
      onStatus: ({ error }) => error && errors.push(error.message),
    });
    await peer.welcome();
    await peer.say(change(11));
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
    deepEqual(news().slice(-2), [["resync", "start", 10], ["message", 11]]);
  });

  test("more than may wait has the state read again instead", async () => {
    const { open, onResync } = readings();
    const { peer, news } = await follow({ onResync });
    await peer.welcome();
    for (let position = 11; position <= 10_020; position++) await peer.socket.onmessage({ data: JSON.stringify(change(position)) });
    open[0].resolve();
    await settle();
    open[1].resolve();
    await settle();
    const reported = news();
    deepEqual(reported.slice(0, 3), [["resync", "start", 10], ["resync", "overflow", 10_011], ["message", 10_012]]);
    deepEqual(reported.at(-1), ["message", 10_020]);
  });

  test("to leave the company aborts its reading, and nothing of it is reported any more", async () => {
    const { open, onResync } = readings();
    const { peer, client, news } = await follow({ onResync });
    await peer.welcome();
    await peer.say(change(11));
    news();
    client.setCompany("b");
    ok(open[0].signal.aborted);
    await peer.say(change(12), subscribed("b", 5), change(6));
    equal(open.length, 1, "two readings at a time would overwrite each other");
    open[0].reject(new Error("aborted"));
    await settle();
    open[1].resolve();
    await settle();
    deepEqual(news(), [["resync", "start", 5], ["message", 6]]);
    equal(client.companyId, "b");
  });

  test("to leave while the held messages are reported ends them", async () => {
    const { open, onResync } = readings();
    const world = await follow({
      onResync,
      onMessage: ({ Position }) => Position === 12 && world.client.setCompany("b"),
    });
    await world.peer.welcome();
    await world.peer.say(change(11), change(12), change(13));
    open[0].resolve();
    await settle();
    deepEqual(world.news(), [["resync", "start", 10], ["message", 11], ["message", 12]]);
  });
});

describe("companies", () => {
  test("nothing of the former one is reported after the switch", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    client.setCompany("b");
    equal(client.position, null);
    await peer.say(change(11), subscribed("b", 11), change(12));
    deepEqual(news(), [["resync", "start", 11], ["message", 12]]);
  });

  test("a position that the application kept is resumed", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    const position = client.position;
    client.setCompany("b");
    await peer.say(subscribed("b", 3));
    client.setCompany("a", position);
    deepEqual(peer.last.data, { companyId: "a", after: 10, epoch: EPOCH });
    news();
    await peer.say(subscribed("a", 10, { recovered: true }), change(11));
    deepEqual(news(), [["recovered", 10], ["message", 11]]);
  });

  test("of many switches in a row only the last one counts", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    for (const company of ["b", "c", "a", "d"]) client.setCompany(company);
    await peer.say(subscribed("b", 1), change(2));
    deepEqual(peer.last.data, { companyId: "d" });
    equal(peer.said.length, 4);
    await peer.say(subscribed("d", 7));
    deepEqual(news(), [["resync", "start", 7]]);
  });

  test("a switch while there is no connection is asked for on return", async () => {
    const world = await follow();
    await world.peer.welcome();
    await world.peer.end(1006);
    world.client.setCompany("b");
    await pass(500);
    await world.peer.open();
    await world.peer.say(admitted());
    deepEqual(world.peer.last.data, { companyId: "b" });
  });

  test("a refused company is not asked for again, not even on another socket", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.say(admitted(), refused());
    equal(world.client.status.state, "idle");
    equal(world.client.status.reason, "company_forbidden");
    await world.peer.end(1012);
    await pass(500);
    await world.peer.open();
    await world.peer.say(admitted());
    equal(world.client.status.state, "idle");
    equal(world.peer.said.length, 1);
    world.client.setCompany("a");
    deepEqual(world.peer.last.data, { companyId: "a" });
  });

  test("an answer that failed for another reason is asked for again", async () => {
    const world = await follow();
    await world.peer.open();
    await world.peer.say(admitted(), refused("unavailable"));
    equal(world.client.status.state, "waiting");
    await pass(500);
    equal(world.peers.length, 2);
  });

  test("lost access ends the messages and is told", async () => {
    const { peer, client, news } = await follow();
    await peer.welcome();
    news();
    await peer.say({ Type: "CompanyRevoked", Data: { CompanyId: "b" } }, change(11));
    deepEqual(news(), [["message", 11]]);
    await peer.say({ Type: "CompanyRevoked", Data: { CompanyId: "a" } }, change(12));
    deepEqual(news(), []);
    equal(client.status.state, "idle");
    equal(client.status.reason, "revoked");
    client.setCompany("b");
    await peer.say(subscribed("b", 2));
    equal(client.status.state, "live");
  });

  test("a callback may switch: what it left is not reported", async () => {
    const world = await follow({
      onStatus: ({ state, companyId }) => state === "live" && companyId === "a" && world.client.setCompany("b"),
    });
    await world.peer.welcome();
    deepEqual(world.news(), []);
    deepEqual(world.peer.last.data, { companyId: "b" });
  });
});

describe("a link that is silent", () => {
  test("is asked for a sign of life, and any message is one", async () => {
    const { peer, client } = await follow();
    await peer.welcome();
    await pass(15_000);
    await pass(15_000);
    deepEqual(peer.last, { type: "ping" });
    await peer.say({ Type: "Pong" });
    await pass(10_000);
    equal(client.status.state, "live");
    for (let i = 11; i < 20; i++) {
      await pass(10_000);
      await peer.say(change(i));
    }
    equal(client.status.state, "live");
    equal(peer.said.filter(({ type }) => type === "ping").length, 1);
  });

  test("is dead when it gives none, whatever the socket says", async () => {
    const world = await follow();
    await world.peer.welcome();
    await pass(40_000);
    equal(world.client.status.state, "waiting");
    equal(world.client.status.reason, "silent link");
    ok(world.peer.closed);
    world.news();
    await world.peer.say(change(11));
    deepEqual(world.news(), [], "what the dead socket still brings is not reported");
    await pass(500);
    await world.peer.welcome({ recovered: true });
    deepEqual(world.news(), [["recovered", 10]]);
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

  const SIGNS = {
    online: () => page.dispatchEvent(new Event("online")),
    offline: () => page.dispatchEvent(new Event("offline")),
    pageshow: () => page.dispatchEvent(new Event("pageshow")),
    visibilitychange: () => globalThis.document.dispatchEvent(new Event("visibilitychange")),
  };

  for (const [name, happens] of Object.entries(SIGNS)) {
    test(`${name}: the link is asked at once, and repeating it does not put the verdict off`, async () => {
      const { peer, client } = await follow();
      await peer.welcome();
      for (let i = 0; i < 5; i++) {
        happens();
        await pass(2_000);
      }
      equal(peer.said.filter(({ type }) => type === "ping").length, 1);
      equal(client.status.state, "waiting");
    });
  }

  test("a page that is hidden asks nothing", async () => {
    const { peer } = await follow();
    await peer.welcome();
    globalThis.document.visibilityState = "hidden";
    SIGNS.visibilitychange();
    equal(peer.said.length, 2);
  });

  test("a long wait is cut short when the network returns, once, and not where the server named the time", async () => {
    const world = await follow();
    for (let i = 0; i < 8; i++) {
      await world.peer.end(1006);
      await pass(i < 7 ? world.client.status.retryInMs : 0);
    }
    equal(world.client.status.retryInMs, 15_000);
    SIGNS.offline();
    await pass(1_000);
    equal(world.peers.length, 8);
    SIGNS.online();
    await pass(400);
    SIGNS.online();
    await pass(100);
    equal(world.peers.length, 9);

    await world.peer.open();
    await world.peer.say({ Type: "Disconnect", Data: { Code: 4503, Reconnect: true, RetryAfterMs: 9_000 } });
    await world.peer.end(4503);
    SIGNS.online();
    await pass(8_000);
    equal(world.peers.length, 9);
  });

  test("closed, it listens to nothing", async () => {
    const { peer, client } = await follow();
    await peer.welcome();
    client.close();
    for (const happens of Object.values(SIGNS)) happens();
    equal(peer.said.length, 2);
  });
});
