/** What a message says, in words. */

import { DAY, say } from "./zone.js";

const ORDINARY = { Location: "the place of", Description: "the notes of", OrganizerId: "who leads", AllDay: "the length of" };

/**
 * @returns {{ did: string, what: string, detail?: string }}
 */
export function words(message, zone, nameOf) {
  const { Type, Data, Old = {} } = message;
  switch (Type) {
    case "EventCreated":
      return { did: "added", what: Data.Title, detail: span(Data, zone) };
    case "EventDeleted":
      return { did: "cancelled", what: Data.Title, detail: span(Data, zone) };
    case "EventUpdated": {
      const before = { ...Data, ...Old };
      if ("StartsAt" in Old || "EndsAt" in Old) {
        return { did: "moved", what: Data.Title, detail: `${span(before, zone)} → ${span(Data, zone, before)}` };
      }
      if ("Title" in Old) return { did: "renamed", what: Data.Title, detail: `was “${Old.Title}”` };
      if ("OrganizerId" in Old) {
        return { did: "handed on", what: Data.Title, detail: `${nameOf(Old.OrganizerId)} → ${nameOf(Data.OrganizerId)}` };
      }
      const changed = Object.keys(ORDINARY).find((name) => name in Old);
      return { did: `changed ${ORDINARY[changed] ?? ""}`.trim(), what: Data.Title, detail: Data[changed]?.toString() };
    }
    case "EmployeeAdded":
      return { did: "welcomed", what: Data.Name, detail: Data.JobTitle ?? undefined };
    case "EmployeeRemoved":
      return { did: "removed", what: Data.Name, detail: Data.JobTitle ?? undefined };
    case "EmployeeUpdated":
      return { did: "updated", what: Data.Name, detail: Data.JobTitle ?? undefined };
    case "CompanyUpdated":
      return { did: "updated", what: Data.Name, detail: "Name" in Old ? `was “${Old.Name}”` : undefined };
    case "CompanyDeleted":
      return { did: "deleted", what: Data.Name };
    default:
      return { did: "said", what: Type };
  }
}

/** When an event is; only the times where `before` was on the same day. */
export function span(event, zone, before) {
  const starts = zone.wall(Date.parse(event.StartsAt));
  const ends = zone.wall(Date.parse(event.EndsAt));
  if (event.AllDay) {
    const last = Math.max(starts, ends - DAY);
    return last - starts < DAY ? say.day(starts) : `${say.day(starts)} – ${say.day(last)}`;
  }
  const times = `${say.time(starts)}–${say.time(ends)}`;
  const same = before && say.day(zone.wall(Date.parse(before.StartsAt))) === say.day(starts);
  return same ? times : `${say.day(starts)}, ${times}`;
}
