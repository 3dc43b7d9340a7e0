// The React binding on the fake service: bundled and run in Chromium by tests/browser/test_react.py.

import { StrictMode, Suspense, useState } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "postgres-notifier";
import { CompanyProvider, NotifierProvider, useClient, useNotifier, useRows, useStatus, useSuspenseRows } from "postgres-notifier/react";
import { FakeService } from "postgres-notifier/testing";

function equal(actual, expected) {
  const [one, other] = [actual, expected].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${one} is not ${other}`);
}

/** Returns when the value is the expected one. */
async function until(value, expected) {
  const deadline = Date.now() + 20_000;
  while (JSON.stringify(value()) !== JSON.stringify(expected) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve));
  equal(value(), expected);
}

class World {
  constructor() {
    this.service = new FakeService();
    for (const id of ["acme", "globex"]) this.service.company(id).create("Event", { EventId: id, Title: `of ${id}` });
    this.place = document.body.appendChild(document.createElement("div"));
    this.root = createRoot(this.place);
  }

  show(element) {
    this.root.render(<StrictMode>{element}</StrictMode>);
  }

  /** Returns when the page has this text. */
  shows(text) {
    return until(() => this.place.textContent, text);
  }
}

function Titles() {
  const events = useRows("Event");
  const { state, transport } = useStatus();
  return <>{[state, transport, ...events.map(({ Title }) => Title)].join(" ")}.</>;
}

const tests = {
  async "a company's rows are shown, follow its changes and another company, and end with the provider"() {
    const world = new World();
    const { service } = world;
    const app = (companyId, more) => (
      <NotifierProvider {...service.options} companyId={companyId} state {...more}>
        <Titles />
      </NotifierProvider>
    );
    world.show(app("acme"));
    await world.shows("live websocket of acme.");
    equal(service.received.filter(({ type }) => type === "authenticate").length, 1);
    service.company("acme").update("Event", { EventId: "acme", Title: "changed" });
    await world.shows("live websocket changed.");
    world.show(app("globex"));
    await world.shows("live websocket of globex.");
    world.show(app("globex", { where: { Event: { Title: ["other"] } } }));
    await world.shows("live websocket.");
    world.show(app(null));
    await world.shows("idle websocket.");
    equal(service.received.filter(({ type }) => type === "authenticate").length, 1);
    world.show(null);
    await world.shows("");
    await service.settled();
    service.disconnect();
    await service.settled();
    equal(service.received.filter(({ type }) => type === "authenticate").length, 1);
  },

  async "no rendering has the rows or the status of another company"() {
    const world = new World();
    const seen = [];
    function Company({ id }) {
      const [{ Title } = {}] = useRows("Event");
      const { state, companyId } = useStatus();
      seen.push({ id, Title, state, companyId });
      return Title ?? null;
    }
    const app = (id) => (
      <NotifierProvider {...world.service.options} companyId={id} state>
        <Company id={id} />
      </NotifierProvider>
    );
    for (const id of ["acme", "globex", "acme"]) {
      world.show(app(id));
      await world.shows(`of ${id}`);
    }
    equal(seen.filter(({ id, Title, companyId }) => (Title ?? `of ${id}`) !== `of ${id}` || (companyId ?? id) !== id), []);
    equal(seen.filter(({ Title, state }) => Title && state !== "live"), []);
    world.show(null);
  },

  async "rows are suspended until they are complete, or refused"() {
    const world = new World();
    const { service } = world;
    service.goOffline();
    function Suspended() {
      return <>{useSuspenseRows("Event").map(({ Title }) => Title).join()}.</>;
    }
    const app = (companyId) => (
      <NotifierProvider {...service.options} companyId={companyId} state>
        <Suspense fallback="…">
          <Suspended />
        </Suspense>
      </NotifierProvider>
    );
    world.show(app("acme"));
    await world.shows("…");
    service.goOnline();
    await world.shows("of acme.");
    service.company("globex").revoke();
    world.show(app("globex"));
    await world.shows(".");
    world.show(app("empty"));
    await until(() => service.received.some(({ data }) => data?.companyId === "empty"), true);
    await world.shows(".");
    world.show(app(null));
    await world.shows(".");
    service.goOffline();
    world.show(app("acme"));
    await until(() => world.place.innerText, "…"); // what was shown before is hidden
    service.goOnline();
    await until(() => world.place.innerText, "of acme.");
    world.show(null);
  },

  async "callbacks are the present ones, and messages wait for all reloads"() {
    const world = new World();
    const { service } = world;
    const seen = [];
    let reload;
    function Reader({ name }) {
      const [count, setCount] = useState(0);
      useNotifier({
        onMessage: ({ Data }) => {
          seen.push([name, count, Data.Title]);
          setCount(count + 1);
        },
        onResync: ({ reason }) => {
          seen.push([name, reason]);
          return name === "one" ? new Promise((resolve) => (reload = resolve)) : undefined;
        },
      });
      return null;
    }
    world.show(
      <NotifierProvider {...service.options} companyId="acme">
        <Reader name="one" />
        <Reader name="two" />
      </NotifierProvider>,
    );
    await until(() => seen, [["one", "start"], ["two", "start"]]);
    seen.length = 0;
    service.company("acme").create("Event", { EventId: "2", Title: "A" });
    await service.settled();
    equal(seen, []);
    reload();
    await until(() => seen.length, 2);
    service.company("acme").create("Event", { EventId: "3", Title: "B" });
    await until(() => seen, [["one", 0, "A"], ["two", 0, "A"], ["one", 1, "B"], ["two", 1, "B"]]);
    world.show(null);
  },

  async "a second company shares the connection, and an own client stays open"() {
    const world = new World();
    const { service } = world;
    const client = connect(service.options);
    let own;
    function Own() {
      own = useClient();
      return null;
    }
    world.show(
      <NotifierProvider client={client} companyId="acme" state>
        <Titles />
        <Own />
        <CompanyProvider companyId="globex" state>
          <Titles />
        </CompanyProvider>
      </NotifierProvider>,
    );
    await world.shows("live websocket of acme.live websocket of globex.");
    equal(own === client, true);
    equal(service.received.filter(({ type }) => type === "authenticate").length, 1);
    service.company("globex").revoke();
    await world.shows("live websocket of acme.idle websocket.");
    service.goOffline();
    await service.settled();
    service.company("acme").create("Event", { EventId: "5", Title: "missed" });
    service.goOnline();
    await world.shows("live websocket of acme missed.idle websocket.");
    world.show(null);
    await world.shows("");
    await until(() => client.status.state, "idle");
    client.close();
  },
};

globalThis.results = (async () => {
  const failed = [];
  for (const [name, run] of Object.entries(tests)) {
    try {
      await run();
    } catch (error) {
      failed.push(`${name}: ${error.stack}`);
    }
  }
  return { count: Object.keys(tests).length, failed };
})();
