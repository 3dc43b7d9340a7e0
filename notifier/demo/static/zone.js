/**
 * Wall-clock time in a time zone, with nothing but Intl.
 *
 * A *wall* time is a number of milliseconds whose UTC fields show the local time. All days are 24 hours
 * long in it, so adding `DAY` adds a day.
 */

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

const FIELDS = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };

export class Zone {
  #parts;

  constructor(name) {
    this.name = name;
    this.#parts = new Intl.DateTimeFormat("en-US", { timeZone: name, hourCycle: "h23", era: "short", ...FIELDS });
  }

  /** The wall time at an instant. */
  wall(instant) {
    const at = Object.fromEntries(this.#parts.formatToParts(instant).map(({ type, value }) => [type, value]));
    return Date.UTC(at.year, at.month - 1, at.day, at.hour, at.minute, at.second);
  }

  /** The instant of a wall time; a time that is skipped in spring counts as an hour later. */
  instant(wall) {
    const guess = wall - (this.wall(wall) - wall);
    return new Date(wall - (this.wall(guess) - guess));
  }

  /** The zone's short name at an instant: CET, EST. */
  label(instant) {
    const named = new Intl.DateTimeFormat(navigator.language, { timeZone: this.name, timeZoneName: "short" });
    return named.formatToParts(instant).find(({ type }) => type === "timeZoneName").value;
  }
}

export const midnight = (wall) => Math.floor(wall / DAY) * DAY;

/** The first day of the week of a wall time. */
export function weekStart(wall) {
  const since = (new Date(wall).getUTCDay() - FIRST_DAY + 7) % 7;
  return midnight(wall) - since * DAY;
}

export function monthStart(wall, months = 0) {
  const date = new Date(wall);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + months, 1);
}

/** 1 is Monday; in some locales the week starts on Sunday or Saturday. */
const FIRST_DAY = (() => {
  const locale = new Intl.Locale(navigator.language);
  return (locale.getWeekInfo?.() ?? locale.weekInfo)?.firstDay ?? 1;
})() % 7;

const formatter = (options) => {
  const { format } = new Intl.DateTimeFormat(navigator.language, { timeZone: "UTC", ...options });
  return format;
};

/** Formats wall times in the reader's language. */
export const format = {
  time: formatter({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
  seconds: formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
  weekday: formatter({ weekday: "short" }),
  longWeekday: formatter({ weekday: "long" }),
  date: formatter({ day: "numeric" }),
  day: formatter({ weekday: "short", day: "numeric", month: "short" }),
  longDay: formatter({ weekday: "long", day: "numeric", month: "long" }),
  month: formatter({ month: "long", year: "numeric" }),
  week: (() => {
    const days = new Intl.DateTimeFormat(navigator.language, {
      timeZone: "UTC", day: "numeric", month: "long", year: "numeric",
    });
    return (from, to) => days.formatRange(from, to);
  })(),
};

/** For inputs: 2026-11-22T18:00. */
export const toInput = (wall) => new Date(wall).toISOString().slice(0, 16);
export const fromInput = (text) => Date.parse(text.length === 10 ? `${text}T00:00Z` : `${text}Z`);
