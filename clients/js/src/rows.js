/** The rows of one company by entity, as of the client's position. */

/** @import { Filter, Rows, TableNames } from "./client.js" */

/** The names of messages by which the service reports changes, unless `notifier.toml` sets others. */
const NAMES = /^(.+?)(Created|Added|Updated|Deleted|Removed)$/;

/** Keys of several columns are arrays; a number and its text are one key. */
const keyOf = (/** @type {unknown} */ value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

/**
 * Calls back. An error of the application is thrown where it can be seen, and does not stop the client.
 * @param {() => void} callback
 */
export function callSafely(callback) {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

export class Store {
  /** @type {Map<string, Table>} */
  #tables = new Map();
  /** @type {Filter} What the rows pass. */
  filter = {};
  /** @type {Error | null} Why the rows are not known. Thrown where they are read. */
  fault = null;
  /** The state has arrived, or was restored. */
  complete = false;

  /** @param {{ [entity: string]: TableNames }} [names] */
  constructor(names = {}) {
    this.names = names;
  }

  /** @param {string} entity */
  table(entity) {
    let table = this.#tables.get(entity);
    if (!table) this.#tables.set(entity, (table = new Table(entity, this)));
    return table;
  }

  clear() {
    this.replace({}, false);
  }

  /**
   * @param {Record<string, readonly object[]>} rows Of all entities: those of others are forgotten.
   * @param {boolean} [complete]
   */
  replace(rows, complete = true) {
    const first = this.complete !== complete;
    this.complete = complete;
    for (const entity in rows) this.table(entity);
    for (const [entity, table] of this.#tables) table.replace(rows[entity] ?? [], first);
  }

  /**
   * The rows are not known any more: their listeners are called, and reading them throws.
   * @param {string} why
   */
  fail(why) {
    if (this.fault) return;
    this.fault = new Error(why);
    for (const table of this.#tables.values()) table.changed();
  }

  /** @param {any} message A change. */
  apply({ Type, Data }) {
    const named = this.#named(Type, Data);
    if (!named) {
      return this.fail(`Which rows ${Type} changes is not known: name it in the option tables.`);
    }
    const { entity, deletes } = named;
    const conditions = Object.entries(this.filter.where?.[entity] ?? {});
    // A row that has left the filter is reported once more. Keys only do not show whether it has.
    const passes = conditions.every(([name, values]) => !(name in Data) || values.includes(Data[name]));
    this.table(entity).apply(Data, deletes || !passes);
  }

  /**
   * @param {string} type
   * @param {object} row
   */
  #named(type, row) {
    for (const [entity, { key, created, updated, deleted }] of Object.entries(this.names)) {
      if (key !== undefined && !(key in row)) continue; // tables may share the name of a message
      if (type === created || type === updated) return { entity, deletes: false };
      if (type === deleted) return { entity, deletes: true };
    }
    const [, entity, verb] = NAMES.exec(type) ?? [];
    return entity && verb ? { entity, deletes: verb === "Deleted" || verb === "Removed" } : null;
  }

  all() {
    return Object.fromEntries([...this.#tables].map(([entity, { view }]) => [entity, view.all()]));
  }
}

/** The rows of one entity. */
class Table {
  /** @type {Map<string, any>} */
  #rows = new Map();
  /** @type {Set<(change?: { key: string, row: any }) => void>} */
  #listeners = new Set();
  /** @type {readonly any[] | null} */
  #all = null;
  /** @type {string | undefined} The property that names a row. */
  #key;

  /**
   * @param {string} entity
   * @param {Store} store
   */
  constructor(entity, store) {
    this.entity = entity;
    this.store = store;
    this.#key = store.names[entity]?.key;
    const rows = () => {
      if (store.fault) throw store.fault;
      return this.#rows;
    };
    /** @type {Rows<any>} */
    this.view = Object.freeze({
      entity,
      get size() {
        return rows().size;
      },
      get complete() {
        return store.complete;
      },
      get: (/** @type {unknown} */ key) => rows().get(keyOf(key)),
      all: () => (this.#all ??= Object.freeze([...rows().values()])),
      keyOf: (/** @type {object} */ row) => this.#keyOf(row) ?? "",
      subscribe: (/** @type {(change?: { key: string, row: any }) => void} */ listener) => {
        const own = (/** @type {any} */ change) => listener(change);
        this.#listeners.add(own);
        return () => void this.#listeners.delete(own);
      },
    });
  }

  /** @param {any} row */
  #keyOf(row) {
    const { entity, store } = this;
    this.#key ??= Object.keys(row).find((name) => name.replaceAll("_", "").toLowerCase() === `${entity}id`.toLowerCase());
    if (this.#key !== undefined && this.#key in row) return keyOf(row[this.#key]);
    store.fail(`Which property names a row of ${entity} is not known: set its key in the option tables.`);
    return undefined;
  }

  /**
   * @param {readonly object[]} rows
   * @param {boolean} first Whether they are complete has changed.
   */
  replace(rows, first) {
    if (!first && !rows.length && !this.#rows.size) return;
    this.#rows.clear();
    for (const row of rows) {
      const key = this.#keyOf(row);
      if (key !== undefined) this.#rows.set(key, row);
    }
    this.changed();
  }

  /**
   * @param {object} row
   * @param {boolean} deleted
   */
  apply(row, deleted) {
    const key = this.#keyOf(row);
    if (key === undefined || (deleted && !this.#rows.delete(key))) return;
    if (!deleted) this.#rows.set(key, row);
    this.changed({ key, row: deleted ? undefined : row });
  }

  /** @param {{ key: string, row: any }} [change] None: any row may have changed. */
  changed(change) {
    this.#all = null;
    for (const listener of [...this.#listeners]) callSafely(() => listener(change));
  }
}
