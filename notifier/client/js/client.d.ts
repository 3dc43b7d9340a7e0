/** Types of Notifier's client. client.js shows how to use it. */

/** How far a client has got in a company's messages. A position means nothing in another epoch. */
export interface Position {
  /** The position of the last message that was reported. */
  after: number;
  /** The name of the log. */
  epoch: string;
}

/** A changed row: its properties in PascalCase. */
export type Row = Record<string, unknown>;

/** One committed change of one row. */
export interface Message<Data extends object = Row> {
  Type:
    | "EventCreated"
    | "EventUpdated"
    | "EventDeleted"
    | "EmployeeAdded"
    | "EmployeeUpdated"
    | "EmployeeRemoved"
    | "CompanyUpdated"
    | "CompanyDeleted"
    // Other watched tables have types of their own.
    | (string & {});
  /** The whole row, for a deletion as it last was; only its keys if `Partial` is true. */
  Data: Data;
  /** The former values of exactly the properties that changed. */
  Old?: Partial<Data>;
  /** Counts the company's messages 1, 2, 3, … without a gap. */
  Position: number;
  /** The time at which the change was captured, in ISO 8601. */
  At: string;
  /** The user who made the change, if the writing application named one. */
  Actor?: string;
  /** The row is too large to be sent: read it from your own API. */
  Partial?: boolean;
}

/** Every message after `position` follows: nothing was lost. */
export interface Recovered {
  companyId: string;
  position: number;
  epoch: string;
}

/**
 * Messages after `position` are complete, earlier ones may not be: reload your state.
 *
 * `reason` is `start` (there was no position to resume from), `expired` (the position is beyond the
 * retention), `epoch` (the log was replaced), `gap` (a missing message could not be obtained),
 * `overflow` (too many messages arrived during the last reload), or the server's reason: `bulk`,
 * `truncate`, `overflow`, `epoch`.
 */
export interface Resync extends Recovered {
  reason: string;
  /** Aborted when the company is left or the client closed: the state is of no use then. */
  signal: AbortSignal;
}

/**
 * - `connecting`: fetching a token, opening a socket, or waiting for the answer to `setCompany`
 * - `live`: messages arrive as they are committed
 * - `waiting`: not connected; the next attempt is in `retryInMs`
 * - `idle`: connected without a company: none was set, it was refused, or access to it was revoked
 * - `stopped`: the client does not reconnect by itself: the token was refused or the client is at
 *   fault; `reconnect()` tries again
 * - `closed`: `close()` was called
 */
export type State = "connecting" | "live" | "waiting" | "idle" | "stopped" | "closed";

export interface Details {
  /** In words, those of the server if it sent any. */
  reason?: string;
  /** The close code, 1006 if the link broke. */
  code?: number;
  /** The exception of `getToken` or `onResync`, or the `Error` that the server sent. */
  error?: unknown;
}

export interface Status extends Details {
  state: State;
  companyId: string | null;
  /** Milliseconds until the next attempt, while waiting. */
  retryInMs?: number;
}

/** A WebSocket class: the browser's, Node's (22 or newer), or that of the package `ws`. */
export type WebSocketClass = new (url: string) => {
  // Each of these classes has its own event types.
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: string): void;
  close(): void;
};

export interface Options<Data extends object = Row> {
  /** The URL of the notifier: `wss://…`. */
  url: string;
  /**
   * Called for each connection and shortly before the token expires. A token that was refused or has
   * expired is not presented again, so a cache should not outlive the token.
   */
  getToken: () => string | Promise<string>;
  /** The company to follow; without one the client waits for `setCompany`. */
  companyId?: string | number | null;
  /** Where to resume: the value of `client.position` when you saved your state. */
  position?: Position | null;

  onMessage?: (message: Message<Data>) => void;
  onRecovered?: (recovered: Recovered) => void;
  /**
   * Reload your state. Messages wait while the promise that you return is pending. If it is rejected,
   * you are called again.
   */
  onResync?: (resync: Resync) => void | Promise<void>;
  onStatus?: (status: Status) => void;

  /** Needed where there is no global WebSocket, as in Node 20. */
  WebSocket?: WebSocketClass;
  /** After so long a silence the client sends a ping. Default 15,000. */
  heartbeatMs?: number;
  /** Without an answer within this time the client drops the link. Default 10,000. */
  timeoutMs?: number;
  /** The first wait before a reconnect is a random part of it, the next of twice as long, … Default 1,000. */
  minDelayMs?: number;
  /** … up to this bound. Default 30,000. */
  maxDelayMs?: number;
  /** A number in [0, 1), for tests. Default `Math.random`. */
  random?: () => number;
}

export interface Client {
  readonly companyId: string | null;
  /**
   * The last message that was reported, with all before it: save it with your state, and resume there.
   * `null` while your state is incomplete.
   */
  readonly position: Position | null;
  readonly status: Status;
  /**
   * Follows another company, from a saved position or from the present one. Nothing more of the former
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
export function connect<Data extends object = Row>(options: Options<Data>): Client;
