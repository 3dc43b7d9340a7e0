// What an application may write with the generated types, and what it may not: `tsc --strict` checks it.

import { connect } from "../../../clients/js/src/client.js";
import { tables, type InvoiceRow, type InvoiceSaved, type Message, type ReactionRow, type Tables } from "./generated.js";

export function receive(message: Message): unknown {
  switch (message.Type) {
    case "InvoiceSaved":
      return saved(message);
    case "InvoiceDeleted":
      // @ts-expect-error A deletion has no former values.
      if (message.Old) message.Old.Total;
      return message.Partial ? message.Data.InvoiceId : row(message.Data);
    case "MemberUpdated":
    case "MemberDeleted": {
      const login: string = message.Partial ? "" : message.Data.Login;
      return login;
    }
    case "ReactionCreated":
      return message.Partial ? undefined : reaction(message.Data);
    case "ReactionUpdated":
    case "ReactionDeleted":
      return message.Actor?.length;
    case "Resync":
      return message.Data.Epoch;
    // @ts-expect-error This table sends no such message.
    case "MemberCreated":
      return;
    default:
      return message satisfies never;
  }
}

function saved(message: InvoiceSaved): string | null | undefined {
  if (message.Partial) {
    // @ts-expect-error Only its keys are there.
    message.Data.Total;
    return null;
  }
  return message.Old ? message.Old["2nd-name"] : message.Data.Mood;
}

function row(invoice: InvoiceRow): number {
  // @ts-expect-error The column is excluded.
  invoice.Secret;
  // @ts-expect-error There is no such label.
  if (invoice.Mood === "happy") return 0;
  // @ts-expect-error It may be null.
  invoice.Local.length;
  // @ts-expect-error It is a string beyond 2^53.
  const id: number = invoice.InvoiceId;
  const at: string = invoice.At;
  const street: string | null | undefined = invoice.Ship?.street;
  const minutes = invoice.Route?.map((stop) => stop?.minutes ?? 0) ?? [];
  const cell: number | null | undefined = invoice.Grid?.[0]?.[0];
  return id + at.length + (street?.length ?? 0) + minutes.length + (cell ?? 0) + invoice.Lines + invoice.CompanyId;
}

function reaction({ reactionId: [post, emoji], symbol, companyId }: ReactionRow): [number | string, boolean, number] {
  return [post, emoji === symbol, companyId];
}

const client = connect<Tables>({
  url: "/realtime/",
  getToken: () => "t",
  state: true,
  tables,
  onMessage(message) {
    if (message.Type === "InvoiceSaved" && !message.Partial) return void row(message.Data);
  },
  onState: ({ rows }) => void rows.Reaction?.map(reaction),
});
const lines: number[] = client.rows("Invoice").all().map(({ Lines }) => Lines);
// @ts-expect-error There is no such table.
void [lines, client.rows("Order")];
