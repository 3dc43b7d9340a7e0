/** One company on the page: its rows, its position, and own changes whose messages have not arrived yet. */
export class Room {
  employees = new Map();
  events = new Map();
  /** The client's subscription; null while the page is offline. */
  subscription = null;
  /** Set while there is none: the rows and the position where to resume. */
  resume = null;
  received = 0;
  /** Changes that arrived while another company was shown. */
  unseen = 0;
  /** The feed entry that counts missed changes, and the time at which they ended. */
  absence = null;
  /** Own changes by the row's id: the values that were written (null: it was deleted), and the transaction. */
  #pending = new Map();
  #changed;

  /**
   * @param {string} id
   * @param {() => void} changed
   */
  constructor(id, changed) {
    this.id = id;
    this.#changed = changed;
  }

  get position() {
    return this.subscription?.position ?? this.resume?.position ?? null;
  }

  clear() {
    this.employees.clear();
    this.events.clear();
    this.#pending.clear();
  }

  /** The events to draw: a pending one has the values that were written. */
  get drawn() {
    const drawn = new Map(this.events);
    for (const [id, { table, values }] of this.#pending) {
      const event = { ...drawn.get(id), ...values, EventId: id, pending: true };
      if (table === "events" && event.Title) drawn.set(id, event);
    }
    return [...drawn.values()];
  }

  /** @param {string} id of an employee */
  isPending(id) {
    return this.#pending.has(id);
  }

  /**
   * The page has written a row: it is pending until the messages of the transaction were received.
   * @param {string} table
   * @param {{ Id: string, Tx: string }} answer
   * @param {object | null} values
   */
  wrote(table, { Id, Tx }, values) {
    this.#pending.set(Id, { table, values, tx: Tx });
    this.#await(Id);
    this.#changed();
  }

  /** A message of a transaction has arrived: from now on the row is what was received. */
  receivedOf(id, tx) {
    const own = this.#pending.get(id);
    if (own?.tx === tx) own.values = null;
  }

  /** The company is subscribed: waits for all pending changes. */
  awaitPending() {
    for (const id of this.#pending.keys()) this.#await(id);
  }

  /** @param {string} id */
  async #await(id) {
    const { subscription } = this;
    const own = this.#pending.get(id);
    if (!subscription || own.subscription === subscription) return;
    own.subscription = subscription;
    try {
      await subscription.arrived(own.tx);
    } catch (error) {
      own.subscription = null;
      // It is still running, or the connection is gone: `awaitPending` is called when it is back.
      if (error.code === "timeout") return void (this.#pending.get(id) === own && this.#await(id));
      if (error.code !== "unknown_tx") return;
    }
    if (this.#pending.get(id) !== own) return; // written again
    this.#pending.delete(id);
    this.#changed();
  }
}
