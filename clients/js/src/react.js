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
/** States in which no rows will arrive by themselves. */
const ENDED = new Set(["idle", "stopped", "closed"]);
const NO_ROWS = Object.freeze([]);
const NO_TABLE = { complete: false, subscribe: () => () => {}, all: () => NO_ROWS };
const connecting = () => CONNECTING;

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
  #change = null;
  #report = null;
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
    this.#report?.();
    this.#change = this.#report = null;
  };

  /** A promise for the next change. Until then it is the same: components that suspend throw it at each rendering. */
  change() {
    return (this.#change ??= new Promise((resolve) => (this.#report = resolve)));
  }
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
  const [followed, setFollowed] = useState(null);
  const latest = useLatest({ entities, where, snapshot });
  const filter = JSON.stringify({ entities, where });
  const applied = useRef(filter);
  useEffect(() => {
    if (!client || companyId == null) return undefined;
    applied.current = filter;
    const reloadStates = listeners.reload("onState");
    const subscription = client.subscribe(companyId, {
      ...latest.current,
      state,
      onStatus: source.changed,
      onMessage: listeners.report("onMessage"),
      onRecovered: listeners.report("onRecovered"),
      onSkipped: listeners.report("onSkipped"),
      onResync: listeners.reload("onResync"),
      onState: (report) => {
        source.changed(); // the rows are complete
        return reloadStates(report);
      },
    });
    Object.assign(source, { client, subscription });
    setFollowed({ client, companyId, state, subscription });
    source.changed();
    return () => {
      subscription.unsubscribe();
      Object.assign(source, { client: null, subscription: null });
      setFollowed(null);
      source.changed();
    };
  }, [client, companyId, state]);
  // The effect comes after the rendering: until then there is none, rather than that of the former company.
  const isPresent = followed?.client === client && followed?.companyId === companyId && followed?.state === state;
  const subscription = isPresent ? followed.subscription : null;
  useEffect(() => {
    // One that another company has just replaced has the filter already.
    if (!subscription || subscription !== source.subscription || filter === applied.current) return;
    applied.current = filter;
    subscription.setFilter(JSON.parse(filter));
  }, [subscription, filter]);
  const value = useMemo(
    () => ({ client, subscription, listeners, follows: companyId != null, source: companyId == null ? outer : source }),
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
  const rows = useTable(entity);
  return useSyncExternalStore(rows.subscribe, rows.all, () => NO_ROWS);
}

/** As `useRows`, but suspends until the rows are complete, or will not be: the company is refused, or the client has stopped. */
export function useSuspenseRows(entity) {
  const rows = useTable(entity);
  // Without a third argument a server renders the fallback of <Suspense>: it has no connection to wait for.
  const all = useSyncExternalStore(rows.subscribe, rows.all);
  const { follows, source } = useCompany();
  const { state } = useStatus();
  if (follows && !rows.complete && !ENDED.has(state)) throw source.change();
  return all;
}

function useTable(entity) {
  const { subscription } = useCompany();
  return useMemo(() => subscription?.rows(entity) ?? NO_TABLE, [subscription, entity]);
}

/** The company's status, or the connection's where there is no company, with the transport in use. */
export function useStatus() {
  const { source, subscription, follows } = useCompany();
  const status = follows && !subscription ? connecting : source.status;
  return useSyncExternalStore(source.subscribe, status, connecting);
}
