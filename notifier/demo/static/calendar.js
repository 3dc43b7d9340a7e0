/** The grid: a week of hours or a month of days, with events in the company's wall time. */

import { prefersReducedMotion, h, animateOnce } from "./dom.js";
import { DAY, HOUR, MINUTE, midnight, monthStart, format, weekStart } from "./zone.js";

const SNAP = 15 * MINUTE;
/** A shorter event is drawn with this length, so that it can be read. */
const SHORTEST = 25 * MINUTE;
const CHIPS = 3;
const NARROW = matchMedia("(max-width: 44rem)");

export class Calendar {
  view = "week";
  #root;
  #on;
  #zone;
  /** Any wall time in the visible range; on a narrow screen, on the visible day. */
  #at;
  #events = [];
  /** Identifies the drawn columns; while it stays the same they are kept, and their events glide. */
  #frame = "";
  #columns = [];
  #shown = new Map();
  #dragging = null;

  /**
   * @param {HTMLElement} root
   * @param {{ open(event), create(starts: number, ends: number), move(event, by: number), changed() }} on
   */
  constructor(root, on) {
    this.#root = root;
    this.#on = on;
    NARROW.addEventListener("change", () => this.draw(this.#events));
  }

  set zone(zone) {
    if (zone.name === this.#zone?.name) return;
    this.#zone = zone;
    this.#frame = "";
    this.#at = zone.wall(Date.now());
  }

  /** The visible range of wall times. */
  get range() {
    if (this.view === "week") return [weekStart(this.#at), weekStart(this.#at) + 7 * DAY];
    return [weekStart(monthStart(this.#at)), weekStart(monthStart(this.#at, 1) + 6 * DAY)];
  }

  get title() {
    const [from, to] = this.range;
    return this.view === "week" ? format.week(from, to - DAY) : format.month(monthStart(this.#at));
  }

  /** The start of a new event: the next full hour, or 10:00 if today is not visible. */
  get proposal() {
    const now = this.#zone.wall(Date.now());
    const [from, to] = this.range;
    if (now >= from && now < to) return Math.ceil(now / HOUR) * HOUR;
    return midnight(Math.max(this.#at, from)) + 10 * HOUR;
  }

  show(view) {
    this.view = view;
    this.draw(this.#events);
  }

  go(wall) {
    this.#at = wall;
    this.draw(this.#events);
  }

  today() {
    this.go(this.#zone.wall(Date.now()));
  }

  step(direction) {
    if (this.view === "week") this.go(this.#at + direction * 7 * DAY);
    else this.go(monthStart(this.#at, direction));
  }

  /** @param {object[]} events as in messages, with `hue` and `organizer` added */
  draw(events) {
    this.#events = events;
    if (!this.#zone) return;
    const [from, to] = this.range;
    const frame = [this.view, from, NARROW.matches, NARROW.matches && midnight(this.#at), this.#today()].join();
    const glides = frame === this.#frame && !document.hidden && !prefersReducedMotion();
    const before = glides ? new Map([...this.#shown].map(([key, item]) => [key, item.getBoundingClientRect()])) : null;
    const focus = document.activeElement?.closest?.("[data-key]")?.dataset.key;

    if (frame !== this.#frame) {
      this.#frame = frame;
      this.#shown.clear();
      if (this.view === "week") this.#drawWeek(from);
      else this.#drawMonth(from, to);
    }
    const shown = this.#shown;
    this.#shown = new Map();
    for (const column of this.#columns) this.#fill(column, this.#of(column.day), shown);
    for (const [key, item] of shown) if (!this.#shown.has(key)) item.remove();

    if (focus) this.#shown.get(focus)?.querySelector("button")?.focus({ preventScroll: true });
    for (const [key, item] of this.#shown) {
      const was = before?.get(key);
      if (was && item !== this.#dragging) glide(item, was);
    }
    this.#on.changed();
  }

  /** Highlights an event that has just changed. */
  highlight(id) {
    for (const item of this.#root.querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) animateOnce(item, "lit");
  }

  /** Fades out a deleted event. */
  fade(id) {
    if (prefersReducedMotion()) return;
    for (const [key, item] of this.#shown) {
      if (item.dataset.id !== id) continue;
      this.#shown.delete(key);
      item.removeAttribute("data-id");
      item.inert = true;
      item.classList.add("gone");
      item.addEventListener("animationend", () => item.remove());
    }
  }

  /** Scrolls an event into view. */
  reveal(event) {
    const wall = this.#zone.wall(Date.parse(event.StartsAt));
    const [from, to] = this.range;
    if (wall < from || wall >= to || NARROW.matches) this.go(wall);
    const item = this.#root.querySelector(`[data-id="${CSS.escape(event.EventId)}"]`);
    item?.scrollIntoView({ block: "center", behavior: prefersReducedMotion() ? "auto" : "smooth" });
    this.highlight(event.EventId);
  }

  #today() {
    return midnight(this.#zone.wall(Date.now()));
  }

  /** The events of a day with their wall times, in drawing order. */
  #of(day) {
    const events = [];
    for (const event of this.#events) {
      const starts = this.#zone.wall(Date.parse(event.StartsAt));
      const ends = Math.max(this.#zone.wall(Date.parse(event.EndsAt)), starts + MINUTE);
      if (starts >= day + DAY || ends <= day) continue;
      const whole = event.AllDay || ends - starts >= DAY;
      events.push({ event, starts, ends, whole, key: `${event.EventId} ${day}` });
    }
    return events.sort((one, other) => other.whole - one.whole || one.starts - other.starts || other.ends - one.ends);
  }

  // ------------------------------------------------------------------ the week

  #drawWeek(from) {
    const today = this.#today();
    const days = Array.from({ length: 7 }, (_, index) => from + index * DAY);
    const narrow = NARROW.matches;
    const chosen = narrow ? [midnight(this.#at)] : days;

    const heads = days.map((day) => {
      const name = [h("span", { className: "weekday" }, format.weekday(day)), " ", h("span", { className: "date" }, format.date(day))];
      const className = `head${day === today ? " today" : ""}`;
      if (!narrow) return h("div", { className, "aria-hidden": "true" }, ...name);
      const pick = h(
        "button",
        { type: "button", "aria-pressed": String(chosen.includes(day)), "aria-label": format.longDay(day), onclick: () => this.go(day) },
        ...name,
      );
      return h("div", { className }, pick);
    });

    this.#columns = chosen.map((day) => ({
      day,
      whole: h("ul", { className: "whole", "aria-label": `${format.longDay(day)}, all day` }),
      hours: h("ul", {
        className: `slots${day === today ? " today" : ""}`,
        "aria-label": format.longDay(day),
        onclick: (click) => {
          if (click.target === click.currentTarget) this.#create(day, click);
        },
      }),
    }));
    const labels = Array.from({ length: 23 }, (_, hour) => h("span", {}, format.time((hour + 1) * HOUR)));
    const hours = h("div", { className: "gutter", "aria-hidden": "true" }, ...labels);
    const whole = h("div", { className: "gutter", "aria-hidden": "true" }, "all day");
    const zone = h("div", { className: "gutter zone", title: this.#zone.name }, this.#zone.label(this.#zone.instant(from)));
    const scroll = h(
      "div",
      { className: `week${narrow ? " narrow" : ""}`, tabIndex: 0, role: "region", "aria-label": "Hour by hour" },
      h(
        "div",
        { className: "top" },
        h("div", { className: "heads" }, zone, ...heads),
        h("div", { className: "wholes" }, whole, ...this.#columns.map((column) => column.whole)),
      ),
      h("div", { className: "hours" }, hours, ...this.#columns.map((column) => column.hours)),
    );
    this.#root.replaceChildren(scroll);
    this.now();
    const starts = chosen.flatMap((day) => this.#of(day).flatMap((each) => (each.whole ? [] : [Math.max(each.starts - day, 0)])));
    const morning = Math.min(7, ...starts.map((start) => Math.floor(start / HOUR)));
    scroll.scrollTop = (scroll.lastElementChild.offsetHeight / 24) * morning;
  }

  /** Draws the line of the current time; to be called every minute. */
  now() {
    if (!this.#zone) return;
    const now = this.#zone.wall(Date.now());
    this.#root.style.setProperty("--now", `${((now % DAY) / DAY) * 100}%`);
  }

  #create(day, click) {
    const box = click.currentTarget.getBoundingClientRect();
    const starts = day + Math.floor((((click.clientY - box.top) / box.height) * DAY) / (2 * SNAP)) * 2 * SNAP;
    this.#on.create(starts, starts + HOUR);
  }

  // ------------------------------------------------------------------ the month

  #drawMonth(from, to) {
    const today = this.#today();
    const month = new Date(monthStart(this.#at)).getUTCMonth();
    this.#columns = [];
    const rows = [];
    for (let week = from; week < to; week += 7 * DAY) {
      const cells = Array.from({ length: 7 }, (_, index) => {
        const day = week + index * DAY;
        const column = { day, month: h("ul", { "aria-label": format.longDay(day) }), more: h("span", { className: "more" }) };
        this.#columns.push(column);
        const other = new Date(day).getUTCMonth() !== month;
        return h(
          "td",
          { className: `${day === today ? "today" : ""}${other ? " other" : ""}` },
          h("button", { type: "button", className: "date", "aria-label": format.longDay(day), onclick: () => this.#enter(day) }, format.date(day)),
          column.month,
          column.more,
        );
      });
      rows.push(h("tr", {}, ...cells));
    }
    const names = Array.from({ length: 7 }, (_, index) =>
      h("th", { scope: "col" }, h("abbr", { title: format.longWeekday(from + index * DAY) }, format.weekday(from + index * DAY))),
    );
    this.#root.replaceChildren(
      h("table", { className: "month" }, h("caption", { className: "visually-hidden" }, this.title), h("thead", {}, h("tr", {}, ...names)), h("tbody", {}, ...rows)),
    );
  }

  #enter(day) {
    this.view = "week";
    this.go(day);
  }

  // ------------------------------------------------------------------ the events

  #fill(column, events, shown) {
    if (column.month) {
      const fit = events.length > CHIPS + 1 ? events.slice(0, CHIPS) : events;
      this.#put(column.month, fit, shown, () => {});
      column.more.textContent = events.length > fit.length ? `+ ${events.length - fit.length}` : "";
      return;
    }
    this.#put(column.whole, events.filter(({ whole }) => whole), shown, () => {});
    const timed = events.filter(({ whole }) => !whole);
    const lanes = layOutLanes(timed);
    this.#put(column.hours, timed, shown, (item, { starts, ends, key }) => {
      if (item === this.#dragging) return;
      const from = Math.max(starts, column.day) - column.day;
      const length = Math.max(Math.min(ends, column.day + DAY) - column.day - from, SHORTEST);
      const { lane, lanes: count, span } = lanes.get(key);
      item.style.top = `${(from / DAY) * 100}%`;
      item.style.height = `${(length / DAY) * 100}%`;
      item.style.left = `${(lane / count) * 100}%`;
      item.style.width = `${(span / count) * 100}%`;
      item.classList.toggle("short", length <= 45 * MINUTE);
    });
  }

  #put(list, events, shown, place) {
    for (const each of events) {
      const item = shown.get(each.key) ?? this.#item(each);
      this.#write(item, each);
      place(item, each);
      list.append(item);
      this.#shown.set(each.key, item);
    }
  }

  #item({ event, key }) {
    const button = h("button", { type: "button", "aria-keyshortcuts": "Shift+ArrowUp Shift+ArrowDown Shift+ArrowLeft Shift+ArrowRight" });
    const item = h("li", { "data-id": event.EventId, "data-key": key }, button);
    button.onclick = () => this.#on.open(item.event);
    button.onkeydown = (press) => {
      const by = { ArrowUp: -SNAP, ArrowDown: SNAP, ArrowLeft: -DAY, ArrowRight: DAY }[press.key];
      if (!by || !press.shiftKey) return;
      press.preventDefault();
      this.#on.move(item.event, by);
    };
    button.onpointerdown = (press) => {
      if (this.view === "week") this.#drag(item, press);
    };
    return item;
  }

  #write(item, { event, starts, ends, whole }) {
    if (item === this.#dragging) return;
    item.event = event;
    item.style.translate = "";
    item.className = `event hue-${event.hue}${whole ? " chip" : ""}${event.pending ? " pending" : ""}${item.classList.contains("lit") ? " lit" : ""}`;
    const [button] = item.children;
    const end = this.view === "week" ? h("span", { className: "end" }, `–${format.time(ends)}`) : null;
    const time = whole ? null : h("span", { className: "time" }, format.time(starts), end);
    const secret = event.PrivateTo?.length ? "private" : null;
    const places = [event.Location, secret].filter(Boolean).join(" · ");
    const place = places && !whole && this.view === "week" ? h("span", { className: "place" }, places) : null;
    const organizer = event.organizer ? h("span", { className: "visually-hidden" }, event.organizer) : null;
    const pending = event.pending ? h("span", { className: "visually-hidden" }, "pending") : null;
    button.replaceChildren(...[h("span", { className: "title" }, event.Title), " ", time, " ", place, " ", organizer, " ", pending].filter(Boolean));
    button.title = [event.Title, event.Location, event.organizer, secret, event.pending ? "pending" : null].filter(Boolean).join(" · ");
  }

  /** For mouse and pen. Touch scrolls; the keyboard has Shift and the arrow keys. */
  #drag(item, press) {
    if (press.pointerType === "touch" || press.button !== 0) return;
    const column = item.parentElement.getBoundingClientRect();
    const whole = item.classList.contains("chip");
    const scroll = this.#root.querySelector(".week");
    const from = scroll.scrollTop;
    let by = 0;
    const ended = new AbortController();
    const move = ({ clientX, clientY }) => {
      const down = clientY - press.clientY + scroll.scrollTop - from;
      if (!this.#dragging && Math.hypot(clientX - press.clientX, down) < 5) return;
      this.#dragging = item;
      item.classList.add("dragged");
      const days = NARROW.matches ? 0 : Math.round((clientX - press.clientX) / column.width);
      const slots = whole ? 0 : Math.round(((down / column.height) * DAY) / SNAP);
      by = days * DAY + slots * SNAP;
      item.style.translate = `${days * column.width}px ${(slots * SNAP * column.height) / DAY}px`;
    };
    const end = (drop) => {
      ended.abort();
      if (!this.#dragging) return;
      this.#dragging = null;
      item.classList.remove("dragged");
      // Ignore the click event that follows a drop.
      addEventListener("click", (click) => click.stopPropagation(), { capture: true, once: true, signal: AbortSignal.timeout(50) });
      // It stays where it was dropped until the message arrives, or the next drawing puts it back.
      if (drop && by) this.#on.move(item.event, by);
      else this.draw(this.#events);
    };
    const { signal } = ended;
    addEventListener("pointermove", move, { signal });
    addEventListener("pointerup", () => end(true), { signal });
    addEventListener("pointercancel", () => end(false), { signal });
    addEventListener("keydown", ({ key }) => key === "Escape" && end(false), { signal });
  }
}

/** Animates an item from its former place. */
function glide(item, was) {
  const is = item.getBoundingClientRect();
  const [x, y] = [was.left - is.left, was.top - is.top];
  if (Math.abs(x) < 1 && Math.abs(y) < 1) return;
  item.animate([{ translate: `${x}px ${y}px`, zIndex: 3 }, { translate: "0 0", zIndex: 3 }], {
    duration: 450,
    easing: "cubic-bezier(.2, .8, .2, 1)",
  });
}

/** Lays out overlapping events: key → its lane, the number of lanes, and how many it spans. */
function layOutLanes(events) {
  const places = new Map();
  let cluster = [];
  let until = -Infinity;
  const close = () => {
    const lanes = Math.max(0, ...cluster.map(({ lane }) => lane)) + 1;
    for (const one of cluster) {
      const right = cluster.filter((other) => other.lane > one.lane && other.starts < one.ends && one.starts < other.ends);
      const span = Math.min(lanes, ...right.map(({ lane }) => lane)) - one.lane;
      places.set(one.key, { lane: one.lane, lanes, span });
    }
    cluster = [];
  };
  for (const { key, starts, ends } of events) {
    if (starts >= until) close();
    const taken = new Set(cluster.filter((other) => other.ends > starts).map(({ lane }) => lane));
    let lane = 0;
    while (taken.has(lane)) lane++;
    const end = Math.max(ends, starts + SHORTEST);
    cluster.push({ key, starts, ends: end, lane });
    until = Math.max(until, end);
  }
  close();
  return places;
}
