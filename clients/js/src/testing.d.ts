/** A service in memory, for tests of applications. testing.js shows how to use it. */

import type { AnyTables, Calendar, Options, TableNames } from "./client.js";

export class FakeService<Tables extends AnyTables<Tables> = Calendar> {
  /** `tables`: as the option of `connect`, where messages or keys have names of their own. */
  constructor(options?: { tables?: { [entity: string]: TableNames } });
  /** Options of `connect`: `connect({ ...service.options, companyId: "acme" })`. */
  readonly options: Pick<Options<Tables>, "url" | "transport" | "getToken" | "minDelayMs" | "maxDelayMs" | "tables" | "WebSocket">;
  /** The name of the log: another one is as after a restore. */
  epoch: string;
  /** The commands that clients have sent. */
  readonly received: { type: string; data?: Record<string, unknown> }[];
  /** The company, made at the first call. */
  company(id: string): FakeCompany<Tables>;
  /** Returns when all that was sent before has arrived and was handled. */
  settled(): Promise<void>;
  /** Ends all connections, with a `Disconnect` if `code` is not 1006. Clients return unless `reconnect` is false. */
  disconnect(code?: number, options?: { reason?: string; reconnect?: boolean }): void;
  /** No connection is possible until `goOnline`, and the present ones end. */
  goOffline(): void;
  goOnline(): void;
}

export interface Written {
  /** The user who makes the change. */
  actor?: string;
  /** The transaction, to put several changes into one. */
  tx?: string;
}

export interface FakeCompany<Tables extends AnyTables<Tables> = Calendar> {
  readonly id: string;
  /** That of the last message. */
  readonly position: number;
  /** Each sends the change to the clients that follow the company, and returns the number of its transaction. */
  create<Entity extends keyof Tables & string>(entity: Entity, row: Partial<Tables[Entity]["Row"]>, options?: Written): string;
  /** Changes these properties of the row with the same key. */
  update<Entity extends keyof Tables & string>(entity: Entity, row: Partial<Tables[Entity]["Row"]>, options?: Written): string;
  delete<Entity extends keyof Tables & string>(entity: Entity, row: Partial<Tables[Entity]["Row"]>, options?: Written): string;
  /** As after a change of very many rows. */
  resync(reason?: string): void;
  /** Access is refused until `allow`. */
  revoke(): void;
  allow(): void;
  /** The rows by entity. */
  state(): { [Entity in keyof Tables]?: Tables[Entity]["Row"][] };
}
