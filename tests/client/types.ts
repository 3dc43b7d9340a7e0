// What an application in TypeScript may write, and what it may not. It is not run but checked, together with
// client.js itself, where a compiler is at hand:
//
//     npx --package typescript@5.9 tsc -p tests/client

import { ArrivalError, connect, version, type Calendar, type Message, type Options, type Snapshot, type Table } from "../../clients/js/src/client.js";

interface Invoice {
  InvoiceId: string;
  CompanyId: string;
  Total: number;
}
interface Tables extends Calendar {
  Invoice: Table<"Invoice", Invoice, { InvoiceId: string }>;
}

const companyId: string | undefined = version.length > 3 ? "a" : undefined;
const options: Options = { url: "/realtime/", getToken: () => "t", companyId, onStatus: undefined };

connect({
  ...options,
  onMessage(message) {
    switch (message.Type) {
      case "EventCreated":
      case "EventUpdated": {
        // @ts-expect-error A row that is too large is sent with its keys only.
        message.Data.Title;
        if (message.Partial) return void message.Data.EventId;
        const title: string = message.Data.Title;
        const former: string | undefined = message.Old?.Title;
        return void [title, former, message.Data.MyOwnColumn];
      }
      case "EmployeeAdded": {
        if (message.Partial) return;
        const user: string | null = message.Data.UserId;
        // @ts-expect-error An employee has no organizer of its type.
        const organizer: string = message.Data.OrganizerId;
        return void [user, organizer];
      }
      // @ts-expect-error There is no such type.
      case "EventMoved":
        return;
    }
  },
});

const client = connect<Tables>({
  url: new URL("wss://calendar.example/"),
  getToken: async () => "t",
  state: true,
  snapshot: JSON.parse("null") as Snapshot | null,
  tables: { Invoice: { key: "InvoiceId", updated: "InvoicePaid" } },
  transport: "auto",
  onState({ rows, signal }) {
    const total: number | undefined = rows.Invoice?.[0]?.Total;
    const title: string | undefined = rows.Event?.[0]?.Title;
    // @ts-expect-error There is no such table.
    return void [total, title, signal.aborted, rows.Order];
  },
  onMessage(message) {
    if (message.Type === "InvoiceUpdated" && !message.Partial) {
      const total: number = message.Data.Total;
      // @ts-expect-error The row has no such column.
      return void [total, message.Data.Title];
    }
    if (message.Type === "CompanyUpdated" && !message.Partial) return void message.Data.TimeZone;
  },
  onResync: async ({ companyId, signal }) => void (await fetch(`/state/${companyId}`, { signal })),
});

const saved = JSON.stringify(client.position);
client.setCompany(7, JSON.parse(saved));
client.setCompany("b", { after: 1, epoch: "e" });

const mine = client.subscribe("c", {
  entities: ["Invoice"],
  where: { Invoice: { Customer: ["u1", null, 7] } },
  position: client.position,
  onMessage: (message) => void (message.Type === "InvoiceDeleted" && !message.Partial && message.Data.Total),
});
mine.setFilter({ entities: ["Invoice"] });
mine.setFilter();
// @ts-expect-error The values are a list.
mine.setFilter({ where: { Invoice: { Customer: "u1" } } });
// @ts-expect-error A subscription stays with its company.
mine.companyId = "d";
const reached: Promise<number> = Promise.all([mine.arrived("7"), client.arrived(7)]).then(([position]) => position);
reached.catch((error: unknown) => error instanceof ArrivalError && error.code === "timeout");
const invoices = client.rows("Invoice");
const totals: number[] = invoices.all().map((invoice) => invoice.Total);
const one: string | undefined = mine.rows("Event").get("1")?.Title;
// @ts-expect-error There is no such table.
client.rows("Order");
invoices.subscribe(() => void [totals, one, invoices.size, client.transport === "sse", client.snapshot()?.position])();
// @ts-expect-error There is no such transport.
connect({ ...options, transport: "carrier pigeon" });
mine.unsubscribe();

export const describe = (message: Message<Tables>): string => message.Type;
