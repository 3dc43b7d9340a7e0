/** Types of Notifier's client. client.js shows how to use it. */

/** The version of this client, and of the server that it came with. */
export const version: string;

/** How far a client has got in a company's messages. A position means nothing in another epoch. */
export interface Position {
  /** The position of the last message that was reported. */
  after: number;
  /** The name of the log. */
  epoch: string;
  /** The `At` of that message: proves that client and server have the same one, also after a restore. */
  at?: string | undefined;
}

/** A changed row. Its properties are in PascalCase, unless `notifier.toml` sets `case` or `rename`. */
export type Row = Record<string, unknown>;

/** What every change has beside its row. */
export interface Frame<Type extends string = string> {
  Type: Type;
  /** Counts the company's messages 1, 2, 3, … without a gap. */
  Position: number;
  /** The time at which the change was captured, in ISO 8601. */
  At: string;
  /** The writer's transaction: its `pg_current_xact_id()` in decimal. */
  Tx?: string | undefined;
  /** The user who made the change, if the writing application named one. */
  Actor?: string | undefined;
}

/** One committed change of one row, whose type is one of `Type`. `Partial` distinguishes a row that is too large to be sent. */
export type Change<Type extends string = string, Data extends object = Row, Keys extends object = Row> =
  | (Frame<Type> & {
      /** The whole row, for a deletion as it last was. */
      Data: Data;
      /** The former values of exactly the properties that changed. */
      Old?: Partial<Data> | undefined;
      Partial?: undefined;
    })
  | (Frame<Type> & {
      /** Only what names the row: read it from your own API. */
      Data: Keys;
      Old?: undefined;
      Partial: true;
    });

/**
 * What a table sends: its rows, what names one, and its changes. `notifier types --language typescript` prints `Tables`
 * with one of them for each of your tables.
 */
export interface Table<
  Entity extends string = string,
  Data extends object = any,
  Keys extends object = any,
  Changes extends { Type: string } = Change<
    `${Entity}Created` | `${Entity}Updated` | `${Entity}Deleted` | `${Entity}Added` | `${Entity}Removed`,
    Data,
    Keys
  >,
> {
  Row: Data;
  Keys: Keys;
  Change: Changes;
}

/** A set of tables by entity. */
export type AnyTables<Tables> = { [Entity in keyof Tables]: Table<string, any, any, any> };

/** A row of `events`. Columns of your own are in it, too. */
export interface CalendarEvent {
  EventId: string;
  CompanyId: string;
  Title: string;
  Description: string | null;
  Location: string | null;
  StartsAt: string;
  EndsAt: string;
  AllDay: boolean;
  OrganizerId: string | null;
  CreatedAt: string;
  UpdatedAt: string;
  [column: string]: unknown;
}

/** A row of `employees`. */
export interface Employee {
  EmployeeId: string;
  CompanyId: string;
  UserId: string | null;
  Name: string;
  Email: string | null;
  JobTitle: string | null;
  CreatedAt: string;
  UpdatedAt: string;
  [column: string]: unknown;
}

/** A row of `companies`. */
export interface Company {
  CompanyId: string;
  Name: string;
  TimeZone: string;
  CreatedAt: string;
  UpdatedAt: string;
  [column: string]: unknown;
}

/** The tables that are watched unless `notifier.toml` names others. */
export interface Calendar {
  Event: Table<
    "Event",
    CalendarEvent,
    Pick<CalendarEvent, "EventId" | "CompanyId">,
    Change<"EventCreated" | "EventUpdated" | "EventDeleted", CalendarEvent, { EventId: string; CompanyId: string }>
  >;
  Employee: Table<
    "Employee",
    Employee,
    { EmployeeId: string; CompanyId: string },
    Change<"EmployeeAdded" | "EmployeeUpdated" | "EmployeeRemoved", Employee, { EmployeeId: string; CompanyId: string }>
  >;
  Company: Table<
    "Company",
    Company,
    { CompanyId: string },
    Change<"CompanyUpdated" | "CompanyDeleted", Company, { CompanyId: string }>
  >;
}

/**
 * A change of one of the tables: `switch (message.Type)` narrows it.
 *
 *     connect<{ Invoice: Table<"Invoice", Invoice> }>({ … })
 */
export type Message<Tables extends AnyTables<Tables> = Calendar> = Tables[keyof Tables]["Change"];

/** A row as the store has it. One that is too large to be sent has its keys only. */
export type RowOf<Tables extends AnyTables<Tables>, Entity extends keyof Tables> = Tables[Entity]["Row"];

/** Every message after `position` follows: nothing was lost. */
export interface Recovered {
  companyId: string;
  position: number;
  epoch: string;
}

/**
 * Messages after `position` are complete, earlier ones may not be: reload your state.
 *
 * `reason` is `start` (there was no position to resume from), `filter` (the subscription has another
 * filter now), `expired` (the position is beyond the retention), `epoch` (the log was replaced), `gap` (a missing message could not be obtained),
 * `overflow` (too many messages arrived during the last reload), or the server's reason: `bulk`,
 * `truncate`, `overflow`, `epoch`.
 */
export interface Resync extends Recovered {
  reason: string;
  /** Aborted when the company is left or the client closed: the state is of no use then. */
  signal: AbortSignal;
}

/** All rows of the company that pass the filter and that the user may see, by entity, as of `position`. */
export interface StateReport<Tables extends AnyTables<Tables> = Calendar> extends Resync {
  rows: { [Entity in keyof Tables]?: RowOf<Tables, Entity>[] };
}

/** The rows of one entity, kept up to date. Reading them throws after a message that names no known row: see the option `tables`. */
export interface Rows<Data extends object = Row> {
  readonly entity: string;
  readonly size: number;
  /** The state has arrived, or was restored from a snapshot. */
  readonly complete: boolean;
  /** The row with this key. A key of several columns is an array. */
  get(key: unknown): Data | undefined;
  /** All rows. The same array until one of them changes. */
  all(): readonly Data[];
  /** What names this row, as a string. */
  keyOf(row: Data): string;
  /**
   * Calls back after each change, with the row and its key (`row` is undefined if it was removed), or without them if any
   * row may have changed. Returns a function that ends this.
   */
  subscribe(listener: (change?: { key: string; row: Data | undefined }) => void): () => void;
}

/** Rows with the position to which they belong; it can be stored as JSON. It is of use to the same user only. */
export interface Snapshot {
  companyId: string;
  filter: Filter;
  position: Position;
  rows: { [entity: string]: readonly object[] };
}

/** How the messages of a table are named in `notifier.toml`, where not `EventCreated`, `EventUpdated` and `EventDeleted`. */
export interface TableNames {
  /** The property that names a row, where it is not `EventId`. */
  key?: string | undefined;
  created?: string | undefined;
  updated?: string | undefined;
  deleted?: string | undefined;
}

/** How messages arrive. Server-sent events and long polls pass through networks that let no WebSocket through. */
export type TransportName = "websocket" | "sse" | "poll";

/**
 * - `connecting`: fetching a token, opening a socket, or waiting for the answer to a subscription
 * - `live`: messages arrive as they are committed
 * - `waiting`: not connected; the next attempt is in `retryInMs`
 * - `idle`: connected without a company: none was set, it was refused, or access to it was revoked;
 *   `reason` is `no company`, `revoked`, or the code of the refusal: `company_forbidden`, `bad_filter`,
 *   `too_many_companies`, `state_too_large`, `state_unavailable`
 * - `stopped`: the client does not reconnect by itself: the token was refused or the client is at
 *   fault; `reconnect()` tries again
 * - `closed`: `close()` or `unsubscribe()` was called
 */
export type State = "connecting" | "live" | "waiting" | "idle" | "stopped" | "closed";

export interface Details {
  /** In words, those of the server if it sent any. */
  reason?: string | undefined;
  /** The close code, 1006 if the link broke. */
  code?: number | undefined;
  /** The exception of `getToken` or `onResync`, or the `Error` that the server sent. */
  error?: unknown;
}

/**
 * The state of one company, or of the connection as a whole. With several companies `companyId` names the one
 * whose state has changed. A change of the connection concerns all of them; its `companyId` is that of
 * `connect`, if there is one.
 */
export interface Status extends Details {
  state: State;
  companyId: string | null;
  /** Milliseconds until the next attempt, while waiting. */
  retryInMs?: number | undefined;
}

/** A WebSocket class: the browser's, Node's (22 or newer), or that of the package `ws`. */
export type WebSocketClass = new (url: string) => {
  // Each of these classes has its own event types.
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  readonly readyState: number;
  send(data: string): void;
  close(): void;
};

/** A value in a column: what JSON can hold. `7` is not `"7"`. */
export type Value = string | number | boolean | null;

/** Which changes a subscription gets; all of them by default. */
export interface Filter {
  /** Only changes of these: `["Event"]`. */
  entities?: readonly string[] | undefined;
  /** Entity → property → the values that pass. A row passes before or after the change, in every property. */
  where?: { readonly [entity: string]: { readonly [property: string]: readonly Value[] } } | undefined;
}

export interface Callbacks<Tables extends AnyTables<Tables> = Calendar> {
  onMessage?: ((message: Message<Tables>) => void) | undefined;
  onRecovered?: ((recovered: Recovered) => void) | undefined;
  /**
   * Reload your state. Messages wait while the promise that you return is pending. If it is rejected,
   * you are called again.
   */
  onResync?: ((resync: Resync) => void | Promise<void>) | undefined;
  /**
   * With `state`, in place of `onResync`: replace your state by these rows. Messages wait while the promise that you
   * return is pending. If it is rejected, you are called again.
   */
  onState?: ((state: StateReport<Tables>) => void | Promise<void>) | undefined;
  /**
   * No message up to `position` is for this subscription: its filter or the row's visibility decided so. Nothing has
   * to be done; a saved position may move on.
   */
  onSkipped?: ((skipped: Recovered) => void) | undefined;
  onStatus?: ((status: Status) => void) | undefined;
}

export interface Options<Tables extends AnyTables<Tables> = Calendar> extends Callbacks<Tables>, Filter {
  /** The URL of the notifier: `wss://…`, or relative to the page: `/realtime/`. */
  url: string | URL;
  /**
   * Called for each connection and shortly before the token expires. A token that was refused or has
   * expired is not presented again, so a cache should not outlive the token.
   */
  getToken: () => string | Promise<string>;
  /** The company to follow; without one the client waits for `setCompany` or `subscribe`. */
  companyId?: string | number | null | undefined;
  /** Where to resume: the value of `client.position` when you saved your state. */
  position?: Position | null | undefined;
  /**
   * The service sends the rows too: `onState` is called with them, and `rows()` has them. The operator has to enable it.
   * Also for companies that are subscribed to later, unless their options set it.
   */
  state?: boolean | undefined;
  /** With `state`: the value of `client.snapshot()`. It is ignored if it belongs to another company or filter. */
  snapshot?: Snapshot | null | undefined;
  /** For `rows()`: tables whose messages or keys have names of their own. */
  tables?: { [entity: string]: TableNames } | undefined;
  /**
   * `auto`, the default, takes server-sent events where no WebSocket works, long polls where those do not work either, and
   * returns to a WebSocket when one works.
   */
  transport?: TransportName | "auto" | undefined;

  /** Where there is no global WebSocket, as in Node 20. */
  WebSocket?: WebSocketClass | undefined;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** After this much silence the client sends a ping. Default 15,000. */
  heartbeatMs?: number | undefined;
  /** Without an answer within this time the client drops the link. Default 10,000. */
  timeoutMs?: number | undefined;
  /** The first wait before a reconnect is a random part of it, the next of twice as long, … Default 1,000. */
  minDelayMs?: number | undefined;
  /** … up to this bound. Default 30,000. */
  maxDelayMs?: number | undefined;
  /** A number in [0, 1), for tests. Default `Math.random`. */
  random?: (() => number) | undefined;
}

/** The options of `subscribe`. A callback that is not given is that of `connect`. */
export interface SubscriptionOptions<Tables extends AnyTables<Tables> = Calendar> extends Callbacks<Tables>, Filter {
  /** Where to resume: the value of `subscription.position` when you saved your state. */
  position?: Position | null | undefined;
  /** As the option of `connect`. */
  state?: boolean | undefined;
  /** With `state`: the value of `subscription.snapshot()`. */
  snapshot?: Snapshot | null | undefined;
}

/**
 * It is not known whether a transaction's messages have arrived. `code` is `unknown_tx` (no transaction has this
 * number yet), `timeout` (it is still running after 10 seconds; over HTTP also: it has no message for this subscription), or `not_subscribed` (the subscription was refused,
 * revoked or left, or the client stopped).
 */
export class ArrivalError extends Error {
  constructor(code: string, message: string);
  readonly code: string;
}

/** One of a client's companies. */
export interface Subscription<Tables extends AnyTables<Tables> = Calendar> {
  readonly companyId: string;
  /** As `client.position`, of this company. */
  readonly position: Position | null;
  readonly status: Status;
  /** As `client.rows`. */
  rows<Entity extends keyof Tables & string>(entity: Entity): Rows<RowOf<Tables, Entity>>;
  /** As `client.snapshot`. */
  snapshot(): Snapshot | null;
  /**
   * Replaces the filter. `onResync` is called once it is accepted: reload the state that it shows. The former one stays
   * until then, and if the new one is refused (`bad_filter`).
   */
  setFilter(filter?: Filter): void;
  /**
   * Resolves when all messages of a transaction were reported, with the company's position then. `tx` is its
   * `pg_current_xact_id()`. The question is repeated after a reconnect.
   * @throws ArrivalError
   */
  arrived(tx: string | number): Promise<number>;
  /** Leaves the company: nothing more of it is reported. */
  unsubscribe(): void;
}

export interface Client<Tables extends AnyTables<Tables> = Calendar> {
  /** The company of `connect` and `setCompany`. */
  readonly companyId: string | null;
  /**
   * The last message that was reported, with all before it: save it with your state, and resume there.
   * `null` while your state is incomplete.
   */
  readonly position: Position | null;
  /** With several companies, that of one which is `connecting`; if there is none, of one which is `live`. */
  readonly status: Status;
  /** How messages arrive at present; `null` while the client is not connected. */
  readonly transport: TransportName | null;
  /**
   * The rows of one entity of the company of `connect` or `setCompany`. They are empty until the state has arrived, and when
   * access is lost.
   * @throws Error without the option `state`
   */
  rows<Entity extends keyof Tables & string>(entity: Entity): Rows<RowOf<Tables, Entity>>;
  /** The rows with their position, to be saved and given to `connect` again; `null` while they are incomplete. */
  snapshot(): Snapshot | null;
  /**
   * Follows one more company.
   * @throws Error if the client follows this company already
   */
  subscribe(companyId: string | number, options?: SubscriptionOptions<Tables>): Subscription<Tables>;
  /** As `subscription.arrived`, for the company of `connect` or `setCompany`. */
  arrived(tx: string | number): Promise<number>;
  /**
   * Follows another company in place of that of `connect`, from a saved position or from the present one. Nothing more of the former
   * company is reported.
   */
  setCompany(companyId: string | number, position?: Position | null): void;
  /** Connects again now, whatever the reason not to. */
  reconnect(): void;
  /** Closes the client for good. */
  close(): void;
}

/**
 * Follows a company. Returns at once; everything is reported through the callbacks.
 * @throws TypeError for options that cannot work
 */
export function connect<Tables extends AnyTables<Tables> = Calendar>(options: Options<Tables>): Client<Tables>;
