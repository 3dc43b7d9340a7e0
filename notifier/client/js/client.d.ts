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

/** One committed change of one row: `Change<"InvoicePaid", Invoice>` for a table of your own. */
export interface Change<Type extends string = string, Data extends object = Row> {
  Type: Type;
  /** The whole row, for a deletion as it last was; only its keys if `Partial` is true. */
  Data: Data;
  /** The former values of exactly the properties that changed. */
  Old?: Partial<Data> | undefined;
  /** Counts the company's messages 1, 2, 3, … without a gap. */
  Position: number;
  /** The time at which the change was captured, in ISO 8601. */
  At: string;
  /** The writer's transaction: its `pg_current_xact_id()` in decimal. */
  Tx?: string | undefined;
  /** The user who made the change, if the writing application named one. */
  Actor?: string | undefined;
  /** The row is too large to be sent: read it from your own API. */
  Partial?: boolean | undefined;
}

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

/** A change of a calendar table. */
export type CalendarChange =
  | Change<"EventCreated" | "EventUpdated" | "EventDeleted", CalendarEvent>
  | Change<"EmployeeAdded" | "EmployeeUpdated" | "EmployeeRemoved", Employee>
  | Change<"CompanyUpdated" | "CompanyDeleted", Company>;

/**
 * A change of a calendar table or of one of your own: `switch (message.Type)` narrows it.
 *
 *     connect<Change<"InvoiceCreated" | "InvoicePaid", Invoice>>({ … })
 */
export type Message<Own extends Change<string, object> = never> = CalendarChange | Own;

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

/**
 * - `connecting`: fetching a token, opening a socket, or waiting for the answer to a subscription
 * - `live`: messages arrive as they are committed
 * - `waiting`: not connected; the next attempt is in `retryInMs`
 * - `idle`: connected without a company: none was set, it was refused, or access to it was revoked;
 *   `reason` is `no company`, `revoked`, or the code of the refusal: `company_forbidden`, `bad_filter`,
 *   `too_many_companies`
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

export interface Callbacks<Own extends Change<string, object> = never> {
  onMessage?: ((message: Message<Own>) => void) | undefined;
  onRecovered?: ((recovered: Recovered) => void) | undefined;
  /**
   * Reload your state. Messages wait while the promise that you return is pending. If it is rejected,
   * you are called again.
   */
  onResync?: ((resync: Resync) => void | Promise<void>) | undefined;
  /**
   * No message up to `position` is for this subscription: its filter or the row's visibility decided so. Nothing has
   * to be done; a saved position may move on.
   */
  onSkipped?: ((skipped: Recovered) => void) | undefined;
  onStatus?: ((status: Status) => void) | undefined;
}

export interface Options<Own extends Change<string, object> = never> extends Callbacks<Own>, Filter {
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

  /** Needed where there is no global WebSocket, as in Node 20. */
  WebSocket?: WebSocketClass | undefined;
  /** After so long a silence the client sends a ping. Default 15,000. */
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
export interface SubscriptionOptions<Own extends Change<string, object> = never> extends Callbacks<Own>, Filter {
  /** Where to resume: the value of `subscription.position` when you saved your state. */
  position?: Position | null | undefined;
}

/**
 * It is not known whether a transaction's messages have arrived. `code` is `unknown_tx` (no transaction has this
 * number yet), `timeout` (it is still running after 10 seconds), or `not_subscribed` (the subscription was refused,
 * revoked or left, or the client stopped).
 */
export class ArrivalError extends Error {
  constructor(code: string, message: string);
  readonly code: string;
}

/** One of a client's companies. */
export interface Subscription {
  readonly companyId: string;
  /** As `client.position`, of this company. */
  readonly position: Position | null;
  readonly status: Status;
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

export interface Client<Own extends Change<string, object> = never> {
  /** The company of `connect` and `setCompany`. */
  readonly companyId: string | null;
  /**
   * The last message that was reported, with all before it: save it with your state, and resume there.
   * `null` while your state is incomplete.
   */
  readonly position: Position | null;
  /** With several companies, that of one which is `connecting`; if there is none, of one which is `live`. */
  readonly status: Status;
  /**
   * Follows one more company.
   * @throws Error if the client follows this company already
   */
  subscribe<Mine extends Change<string, object> = Own>(
    companyId: string | number,
    options?: SubscriptionOptions<Mine>,
  ): Subscription;
  /** As `subscription.arrived`, for the company of `connect` or `setCompany`. */
  arrived(tx: string | number): Promise<number>;
  /**
   * Follows another company in the place of that of `connect`, from a saved position or from the present one. Nothing more of the former
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
export function connect<Own extends Change<string, object> = never>(options: Options<Own>): Client<Own>;
