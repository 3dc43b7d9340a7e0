/** Describes a message in words. */

import { DAY, format } from "./zone.js";

const PROPERTIES = { Location: "the location of", Description: "the notes of", AllDay: "the duration of" };

/**
 * @returns {{ action: string, subject: string, detail?: string }}
 */
export function describe(message, zone, nameOf) {
  const { Type, Data, Old = {} } = message;
  switch (Type) {
    case "EventCreated":
      return { action: "added", subject: Data.Title, detail: span(Data, zone) };
    case "EventDeleted":
      return { action: "cancelled", subject: Data.Title, detail: span(Data, zone) };
    case "EventUpdated": {
      const before = { ...Data, ...Old };
      if ("StartsAt" in Old || "EndsAt" in Old) {
        return { action: "moved", subject: Data.Title, detail: `${span(before, zone)} → ${span(Data, zone, before)}` };
      }
      if ("Title" in Old) return { action: "renamed", subject: Data.Title, detail: `was “${Old.Title}”` };
      if ("OrganizerId" in Old) {
        return { action: "reassigned", subject: Data.Title, detail: `${nameOf(Old.OrganizerId)} → ${nameOf(Data.OrganizerId)}` };
      }
      const changed = Object.keys(PROPERTIES).find((name) => name in Old);
      return { action: `changed ${PROPERTIES[changed] ?? ""}`.trim(), subject: Data.Title, detail: Data[changed]?.toString() };
    }
    case "EmployeeAdded":
      return { action: "added", subject: Data.Name, detail: Data.JobTitle ?? undefined };
    case "EmployeeRemoved":
      return { action: "removed", subject: Data.Name, detail: Data.JobTitle ?? undefined };
    case "EmployeeUpdated":
      return { action: "updated", subject: Data.Name, detail: Data.JobTitle ?? undefined };
    case "CompanyUpdated":
      return { action: "updated", subject: Data.Name, detail: "Name" in Old ? `was “${Old.Name}”` : undefined };
    case "CompanyDeleted":
      return { action: "deleted", subject: Data.Name };
    default:
      return { action: "sent", subject: Type };
  }
}

/** Day and times of an event; only the times if `before` was on the same day. */
export function span(event, zone, before) {
  const starts = zone.wall(Date.parse(event.StartsAt));
  const ends = zone.wall(Date.parse(event.EndsAt));
  if (event.AllDay) {
    const last = Math.max(starts, ends - DAY);
    return last - starts < DAY ? format.day(starts) : `${format.day(starts)} – ${format.day(last)}`;
  }
  const times = `${format.time(starts)}–${format.time(ends)}`;
  const same = before && format.day(zone.wall(Date.parse(before.StartsAt))) === format.day(starts);
  return same ? times : `${format.day(starts)}, ${times}`;
}
