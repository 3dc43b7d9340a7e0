/** Types of Notifier's React binding. react.js shows how to use it. */

import type { FunctionComponent, ReactNode } from "react";

import type { AnyTables, Calendar, Callbacks, Client, Filter, Options, RowOf, Snapshot, Status, Subscription, TransportName } from "./client.js";

/**
 * Names your tables for all hooks. Without it they are those of the calendar.
 *
 *     declare module "postgres-notifier/react" {
 *       interface Register { tables: Own } // import type { Tables as Own }: here, Tables is another type
 *     }
 */
export interface Register {}

export type Tables = Register extends { tables: infer Own extends AnyTables<Own> } ? Own : Calendar;

export interface CompanyProps extends Filter {
  /** Without one nothing is followed. */
  companyId?: string | number | null | undefined;
  /** Keeps the company's rows: `useRows` needs it. */
  state?: boolean | undefined;
  /** With `state`: the value of `subscription.snapshot()`. */
  snapshot?: Snapshot | null | undefined;
  children?: ReactNode;
}

/** A connection of its own, or one that you have made. */
export type ProviderProps = CompanyProps &
  (
    | { client: Client<any> }
    | ({ client?: undefined } & Omit<Options<Tables>, keyof CompanyProps | keyof Callbacks | "position"> & { onStatus?: ((status: Status) => void) | undefined })
  );

/** Connects, and follows a company. Another `url` or `transport` is another connection; `getToken` may change at any time. */
export const NotifierProvider: FunctionComponent<ProviderProps>;

/** Follows one more company on the connection of the provider above. Another filter replaces the present one. */
export const CompanyProvider: FunctionComponent<CompanyProps>;

/**
 * The subscription to the company of the nearest provider; `null` until it has connected. The callbacks may change with each
 * rendering; several components may have some. The client waits for all promises of `onResync` and `onState`.
 */
export function useNotifier(callbacks?: Omit<Callbacks<Tables>, "onStatus">): Subscription<Tables> | null;

/** The client of the provider above; `null` until it has connected. */
export function useClient(): Client<Tables> | null;

/** The rows of one entity; the same array until one of them changes. Empty until the state has arrived. */
export function useRows<Entity extends keyof Tables & string>(entity: Entity): readonly RowOf<Tables, Entity>[];

/**
 * As `useRows`, but suspends until the state has arrived, so that the nearest `<Suspense>` below the provider shows its fallback. If
 * it will not arrive (the company is refused, the client has stopped), the rows are empty, and `useStatus` has the reason.
 */
export function useSuspenseRows<Entity extends keyof Tables & string>(entity: Entity): readonly RowOf<Tables, Entity>[];

/**
 * The company's status, or the connection's where there is no company, with the transport in use. The connection of a
 * `client` that you have made is not followed: it reports to your `onStatus`.
 */
export function useStatus(): Status & { transport: TransportName | null };
