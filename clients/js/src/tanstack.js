/**
 * Notifier in TanStack DB and TanStack Query.
 *
 *     const client = connect({ url: "/realtime/", getToken, companyId, state: true });
 *     const events = createCollection(notifierCollectionOptions({
 *       client,
 *       entity: "Event",
 *       onInsert: async ({ transaction }) => save(transaction.mutations[0].modified), // returns { tx }
 *     }));
 */

/** A `Type` without its last word: `EventCreated` → `Event`. */
const ENTITY = /^(.+?)(?:Created|Added|Updated|Deleted|Removed)$/;

/** Options of `createCollection`: one entity of a client or a subscription with `state`. */
export function notifierCollectionOptions({ client, entity, id = `notifier-${entity}`, onInsert, onUpdate, onDelete, ...options }) {
  const rows = client.rows(entity);

  /** Optimistic changes stay until the messages of their transaction were applied. */
  const awaiting = (handler) => handler && (async (parameters) => {
    const result = await handler(parameters);
    if (result?.tx != null) await client.arrived(result.tx);
    return result;
  });

  const sync = ({ begin, write, commit, markReady }) => {
    /** The rows that the collection has, by key. */
    let known = new Map();

    const writeAll = () => {
      const present = new Map(rows.all().map((row) => [rows.keyOf(row), row]));
      begin();
      for (const [key, row] of known) if (!present.has(key)) write({ type: "delete", value: row });
      for (const [key, row] of present) {
        if (!known.has(key)) write({ type: "insert", value: row });
        else if (known.get(key) !== row) write({ type: "update", value: row });
      }
      commit();
      known = present;
    };

    const writeOne = ({ key, row }) => {
      const former = known.get(key);
      if (!row && !former) return;
      begin();
      write(row ? { type: former ? "update" : "insert", value: row } : { type: "delete", value: former });
      commit();
      if (row) known.set(key, row);
      else known.delete(key);
    };

    const changed = (change) => {
      if (change && rows.complete) writeOne(change);
      else writeAll();
      if (rows.complete) markReady();
    };
    const stop = rows.subscribe(changed);
    if (rows.complete) changed();
    return stop;
  };

  return {
    ...options,
    id,
    getKey: (row) => rows.keyOf(row),
    sync: { sync, rowUpdateMode: "full" },
    onInsert: awaiting(onInsert),
    onUpdate: awaiting(onUpdate),
    onDelete: awaiting(onDelete),
    utils: { awaitTx: (tx) => client.arrived(tx) },
  };
}

/**
 * Callbacks for `connect`, `subscribe` or `useNotifier` that invalidate queries: `keys` has a query key for each entity, or a
 * function that returns one for a row, and for null the one of all rows.
 */
export function queryInvalidation(queryClient, keys, { delayMs = 50 } = {}) {
  let waiting = new Map();
  let timer;

  const flush = () => {
    timer = undefined;
    const due = [...waiting.values()];
    waiting = new Map();
    return Promise.all(due.map((queryKey) => queryClient.invalidateQueries({ queryKey })));
  };

  const add = (entity, row) => {
    const key = keys[entity];
    const queryKey = typeof key === "function" ? key(row) : key;
    if (queryKey) waiting.set(JSON.stringify(queryKey), queryKey);
  };

  const all = async () => {
    for (const entity of Object.keys(keys)) add(entity, null);
    clearTimeout(timer);
    await flush();
  };

  return {
    onMessage: ({ Type, Data }) => {
      add(ENTITY.exec(Type)?.[1] ?? Type, Data);
      if (waiting.size) timer ??= setTimeout(flush, delayMs);
    },
    onResync: all,
    onState: all,
  };
}
