/** Types of Notifier's TanStack binding. tanstack.js shows how to use it. */

import type { CollectionConfig, DeleteMutationFnParams, InsertMutationFnParams, UpdateMutationFnParams } from "@tanstack/db";

import type { AnyTables, Calendar, Client, Message, Resync, RowOf, StateReport, Subscription } from "./client.js";

/** What a handler returns: the number of the transaction that its request has committed, `pg_current_xact_id()`. */
export type Written = { tx?: string | number | null | undefined } | void;

export interface CollectionOptions<Tables extends AnyTables<Tables>, Entity extends keyof Tables & string, Data extends object = RowOf<Tables, Entity>> {
  /** With `state`. */
  client: Client<Tables> | Subscription<Tables>;
  entity: Entity;
  /** Default `notifier-ENTITY`. */
  id?: string | undefined;
  /** Each sends the change to your API. The optimistic change stays until the messages of `tx` were applied. */
  onInsert?: ((parameters: InsertMutationFnParams<Data, string>) => Promise<Written>) | undefined;
  onUpdate?: ((parameters: UpdateMutationFnParams<Data, string>) => Promise<Written>) | undefined;
  onDelete?: ((parameters: DeleteMutationFnParams<Data, string>) => Promise<Written>) | undefined;
}

/** Options of `createCollection`. Keys are strings: `rows.keyOf(row)`. */
export function notifierCollectionOptions<Tables extends AnyTables<Tables>, Entity extends keyof Tables & string>(
  options: CollectionOptions<Tables, Entity>,
): CollectionConfig<RowOf<Tables, Entity>, string, never, { awaitTx(tx: string | number): Promise<number> }>;

/** The part of a TanStack `QueryClient` that is used. */
export interface Invalidating {
  invalidateQueries(filters: { queryKey: readonly unknown[] }): Promise<unknown>;
}

/**
 * A query key for each entity, or a function that returns one for a row, and for `null` the one of all rows. A message whose
 * name is not `EntityCreated` and so on is found by its own name.
 */
export type QueryKeys<Tables extends AnyTables<Tables>> = {
  [Entity in keyof Tables]?: QueryKey<RowOf<Tables, Entity> | Tables[Entity]["Keys"]>;
} & { [Type in Message<Tables>["Type"]]?: QueryKey<any> };

export type QueryKey<Data> = readonly unknown[] | ((row: Data | null) => readonly unknown[] | null);

/**
 * Callbacks for `connect`, `subscribe` or `useNotifier` that invalidate queries. Changes within `delayMs` (50) are taken
 * together; after a resync the promises of all keys are awaited before later messages are reported.
 */
export function queryInvalidation<Tables extends AnyTables<Tables> = Calendar>(
  queryClient: Invalidating,
  keys: QueryKeys<Tables>,
  options?: { delayMs?: number },
): {
  onMessage: (message: Message<Tables>) => void;
  onResync: (resync: Resync) => Promise<void>;
  onState: (state: StateReport<Tables>) => Promise<void>;
};
