// What an application in TypeScript may write, and what it may not. It is not run but checked, together with
// client.js itself, where a compiler is at hand:
//
//     npx --package typescript@5.9 tsc -p tests/client

import { connect, version, type Change, type Message, type Options } from "../../notifier/client/js/client.js";

interface Invoice {
  InvoiceId: string;
  CompanyId: string;
  Total: number;
}
type InvoiceChange = Change<"InvoiceCreated" | "InvoicePaid", Invoice>;

const companyId: string | undefined = version.length > 3 ? "a" : undefined;
const options: Options = { url: "/realtime/", getToken: () => "t", companyId, onStatus: undefined };

connect({
  ...options,
  onMessage(message) {
    switch (message.Type) {
      case "EventCreated":
      case "EventUpdated": {
        const title: string = message.Data.Title;
        const former: string | undefined = message.Old?.Title;
        return void [title, former, message.Data.MyOwnColumn];
      }
      case "EmployeeAdded": {
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

const client = connect<InvoiceChange>({
  url: new URL("wss://calendar.example/"),
  getToken: async () => "t",
  onMessage(message) {
    if (message.Type === "InvoicePaid") {
      const total: number = message.Data.Total;
      // @ts-expect-error The row has no such column.
      return void [total, message.Data.Title];
    }
    if (message.Type === "CompanyUpdated") return void message.Data.TimeZone;
  },
  onResync: async ({ companyId, signal }) => void (await fetch(`/state/${companyId}`, { signal })),
});

const saved = JSON.stringify(client.position);
client.setCompany(7, JSON.parse(saved));
client.setCompany("b", { after: 1, epoch: "e" });

export const describe = (message: Message<InvoiceChange>): string => message.Type;
