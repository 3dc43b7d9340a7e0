/**
 * The live page: all companies on one connection. It draws what it receives from Notifier; its own writes are
 * pending until their messages have arrived.
 */

import { connect } from "../client.js";

import * as api from "./api.js";
import { Calendar } from "./calendar.js";
import { animateOnce, h, prefersReducedMotion } from "./dom.js";
import { Form } from "./form.js";
import { Room } from "./room.js";
import { describe } from "./words.js";
import { DAY, HOUR, MINUTE, Zone, format, fromInput, toInput } from "./zone.js";

const HUES = 8;
const FEED_LENGTH = 120;
const BUSY_STEPS = 24;
const BUSY_MS = 500;

const $ = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);

let companies = [];
let company = null;
let zone = new Zone("UTC");
let me = parameters.get("user") ?? sessionStorage.getItem("me") ?? "ann";
/** All companies by id. */
const rooms = new Map();
/** The company that is shown. */
let room = new Room(null, () => {});
/** Names by id, also of people who were removed: later messages may refer to them. */
const names = new Map();

let client = null;
let offline = false;
/** As some proxies do. */
let blocksWebSockets = false;

/** Never opens. */
class BlockedWebSocket {
  readyState = 0;

  constructor() {
    setTimeout(() => this.onclose({ code: 1006, reason: "blocked" }));
  }

  send() {}

  close() {}
}

// -------------------------------------------------------------------- the connection

/** Connects, and follows all companies; each resumes where it was, if it has a position. */
function follow() {
  leave();
  const url = new URL(".", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const getToken = () => api.token(me);
  client = connect({ url: url.href, getToken, onStatus: showConnection, WebSocket: blocksWebSockets ? BlockedWebSocket : undefined });
  for (const each of rooms.values()) enter(each);
}

/** Closes the connection, and keeps the rows with their positions. */
function leave() {
  for (const each of rooms.values()) {
    const { subscription } = each;
    if (subscription) each.resume = subscription.status.state === "idle" ? null : subscription.snapshot();
    each.subscription = null;
  }
  client?.close();
}

/** Follows one company. */
function enter(one) {
  const { resume: snapshot } = one;
  one.resume = null;
  one.subscription = client.subscribe(one.id, {
    state: true,
    snapshot,
    onMessage: (message) => receive(one, message),
    onRecovered: (recovered) => showRecovered(one, recovered),
    onState: (state) => showState(one, state),
    onSkipped: () => one === room && showPosition(),
    onStatus: (status) => showStatus(one, status),
  });
}

/** All rows of a company, from the service. There may be new companies, too. */
async function showState(one, { rows, reason, position, signal }) {
  companies = await api.companies(signal);
  if (signal.aborted) return;
  load(one, rows);
  draw();
  if (reason !== "start") addNote(`State reloaded at № ${position}: ${REASONS[reason] ?? reason}`, one);
}

const REASONS = {
  expired: "the missed changes are no longer in the log",
  epoch: "the log was replaced",
  gap: "a message was missing",
  bulk: "many rows changed in one transaction",
  truncate: "a table was emptied",
  overflow: "more was written than the log can hold",
};

function load(one, { Employee: employees = [], Event: events = [] }) {
  one.employees.clear();
  one.events.clear();
  for (const employee of employees.toSorted(byAge)) one.employees.set(employee.EmployeeId, employee);
  for (const event of events) one.events.set(event.EventId, event);
  for (const { UserId, EmployeeId, Name } of employees) names.set(UserId, Name).set(EmployeeId, Name);
  for (const { CompanyId } of companies) {
    if (rooms.has(CompanyId)) continue;
    rooms.set(CompanyId, new Room(CompanyId, draw));
    if (client && !offline) enter(rooms.get(CompanyId));
  }
  setZone();
}

/** The order of the people on the page, and so their colours. */
const byAge = (one, other) => one.CreatedAt.localeCompare(other.CreatedAt) || one.Name.localeCompare(other.Name);

function zoneOf(one) {
  return new Zone(companies.find(({ CompanyId }) => CompanyId === one.id)?.TimeZone ?? "UTC");
}

function setZone() {
  zone = zoneOf(room);
  calendar.zone = zone;
}

function showRecovered(one, { position }) {
  // The note of a company that is not shown is added when a missed change is there.
  const entry = one === room ? addNote(`Reconnected at № ${position}. No change was missed.`) : null;
  one.absence = { entry, from: position + 1, until: Date.now() };
}

function receive(one, message) {
  one.received++;
  if (one !== room) one.unseen++;
  const { Type, Data, Position } = message;
  if (Type.startsWith("Event")) applyChange(one, one.events, Data.EventId, message);
  else if (Type.startsWith("Employee")) {
    if (Data.Name) names.set(Data.UserId, Data.Name).set(Data.EmployeeId, Data.Name);
    applyChange(one, one.employees, Data.EmployeeId, message);
  } else if (Type === "CompanyUpdated") {
    companies = companies.map((each) => (each.CompanyId === Data.CompanyId ? { ...each, ...Data } : each));
    setZone();
  }

  const { absence } = one;
  const late = absence !== null && Date.parse(message.At) < absence.until;
  if (late) {
    const count = Position - absence.from + 1;
    absence.entry ??= addNote("", one);
    absence.entry.querySelector("p").firstChild.textContent =
      count === 1
        ? `Reconnected. One missed change was delivered, № ${Position}.`
        : `Reconnected. ${count} missed changes were delivered, № ${absence.from} to ${Position}.`;
  } else one.absence = null;
  addEntry(one, message, late);
  draw();
}

/** Stores or deletes a row, and remembers to highlight it. */
function applyChange(one, rows, id, { Type, Data, Partial, Actor, Tx }) {
  one.receivedOf(id, Tx);
  const gone = /Deleted$|Removed$/.test(Type);
  if (gone) rows.delete(id);
  else rows.set(id, Partial ? { ...rows.get(id), ...Data } : Data);
  if (one === room && gone && rows === one.events) calendar.fade(id);
  highlighted.add(id);
  for (const form of [eventForm, personForm]) {
    if (form.id !== id || Actor === me) continue;
    form.showConflict(gone ? `${actorName(Actor)} has just removed this.` : `${actorName(Actor)} has just changed this.`, gone);
  }
}

const STATES = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", idle: "No access", stopped: "Stopped", closed: "Offline" };

function showStatus(one, { state, reason }) {
  if (state === "live") one.awaitPending();
  if (state === "idle" && reason === "revoked" && one !== room) addNote(`${nameOf(me)} has just lost access.`, one);
  if (one === room) show();
}

/** Without a company there is only the state of the connection. */
function showConnection() {
  if (!room.subscription) show();
}

/** Shows the state of the company that is shown. */
function show() {
  const { state, reason } = room.subscription?.status ?? client.status;
  if ($("link").dataset.state !== state) {
    $("link").dataset.state = state;
    $("state").textContent = STATES[state];
  }
  $("why").textContent = [STATES[state].toLowerCase(), DETAILS[reason] ?? reason].filter(Boolean).join(": ");
  $("transport").textContent = TRANSPORTS[client.transport] ?? "–";
  $("retry").hidden = !["waiting", "stopped", "idle"].includes(state);
  showPosition();
  if (state === "idle") showNoAccess(reason);
  else if (state === "live") setOverlay(false);
}

const TRANSPORTS = { websocket: "WebSocket", sse: "Server-sent events", poll: "Long polls" };

const DETAILS = { company_forbidden: "this user is not an employee of the company", revoked: "access was revoked" };

function showPosition() {
  const { position } = room;
  $("at").textContent = position ? `№ ${position.after}` : "";
  $("position").textContent = position ? `№ ${position.after}` : "–";
  $("epoch").textContent = position?.epoch ?? "–";
  $("received").textContent = `${room.received}, no gaps`;
}

// After access was lost there is no state to resume from.
$("retry").onclick = () => (room.subscription.status.state === "idle" ? follow() : client.reconnect());

$("offline").onclick = () => {
  offline = !offline;
  $("offline").setAttribute("aria-checked", String(offline));
  if (offline) {
    leave();
    show();
    addNote(`You are offline${room.position ? ` since № ${room.position.after}` : ""}. Other users are not.`);
  } else follow();
  showPosition();
};

$("block").onclick = () => {
  blocksWebSockets = !blocksWebSockets;
  $("block").setAttribute("aria-checked", String(blocksWebSockets));
  if (!offline) follow();
};

// -------------------------------------------------------------------- access

/** Hides everything of a company that the user may not see. */
function showNoAccess(reason) {
  const others = [...room.employees.values()].filter(({ UserId }) => UserId && UserId !== me);
  room.clear();
  draw();
  const { Name, UserId } = companies.find(({ CompanyId }) => CompanyId === company) ?? {};
  const other = others[0]?.UserId ?? UserId;
  const text = reason === "revoked"
    ? `${nameOf(me)} has just lost access to ${Name}: the row in employees was deleted, and no more messages are sent.`
    : `${nameOf(me)} is not an employee of ${Name} and receives none of its messages.`;
  const button = h("button", { type: "button", className: "first", onclick: () => switchUser(other) }, `Switch to ${nameOf(other)}`);
  $("overlay").replaceChildren(h("p", {}, text), other && other !== me ? button : "");
  setOverlay(true);
}

function setOverlay(on) {
  $("overlay").hidden = !on;
  $("grid").inert = on;
  for (const id of ["new", "new-person", "add", "shift", "cancel", "busy"]) $(id).disabled = on;
}

function switchUser(user) {
  me = user;
  sessionStorage.setItem("me", me);
  leave();
  // Another user may see other rows: all state is read again.
  for (const each of rooms.values()) each.resume = null;
  if (offline) $("offline").click();
  else follow();
}

$("me").onchange = () => switchUser($("me").value);

function switchCompany(id) {
  if (id === company) return;
  company = id;
  sessionStorage.setItem("company", id);
  room = rooms.get(id);
  room.unseen = 0;
  setZone();
  show();
  draw();
}

// -------------------------------------------------------------------- drawing

const calendar = new Calendar($("grid"), {
  open: (event) => openEvent(event),
  create: (starts, ends) => openNew(starts, ends),
  move: (event, by) => moveEvent(event, by),
  changed: () => {
    $("period").textContent = calendar.title;
    $("week").setAttribute("aria-pressed", String(calendar.view === "week"));
    $("month").setAttribute("aria-pressed", String(calendar.view === "month"));
  },
});

/** Ids to highlight at the next drawing; many messages cause one drawing. */
const highlighted = new Set();
let drawing = null;

function draw() {
  drawing ??= setTimeout(() => {
    drawing = null;
    calendar.draw(
      room.drawn.map((event) => ({
        ...event,
        hue: hue(event.OrganizerId),
        organizer: room.employees.get(event.OrganizerId)?.Name,
      })),
    );
    drawPeople();
    drawCompanies();
    showPosition();
    for (const id of highlighted) {
      calendar.highlight(id);
      const person = $("people").querySelector(`[data-id="${CSS.escape(id)}"]`);
      if (person) animateOnce(person, "lit");
    }
    highlighted.clear();
  }, 10);
}

function drawCompanies() {
  $("companies").replaceChildren(
    ...companies.map(({ CompanyId, Name }) => {
      const unseen = rooms.get(CompanyId)?.unseen ?? 0;
      const badge = unseen ? h("span", { className: "badge", "aria-hidden": "true" }, String(unseen)) : null;
      return h("button", { type: "button", "aria-pressed": String(CompanyId === company), onclick: () => switchCompany(CompanyId) }, Name, badge);
    }),
  );
  const name = companies.find(({ CompanyId }) => CompanyId === company)?.Name;
  document.title = name ? `${name} · Notifier` : "Notifier";
}

function drawPeople() {
  const list = [...room.employees.values()];
  $("people").replaceChildren(
    ...list.map((employee) =>
      h(
        "li",
        { "data-id": employee.EmployeeId },
        h(
          "button",
          { type: "button", onclick: () => openPerson(employee) },
          avatar(employee.Name, hue(employee.EmployeeId)),
          h("span", {}, employee.Name),
          h("small", {}, [employee.UserId === me ? "you" : null, employee.JobTitle, room.isPending(employee.EmployeeId) ? "pending" : null].filter(Boolean).join(", ")),
        ),
      ),
    ),
  );
  const users = new Map(list.filter(({ UserId }) => UserId).map(({ UserId, Name }) => [UserId, Name]));
  // Before the first state the employees are not known.
  const isRefused = list.length > 0 || room.subscription?.status.state === "idle";
  if (!users.has(me)) users.set(me, nameOf(me) + (isRefused ? " (no access)" : ""));
  const options = [...users].map(([user, name]) => h("option", { value: user, selected: user === me }, name));
  const select = $("me");
  if (document.activeElement !== select || select.options.length !== options.length) select.replaceChildren(...options);
}

function avatar(name, number) {
  const letters = name.split(/\s+/).map((word) => word[0]).slice(0, 2).join("").toUpperCase();
  return h("span", { className: `avatar hue-${number}`, "aria-hidden": "true" }, letters);
}

/** Each person has a colour; events without an organizer are grey. */
function hue(id, one = room) {
  const index = [...one.employees.keys()].indexOf(id);
  return index < 0 ? "none" : index % HUES;
}

function nameOf(id) {
  return names.get(id) ?? (id ? String(id) : "no one");
}

function actorName(actor) {
  if (!actor) return "A SQL client";
  return actor === me ? "You" : nameOf(actor);
}

// -------------------------------------------------------------------- the feed

function addEntry(one, message, late) {
  const { Actor, At, Position, Data } = message;
  const { action, subject, detail } = describe(message, zoneOf(one), nameOf);
  const actor = actorName(Actor);
  const colleague = [...one.employees.values()].find(({ UserId }) => UserId && UserId === Actor);
  const link = one.events.has(Data.EventId)
    ? h("button", { type: "button", className: "subject", onclick: () => reveal(one, Data.EventId) }, subject)
    : h("b", {}, subject);
  push(
    h(
      "li",
      { className: late ? "late" : "" },
      avatar(Actor ? nameOf(Actor) : "S Q", colleague ? hue(colleague.EmployeeId, one) : "none"),
      h(
        "div",
        {},
        h("p", {}, h("span", { className: "who" }, actor), ` ${action} `, link),
        detail ? h("p", { className: "detail" }, detail) : null,
        h(
          "p",
          { className: "when" },
          h("time", { dateTime: At }, format.seconds(zoneOf(one).wall(Date.parse(At)))),
          ` · № ${Position}`,
          place(one),
          late ? " · while you were offline" : "",
        ),
      ),
    ),
  );
  $("announcement").textContent = `${actor} ${action} ${subject}${place(one)}`;
}

/** Names a company that is not shown. */
function place(one) {
  return one === room ? "" : ` · ${companies.find(({ CompanyId }) => CompanyId === one.id)?.Name ?? ""}`;
}

function reveal(one, id) {
  switchCompany(one.id);
  if (one.events.has(id)) calendar.reveal(one.events.get(id));
}

function addNote(text, one = room) {
  const entry = h("li", { className: "note" }, h("p", {}, text, place(one)));
  push(entry);
  $("announcement").textContent = text;
  return entry;
}

function push(entry) {
  const feed = $("feed");
  $("empty").hidden = true;
  feed.prepend(entry);
  if (!prefersReducedMotion()) animateOnce(entry, "fresh");
  while (feed.children.length > FEED_LENGTH) feed.lastElementChild.remove();
}

// -------------------------------------------------------------------- writing

const eventForm = new Form($("event"), {
  async save(id, fields) {
    const day = fields.AllDay.checked;
    const starts = fromInput(fields.StartsAt.value);
    const ends = fromInput(fields.EndsAt.value) + (day ? DAY : 0);
    if (ends < starts) throw new Error("The event ends before it starts.");
    const values = {
      Title: fields.Title.value.trim(),
      AllDay: day,
      StartsAt: zone.instant(starts),
      EndsAt: zone.instant(ends),
      Location: fields.Location.value.trim() || null,
      OrganizerId: fields.OrganizerId.value || null,
      PrivateTo: fields.Private.checked ? people(fields.OrganizerId.value) : null,
      Description: fields.Description.value.trim() || null,
    };
    await write("events", id, values);
  },
  remove: (id) => write("events", id, null),
});

/** The users who see a private event: its organizer, and who has written it. */
function people(organizer) {
  return [...new Set([me, room.employees.get(organizer)?.UserId])].filter(Boolean);
}

const personForm = new Form($("person"), {
  async save(id, fields) {
    const values = { Name: fields.Name.value.trim(), JobTitle: fields.JobTitle.value.trim() || null };
    await write("employees", id, values);
  },
  remove: (id) => write("employees", id, null),
});

/** An own change: a new row without an id, a deletion without values. It is pending until it has arrived. */
async function write(table, id, values) {
  const one = room;
  let answer;
  if (!id) answer = await api.create(table, me, { CompanyId: one.id, ...values });
  else if (values) answer = await api.change(`${table}/${id}`, me, values);
  else answer = await api.remove(`${table}/${id}`, me);
  one.wrote(table, answer, JSON.parse(JSON.stringify(values)));
}

eventForm.fields.AllDay.onchange = () => setAllDay(eventForm.fields.AllDay.checked);

/** Switches the inputs between dates and times, and keeps the day. */
function setAllDay(day) {
  for (const field of [eventForm.fields.StartsAt, eventForm.fields.EndsAt]) {
    const was = field.value;
    field.type = day ? "date" : "datetime-local";
    if (was) field.value = day ? was.slice(0, 10) : was.length === 10 ? `${was}T${field.name === "StartsAt" ? "09:00" : "10:00"}` : was;
  }
}

function openEvent(event) {
  const starts = zone.wall(Date.parse(event.StartsAt));
  const ends = zone.wall(Date.parse(event.EndsAt));
  openForm(event.EventId, "Event", { ...event, starts, ends: event.AllDay ? Math.max(starts, ends - DAY) : ends });
}

function openNew(starts, ends) {
  const own = [...room.employees.values()].find(({ UserId }) => UserId === me);
  openForm(null, "New event", { Title: "", AllDay: false, starts, ends, Location: "", Description: "", OrganizerId: own?.EmployeeId });
}

function openForm(id, title, { starts, ends, ...event }) {
  const none = h("option", { value: "" }, "no one");
  eventForm.fields.OrganizerId.replaceChildren(none, ...[...room.employees.values()].map(({ EmployeeId, Name }) => h("option", { value: EmployeeId }, Name)));
  const length = event.AllDay ? 10 : 16;
  setAllDay(event.AllDay);
  const { Title, AllDay, Location, Description, OrganizerId } = event;
  const Private = Boolean(event.PrivateTo?.length);
  $("event").querySelector(".zone").textContent = `Time in ${zone.name.replace("_", " ")}`;
  eventForm.open(id, title, {
    Title, AllDay, Location, Description, OrganizerId, Private,
    StartsAt: toInput(starts).slice(0, length),
    EndsAt: toInput(ends).slice(0, length),
  });
}

function openPerson({ EmployeeId, Name, JobTitle }) {
  personForm.open(EmployeeId, Name, { Name, JobTitle });
}

/** Moves an event by a number of milliseconds of wall time. */
async function moveEvent(event, by) {
  const move = (moment) => zone.instant(zone.wall(Date.parse(moment)) + by);
  await attempt(() => write("events", event.EventId, { StartsAt: move(event.StartsAt), EndsAt: move(event.EndsAt) }));
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    addNote(error.message);
    draw();
  }
}

// What the simulated colleagues do.

const TITLES = ["Coffee", "Stand-up", "Review", "Lunch walk", "Interview", "Planning", "Retro", "Fitting", "Rehearsal", "Budget", "One to one", "Open house"];
const PLACES = ["Studio 1", "Roof", "Quiet room", "Front desk", "Pier 4", null];

const pick = (list) => list[Math.floor(Math.random() * list.length)];

function colleague() {
  const others = [...room.employees.values()].filter(({ UserId }) => UserId && UserId !== me);
  return pick(others) ?? { UserId: me };
}

/** A start for an event within the visible range, at a free time if one is found. */
function randomStart(length) {
  const [from, to] = calendar.range;
  const taken = visible().map(({ StartsAt, EndsAt }) => [StartsAt, EndsAt].map((at) => zone.wall(Date.parse(at))));
  let starts = from;
  for (let tries = 0; tries < 30; tries++) {
    const day = from + Math.floor((Math.random() * (to - from)) / DAY) * DAY;
    starts = day + (8 * 2 + Math.floor(Math.random() * 9 * 2)) * 30 * MINUTE;
    if (!taken.some((other) => other[0] < starts + length && starts < other[1])) break;
  }
  return starts;
}

function visible() {
  const [from, to] = calendar.range.map((wall) => zone.instant(wall).getTime());
  return [...room.events.values()].filter(({ StartsAt, AllDay }) => !AllDay && Date.parse(StartsAt) >= from && Date.parse(StartsAt) < to);
}

const WRITES = {
  add() {
    const length = pick([0.5, 1, 1, 1.5, 2]) * HOUR;
    const starts = randomStart(length);
    const { UserId, EmployeeId } = colleague();
    return api.create("events", UserId, {
      CompanyId: company,
      Title: pick(TITLES),
      Location: pick(PLACES),
      OrganizerId: EmployeeId ?? null,
      StartsAt: zone.instant(starts),
      EndsAt: zone.instant(starts + length),
    });
  },
  shift() {
    const event = pick(visible());
    if (!event) return WRITES.add();
    const starts = zone.wall(Date.parse(event.StartsAt));
    const by = randomStart(Date.parse(event.EndsAt) - Date.parse(event.StartsAt)) - starts;
    const move = (at) => zone.instant(zone.wall(Date.parse(at)) + by);
    return api.change(`events/${event.EventId}`, colleague().UserId, { StartsAt: move(event.StartsAt), EndsAt: move(event.EndsAt) });
  },
  cancel() {
    const event = pick(visible());
    return event ? api.remove(`events/${event.EventId}`, colleague().UserId) : WRITES.add();
  },
};

for (const [id, action] of Object.entries(WRITES)) $(id).onclick = () => attempt(action);

let busy = null;
$("busy").onclick = () => {
  clearInterval(busy);
  const start = $("busy").getAttribute("aria-pressed") !== "true";
  $("busy").setAttribute("aria-pressed", String(start));
  if (!start) return;
  let steps = 0;
  busy = setInterval(() => {
    const few = visible().length < 8;
    attempt(few ? WRITES.add : pick([WRITES.add, WRITES.shift, WRITES.shift, WRITES.shift, WRITES.cancel]));
    if (++steps === BUSY_STEPS) $("busy").click();
  }, BUSY_MS);
};

// -------------------------------------------------------------------- the toolbar

$("today").onclick = () => calendar.today();
$("back").onclick = () => calendar.step(-1);
$("on").onclick = () => calendar.step(1);
$("week").onclick = () => calendar.show("week");
$("month").onclick = () => calendar.show("month");
$("new").onclick = () => openNew(calendar.proposal, calendar.proposal + HOUR);
$("new-person").onclick = () => personForm.open(null, "Add a person", { Name: "", JobTitle: "" });
setInterval(() => calendar.now(), MINUTE);

// -------------------------------------------------------------------- the start

async function start() {
  companies = await api.companies();
  const wanted = parameters.get("company") ?? sessionStorage.getItem("company");
  company = (companies.find(({ CompanyId }) => CompanyId === wanted) ?? companies[0])?.CompanyId ?? null;
  for (const { CompanyId } of companies) rooms.set(CompanyId, new Room(CompanyId, draw));
  room = rooms.get(company) ?? room;
  setZone();
  draw();
  follow();
}

start().catch((error) => addNote(error.message));
