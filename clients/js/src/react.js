/**
 * Notifier in React.
 *
 *     <NotifierProvider url="/realtime/" getToken={getToken} companyId={companyId} state>
 *       <Events />
 *     </NotifierProvider>
 *
 *     function Events() {
 *       const events = useRows("Event");
 *       const { state } = useStatus();
 *       …
 *     }
 */

import { createContext, createElement, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import { connect } from "./client.js";
import { callSafely } from "./rows.js";

const CONNECTING = Object.freeze({ state: "connecting", companyId: null, transport: null });
const NO_ROWS = Object.freeze([]);
const NO_TABLE = { subscribe: () => () => {}, all: () => NO_ROWS };

const Connection = createContext(null);
const Company = createContext(null);

/** Calls back components, each with what it passed when it was rendered last. */
class Listeners {
  #refs = new Set();

  add(ref) {
    this.#refs.add(ref);
    return () => this.#refs.delete(ref);
  }

  /** A callback of the client that calls all components. */
  report(name) {
    return (report) => {
      for (const ref of [...this.#refs]) callSafely(() => ref.current[name]?.(report));
    };
  }

  /** The same for those that the client waits for. */
  reload(name) {
    return async (report) => {
      await Promise.all([...this.#refs].map(async (ref) => ref.current[name]?.(report)));
    };
  }
}

/** A value that is read when it is needed, not when a callback was made. */
function useLatest(value) {
  const ref = useRef(value);
  useEffect(() => {
    ref.current = value;
  });
  return ref;
}

/** What components need of a client or a subscription: its status as a store. */
class Source {
  #listeners = new Set();
  #status = CONNECTING;
  /** The client, and the subscription to a company. */
  client = null;
  subscription = null;

  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  status = () => this.#status;

  changed = () => {
    const { client, subscription } = this;
    const status = subscription?.status ?? client?.status;
    const next = status ? { ...status, transport: client?.transport ?? null } : CONNECTING;
    this.#status = Object.freeze(next);
    for (const listener of [...this.#listeners]) listener();
  };
}

export function NotifierProvider({ client: given, children, companyId, entities, where, state, snapshot, ...options }) {
  const latest = useLatest(options);
  const [source] = useState(() => new Source());
  const [client, setClient] = useState(null);
  const { url, transport } = options;
  useEffect(() => {
    const own = given ? null : connect({
      ...latest.current,
      getToken: () => latest.current.getToken(),
      onStatus: (status) => {
        source.changed();
        latest.current.onStatus?.(status);
      },
    });
    source.client = given ?? own;
    setClient(source.client);
    source.changed();
    return () => {
      own?.close();
      source.client = null;
      setClient(null);
    };
  }, [given, String(url), transport]);
  return createElement(
    Connection.Provider,
    { value: useMemo(() => ({ client, source }), [client, source]) },
    createElement(CompanyProvider, { companyId, entities, where, state, snapshot }, children),
  );
}

export function CompanyProvider({ children, companyId, entities, where, state = false, snapshot }) {
  const connection = useContext(Connection);
  if (!connection) throw new Error("There is no NotifierProvider above.");
  const { client, source: outer } = connection;
  const [source] = useState(() => new Source());
  const [listeners] = useState(() => new Listeners());
  const [subscription, setSubscription] = useState(null);
  const latest = useLatest({ entities, where, snapshot });
  const filter = JSON.stringify({ entities, where });
  const applied = useRef(filter);
  useEffect(() => {
    if (!client || companyId == null) return undefined;
    applied.current = filter;
    const followed = client.subscribe(companyId, {
      ...latest.current,
      state,
      onStatus: source.changed,
      onMessage: listeners.report("onMessage"),
      onRecovered: listeners.report("onRecovered"),
      onSkipped: listeners.report("onSkipped"),
      onResync: listeners.reload("onResync"),
      onState: listeners.reload("onState"),
    });
    Object.assign(source, { client, subscription: followed });
    setSubscription(followed);
    source.changed();
    return () => {
      followed.unsubscribe();
      Object.assign(source, { client: null, subscription: null });
      setSubscription(null);
      source.changed();
    };
  }, [client, companyId, state]);
  useEffect(() => {
    // One that another company has just replaced has the filter already.
    if (!subscription || subscription !== source.subscription || filter === applied.current) return;
    applied.current = filter;
    subscription.setFilter(JSON.parse(filter));
  }, [subscription, filter]);
  const value = useMemo(
    () => ({ client, subscription, listeners, source: companyId == null ? outer : source }),
    [client, subscription, companyId == null],
  );
  return createElement(Company.Provider, { value }, children);
}

function useCompany() {
  const company = useContext(Company);
  if (!company) throw new Error("There is no NotifierProvider above.");
  return company;
}

/** The subscription to the company; null until the provider has connected. Its messages call back. */
export function useNotifier(callbacks = {}) {
  const { subscription, listeners } = useCompany();
  const latest = useLatest(callbacks);
  useEffect(() => listeners.add(latest), [listeners]);
  return subscription;
}

/** The client of the provider above; null until it has connected. */
export function useClient() {
  return useCompany().client;
}

/** The rows of one entity. The same array until one of them changes. */
export function useRows(entity) {
  const { subscription } = useCompany();
  const rows = useMemo(() => subscription?.rows(entity) ?? NO_TABLE, [subscription, entity]);
  return useSyncExternalStore(rows.subscribe, rows.all, () => NO_ROWS);
}

/** The company's status, or the connection's where there is no company, with the transport in use. */
export function useStatus() {
  const { source } = useCompany();
  return useSyncExternalStore(source.subscribe, source.status, () => CONNECTING);
}
