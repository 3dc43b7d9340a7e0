// What an application may write with the React and TanStack bindings and the fake service, and what it may not.

import { createCollection } from "@tanstack/db";
import { QueryClient } from "@tanstack/query-core";
import { connect, type Calendar, type Table } from "postgres-notifier";
import { CompanyProvider, NotifierProvider, useClient, useNotifier, useRows, useStatus, useSuspenseRows } from "postgres-notifier/react";
import { notifierCollectionOptions, queryInvalidation } from "postgres-notifier/tanstack";
import { FakeService } from "postgres-notifier/testing";

interface Invoice {
  InvoiceId: string;
  Total: number;
}
interface Own extends Calendar {
  Invoice: Table<"Invoice", Invoice, { InvoiceId: string }>;
}

declare module "postgres-notifier/react" {
  interface Register {
    tables: Own;
  }
}

function Invoices() {
  const invoices = useRows("Invoice");
  // @ts-expect-error There is no such table.
  useRows("Order");
  useSuspenseRows("Invoice").at(0)?.Total.toFixed();
  // @ts-expect-error There is no such table.
  useSuspenseRows("Order");
  const { state, transport } = useStatus();
  const subscription = useNotifier({
    onMessage(message) {
      if (message.Type === "InvoiceCreated" && !message.Partial) return void message.Data.Total.toFixed();
    },
  });
  return <p title={transport ?? state}>{invoices.reduce((sum, { Total }) => sum + Total, subscription?.position?.after ?? 0)}</p>;
}

export function App() {
  return (
    <NotifierProvider url="/realtime/" getToken={() => "t"} companyId="a" state>
      <Invoices />
      <CompanyProvider companyId={7} entities={["Invoice"]} state>
        <Invoices />
      </CompanyProvider>
    </NotifierProvider>
  );
}

export function Shared() {
  return <NotifierProvider client={connect<Own>({ url: "/", getToken: () => "t" })} companyId={useClient() && "b"} />;
}

// @ts-expect-error A connection needs a URL.
export const wrong = <NotifierProvider companyId="a" />;

const service = new FakeService<Own>();
const tx: string = service.company("a").create("Invoice", { InvoiceId: "1", Total: 7 }, { actor: "u1" });
// @ts-expect-error The row has no such column.
service.company("a").update("Invoice", { Sum: 7 });

const client = connect<Own>({ ...service.options, companyId: "a", state: true });
export const invoices = createCollection(
  notifierCollectionOptions({ client, entity: "Invoice", onInsert: async ({ transaction }) => ({ tx: `${transaction.mutations[0].modified.Total}` }) }),
);
const total: number | undefined = invoices.get(tx)?.Total;
invoices.utils.awaitTx(tx).then((position: number) => void [position, total]);
// @ts-expect-error There is no such table.
notifierCollectionOptions({ client, entity: "Order" });

connect<Own>({ url: "/", getToken: () => "t", ...queryInvalidation<Own>(new QueryClient(), { Invoice: ["invoices"], Event: (row) => ["event", row?.EventId] }) });
