/** Types of Notifier's client; see client.js for how it is used. */

/** Where a client is in a company's messages. A position means nothing in another epoch. */
export interface Position {
  /** The position of the last message that was reported. */
  after: number;
  /** The name of the log that it counts in. */
  epoch: string;
}

/** What a changed row looked like and looks like: the properties in PascalCase. */
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
    // Tables of your own have names of their own.
    | (string & {});
  /** The whole row; of a deletion the last one; only its keys where `Partial` is true. */
  Data: Data;
  /** The former values of exactly the properties that changed. */
  Old?: Partial<Data>;
  /** Counts the company's messages 1, 2, 3, … without a hole. */
  Position: number;
  /** When the change was captured, ISO 8601. */
  At: string;
  /** Who changed it, as the writing application said. */
  Actor?: string;
  /** The row is too big to be sent: read it yourself. */
  Partial?: boolean;
}

/** What was missed follows as messages, every one of it. */
export interface Recovered {
  companyId: string;
  position: number;
  epoch: string;
}

/**
 * What follows `position` is complete, what came before may not be: read your state afresh.
 *
 * `reason` is `start` (there was nothing to resume from), `expired` (the position is beyond the
 * retention), `epoch`, `gap` (what is missing could not be had), `overflow` (too much came while the
 * state was read), or the server's word: `bulk`, `truncate`, `overflow`, `epoch`.
 */
export interface Resync extends Recovered {
  reason: string;
  /** Aborted when the company is left or the client closed: what is being read is of no use then. */
  signal: AbortSignal;
}

/**
 * - `connecting`: a token is fetched, a socket opened, a company asked for
 * - `live`: messages come as they are committed
 * - `waiting`: there is no connection; the next attempt is in `retryInMs`
 * - `idle`: connected, without a company: none was named, it was refused, or access to it was lost
 * - `stopped`: the client does not return by itself: the token was refused or something is broken;
 *   `reconnect()` tries again
 * - `closed`: `close()` was called
 */
export type State = "connecting" | "live" | "waiting" | "idle" | "stopped" | "closed";

export interface Why {
  /** In words: of the server where it gave any. */
  reason?: string;
  /** The close code; 1006 where the link broke. */
  code?: number;
  /** What `getToken` or `onResync` threw, or the `Error` that the server sent. */
  error?: unknown;
}

export interface Status extends Why {
  state: State;
  companyId: string | null;
  /** Milliseconds until the next attempt, while waiting. */
  retryInMs?: number;
}

/** Any class that is one: the browser's, Node's (22 and newer), that of the package `ws`. */
export type WebSocketClass = new (url: string) => {
  // Each of them has its own types of events.
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: string): void;
  close(): void;
};

export interface Options<Data extends object = Row> {
  /** Where the notifier is: `wss://…`. */
  url: string;
  /**
   * Asked anew at each connection and shortly before the token expires. A token that was refused or has
   * expired is not shown again, so a cache should not outlive the token.
   */
  getToken: () => string | Promise<string>;
  /** The company to follow; without one the client waits for `setCompany`. */
  companyId?: string | number | null;
  /** Where to resume: what `client.position` was when the state you hold was saved. */
  position?: Position | null;

  onMessage?: (message: Message<Data>) => void;
  onRecovered?: (recovered: Recovered) => void;
  /**
   * Read your state afresh. Messages are held back while the promise that you return is pending, and
   * come afterwards; you are asked again when it is rejected.
   */
  onResync?: (resync: Resync) => void | Promise<void>;
  onStatus?: (status: Status) => void;

  /** Where there is no global one, as in Node 20. */
  WebSocket?: WebSocketClass;
  /** After so long a silence the server is asked for a sign of life. Default 15,000. */
  heartbeatMs?: number;
  /** No answer within it: the link is dead. Default 10,000. */
  timeoutMs?: number;
  /** The first wait before a return is a random part of it, the next of twice as long… Default 1,000. */
  minDelayMs?: number;
  /** … up to this. Default 30,000. */
  maxDelayMs?: number;
  /** A number in [0, 1), for tests. Default `Math.random`. */
  random?: () => number;
}

export interface Client {
  readonly companyId: string | null;
  /**
   * The last message that was reported, with all before it: save it with your state, and resume there.
   * `null` as long as the state has to be read.
   */
  readonly position: Position | null;
  readonly status: Status;
  /** Follows another company, from a position that you kept or afresh. Nothing of the former comes any more. */
  setCompany(companyId: string | number, position?: Position | null): void;
  /** Connects anew, now, whatever the reason was not to. */
  reconnect(): void;
  /** Ends it for good. */
  close(): void;
}

/**
 * Follows a company. Returns at once; everything comes through the callbacks.
 * @throws TypeError for options that cannot work
 */
export function connect<Data extends object = Row>(options: Options<Data>): Client;
