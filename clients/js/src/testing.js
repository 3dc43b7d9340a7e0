/**
 * A service in memory, for tests of applications: the real client with a transport that needs no network.
 *
 *     const service = new FakeService();
 *     const acme = service.company("acme");
 *     acme.create("Event", { EventId: "1", Title: "Stand-up" });
 *     const client = connect({ ...service.options, companyId: "acme", state: true });
 *     await service.settled(); // everything that was sent has arrived
 */

const NAMES = { create: "Created", update: "Updated", delete: "Deleted" };
const CALENDAR = { Employee: { create: "Added", delete: "Removed" } };

/** A place in the queue of events behind all that is there now. */
const later = () => new Promise((resolve) => setTimeout(resolve, 0));

export class FakeService {
  #companies = new Map();
  #sockets = new Set();
  #tx = 700;
  epoch = "fake-1";
  /** While false no connection is possible. */
  online = true;
  /** The commands that clients have sent. */
  received = [];

  constructor({ tables = {} } = {}) {
    this.tables = tables;
  }

  /** Options of `connect`. */
  get options() {
    const service = this;
    return {
      url: "ws://notifier.test/",
      transport: "websocket",
      getToken: () => "token",
      minDelayMs: 0,
      maxDelayMs: 0,
      tables: this.tables,
      WebSocket: class extends FakeSocket {
        constructor() {
          super(service);
        }
      },
    };
  }

  /** The company, made at the first call. */
  company(id) {
    let company = this.#companies.get(id);
    if (!company) this.#companies.set(id, (company = new FakeCompany(this, id)));
    return company;
  }

  /** Returns when all that was sent before has arrived and was handled. */
  async settled() {
    for (let turn = 0; turn < 20; turn++) await later();
  }

  /** Ends all connections, with a `Disconnect` if `code` is not 1006. Clients return unless `reconnect` is false. */
  disconnect(code = 1006, { reason = "test", reconnect = true } = {}) {
    for (const socket of [...this.#sockets]) socket.end(code, reason, reconnect);
  }

  /** No connection is possible until `goOnline`, and the present ones end. */
  goOffline() {
    this.online = false;
    this.disconnect();
  }

  goOnline() {
    this.online = true;
  }

  nextTx() {
    return String(++this.#tx);
  }

  opened(socket) {
    this.#sockets.add(socket);
  }

  closed(socket) {
    this.#sockets.delete(socket);
  }

  publish(company, message) {
    for (const socket of this.#sockets) socket.deliver(company, message);
  }

  nameOf(operation, entity) {
    const own = this.tables[entity]?.[{ create: "created", update: "updated", delete: "deleted" }[operation]];
    return own ?? entity + (CALENDAR[entity]?.[operation] ?? NAMES[operation]);
  }

  keyOf(entity) {
    return this.tables[entity]?.key ?? `${entity}Id`;
  }
}

class FakeCompany {
  #rows = new Map();
  log = [];
  isAllowed = true;

  constructor(service, id) {
    this.service = service;
    this.id = id;
  }

  get position() {
    return this.log.length;
  }

  /** Each sends the change to the clients and returns the number of its transaction. */
  create(entity, row, options) {
    return this.#change("create", entity, { CompanyId: this.id, ...row }, undefined, options);
  }

  update(entity, row, options) {
    const former = this.#find(entity, row);
    const next = { ...former, ...row };
    const changed = Object.keys(next).filter((name) => next[name] !== former[name]);
    const old = Object.fromEntries(changed.map((name) => [name, former[name]]));
    return this.#change("update", entity, next, old, options);
  }

  delete(entity, row, options) {
    return this.#change("delete", entity, this.#find(entity, row), undefined, options);
  }

  /** As after a change of very many rows. */
  resync(reason = "bulk") {
    this.#send({ Type: "Resync", Data: { CompanyId: this.id, Reason: reason, Epoch: this.service.epoch } });
  }

  /** Access is refused until `allow`. */
  revoke() {
    this.isAllowed = false;
    this.service.publish(this, { Type: "CompanyRevoked", Data: { CompanyId: this.id } });
  }

  allow() {
    this.isAllowed = true;
  }

  /** The rows by entity. */
  state() {
    return Object.fromEntries([...this.#rows].map(([entity, rows]) => [entity, [...rows.values()]]));
  }

  #table(entity) {
    let rows = this.#rows.get(entity);
    if (!rows) this.#rows.set(entity, (rows = new Map()));
    return rows;
  }

  #find(entity, row) {
    const key = row[this.service.keyOf(entity)];
    const found = this.#table(entity).get(String(key));
    if (!found) throw new Error(`There is no ${entity} ${key}.`);
    return found;
  }

  #change(operation, entity, row, old, { actor, tx = this.service.nextTx() } = {}) {
    const key = String(row[this.service.keyOf(entity)]);
    if (operation === "delete") this.#table(entity).delete(key);
    else this.#table(entity).set(key, row);
    this.#send({
      Type: this.service.nameOf(operation, entity),
      Data: row,
      ...(old && { Old: old }),
      Tx: tx,
      ...(actor && { Actor: actor }),
    }, entity);
    return tx;
  }

  #send(message, entity) {
    const sent = { ...message, Position: this.position + 1, At: new Date().toISOString() };
    this.log.push({ message: sent, entity });
    this.service.publish(this, sent);
  }
}

/** The client's end of one connection, and the service's. What either sends arrives in the order in which it was sent. */
class FakeSocket {
  readyState = 0;
  #service;
  /** What is on its way. */
  #sent = [];
  #ending = false;
  /** The ids of the companies that are followed → their filters. */
  #followed = new Map();

  constructor(service) {
    this.#service = service;
    this.#later(() => {
      if (this.readyState !== 0) return;
      if (!service.online) return this.#close(1006, "offline");
      this.readyState = 1;
      service.opened(this);
      this.onopen?.({});
    });
  }

  /** Browsers delay some timers more than others, so each takes the first in the queue, not a certain one. */
  #later(arrives) {
    this.#sent.push(arrives);
    setTimeout(() => this.#sent.shift()?.(), 0);
  }

  send(text) {
    const command = JSON.parse(text);
    if (this.#ending) return;
    this.#service.received.push(command);
    this.#later(() => this.readyState === 1 && this.#answer(command));
  }

  close() {
    this.readyState = 3;
    this.#service.closed(this);
  }

  end(code, reason, reconnect) {
    if (code === 1006) this.#sent = []; // lost
    else this.#report({ Type: "Disconnect", Data: { Code: code, Reason: reason, Reconnect: reconnect } });
    this.#ending = true;
    this.#later(() => this.#close(code, reason));
  }

  /** A message of the company, if it is followed and passes the filter. */
  deliver(company, message) {
    const entry = company.log.at(-1);
    const filter = this.#followed.get(company.id);
    if (!filter) return;
    if (message.Type === "CompanyRevoked") this.#followed.delete(company.id);
    else if (!passes(filter, entry)) message = skipped(company, message);
    this.#report(message);
  }

  #close(code, reason) {
    if (this.readyState === 3) return;
    this.close();
    this.onclose?.({ code, reason });
  }

  #report(message) {
    if (this.#ending) return;
    const data = JSON.stringify(message);
    this.#later(() => this.readyState === 1 && this.onmessage?.({ data }));
  }

  #answer({ type, data }) {
    if (type === "authenticate") return this.#report({ Type: "AuthenticationResult", Success: true, Data: { UserId: "test" } });
    if (type === "ping") return this.#report({ Type: "Pong" });
    const company = this.#service.company(data.companyId);
    const CompanyId = company.id;
    if (type === "unsubscribe") {
      this.#followed.delete(CompanyId);
      return this.#report({ Type: "UnsubscribeResult", Success: true, Data: { CompanyId } });
    }
    if (type === "await") {
      const last = company.log.findLast(({ message }) => message.Tx === data.tx);
      return this.#report({ Type: "Arrived", Data: { CompanyId, Tx: data.tx, Position: last?.message.Position ?? company.position } });
    }
    const Type = type === "setCompany" ? "SetCompanyResult" : "SubscribeResult";
    if (!company.isAllowed) return this.#report({ Type, Success: false, Error: { Code: "company_forbidden", Message: "not allowed" }, Data: { CompanyId } });
    if (type === "setCompany") this.#followed.clear();
    this.#follow(company, Type, data);
  }

  #follow(company, Type, { after, epoch, state, entities, where }) {
    const filter = { entities, where };
    const { id: CompanyId, log, position } = company;
    this.#followed.set(CompanyId, filter);
    const Epoch = this.#service.epoch;
    const resumes = after !== undefined;
    const Recovered = resumes && epoch === Epoch && after <= position;
    const Position = Recovered ? after : position;
    const At = log[Position - 1]?.message.At;
    this.#report({ Type, Success: true, Data: { CompanyId, Position, Epoch, At, ...(resumes && { Recovered }) } });
    if (Recovered) {
      for (const entry of log.slice(after)) this.#report(passes(filter, entry) ? entry.message : skipped(company, entry.message));
    } else if (state) {
      for (const [Entity, rows] of Object.entries(company.state())) {
        const Rows = rows.filter((row) => passes(filter, { entity: Entity, message: { Data: row } }));
        if (Rows.length) this.#report({ Type: "State", Data: { CompanyId, Entity, Rows } });
      }
      this.#report({ Type: "StateEnd", Data: { CompanyId, Position } });
    }
  }
}

function passes({ entities, where }, { entity, message: { Data, Old } }) {
  if (entity === undefined) return true; // a Resync
  if (entities && !entities.includes(entity)) return false;
  const conditions = Object.entries(where?.[entity] ?? {});
  return [Data, { ...Data, ...Old }].some((row) => conditions.every(([name, values]) => values.includes(row[name])));
}

const skipped = ({ id }, { Position, At }) => ({ Type: "Skipped", Data: { CompanyId: id }, Position, At });
