/**
 * The live page. It draws what the notifier says and nothing else: what is written here, too, is seen
 * only when it comes back as a message.
 */

import { connect } from "/client.js";

import * as api from "./api.js";
import { Calendar } from "./calendar.js";
import { calm, h, once } from "./dom.js";
import { Form } from "./form.js";
import { words } from "./words.js";
import { DAY, HOUR, MINUTE, Zone, fromInput, say, toInput } from "./zone.js";

const HUES = 8;
const FEED = 120;
const BUSY_STEPS = 24;
const BUSY_MS = 500;

const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

let companies = [];
let company = null;
let zone = new Zone("UTC");
let me = asked.get("user") ?? sessionStorage.getItem("me") ?? "ann";
const employees = new Map();
const events = new Map();
/** People of whom messages still speak when they are gone. */
const names = new Map();

let client = null;
let heard = 0;
/** Set while the switch is on: where to go on. */
let offline = null;
/** The entry that counts what was missed, and until when it was. */
let absence = null;

// -------------------------------------------------------------------- the connection

function follow(position = null) {
  client?.close();
  const url = new URL("/", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  client = connect({
    url: url.href,
    companyId: company,
    position,
    getToken: () => api.token(me),
    onMessage: hear,
    onRecovered: recovered,
    onResync: readState,
    onStatus: showStatus,
  });
}

async function readState({ companyId, reason, position, signal }) {
  const state = await api.state(companyId, signal);
  if (signal.aborted) return;
  take(state);
  draw();
  if (reason !== "start") note(`Read afresh at № ${position}: ${REASONS[reason] ?? reason}`);
}

const REASONS = {
  expired: "too much was missed to be told one by one",
  epoch: "the log has begun anew",
  gap: "something was missing",
  bulk: "a great many rows changed at once",
  truncate: "a table was emptied",
  overflow: "more was written than could be told",
};

function take(state) {
  companies = state.Companies;
  employees.clear();
  events.clear();
  for (const employee of state.Employees) employees.set(employee.EmployeeId, employee);
  for (const event of state.Events) events.set(event.EventId, event);
  for (const { UserId, EmployeeId, Name } of state.Employees) names.set(UserId, Name).set(EmployeeId, Name);
  setZone();
}

function setZone() {
  zone = new Zone(companies.find(({ CompanyId }) => CompanyId === company)?.TimeZone ?? "UTC");
  calendar.zone = zone;
}

function recovered({ position }) {
  const entry = note(`Back at № ${position}. Nothing was missed.`);
  absence = { entry, from: position + 1, until: Date.now() };
}

function hear(message) {
  heard++;
  const { Type, Data, Position } = message;
  if (Type.startsWith("Event")) changed(events, Data.EventId, message);
  else if (Type.startsWith("Employee")) {
    if (Data.Name) names.set(Data.UserId, Data.Name).set(Data.EmployeeId, Data.Name);
    changed(employees, Data.EmployeeId, message);
  } else if (Type === "CompanyUpdated") {
    companies = companies.map((each) => (each.CompanyId === Data.CompanyId ? { ...each, ...Data } : each));
    setZone();
  }

  const late = absence !== null && Date.parse(message.At) < absence.until;
  if (late) {
    const count = Position - absence.from + 1;
    absence.entry.querySelector("p").textContent =
      count === 1 ? `Back. One change was missed: it is here, № ${Position}.` : `Back. ${count} changes were missed: all are here, № ${absence.from} to ${Position}.`;
  } else absence = null;
  enter(message, late);
  draw();
}

/** Puts a row where it belongs, or takes it away, and remembers what to light. */
function changed(rows, id, { Type, Data, Partial, Actor }) {
  const gone = /Deleted$|Removed$/.test(Type);
  if (gone) rows.delete(id);
  else rows.set(id, Partial ? { ...rows.get(id), ...Data } : Data);
  if (gone && rows === events) calendar.fade(id);
  lit.add(id);
  for (const form of [eventForm, personForm]) {
    if (form.id !== id || Actor === me) continue;
    form.tell(gone ? `${actorName(Actor)} has just removed this.` : `${actorName(Actor)} has just changed this.`, gone);
  }
}

const STATES = { connecting: "Connecting", live: "Live", waiting: "Lost, trying again", idle: "No access", stopped: "Stopped", closed: "Offline" };

function showStatus({ state, reason }) {
  if ($("link").dataset.state !== state) {
    $("link").dataset.state = state;
    $("state").textContent = STATES[state];
  }
  $("why").textContent = [STATES[state].toLowerCase(), WHY[reason] ?? reason].filter(Boolean).join(": ");
  $("again").hidden = !["waiting", "stopped", "idle"].includes(state);
  showPosition();
  if (state === "idle") bar(reason);
  else if (state === "live") veil(false);
}

const WHY = { company_forbidden: "the company is not yours", revoked: "it was taken away" };

function showPosition() {
  const position = offline ?? client?.position;
  $("at").textContent = position?.epoch ? `№ ${position.after}` : "";
  $("position").textContent = position?.epoch ? `№ ${position.after}` : "–";
  $("epoch").textContent = position?.epoch ?? "–";
  $("heard").textContent = `${heard}, no gap`;
}

// Where access was lost there is no state to go on from.
$("again").onclick = () => (client.status.state === "idle" ? follow() : client.reconnect());

$("offline").onclick = () => {
  const on = !offline;
  $("offline").setAttribute("aria-checked", String(on));
  if (on) {
    offline = (client.status.state === "idle" ? null : client.position) ?? {};
    client.close();
    note(`You are offline${offline.after === undefined ? "" : ` since № ${offline.after}`}. The others go on.`);
  } else {
    const position = offline.epoch ? offline : null;
    offline = null;
    follow(position);
  }
  showPosition();
};

// -------------------------------------------------------------------- access

/** Nothing of a company is shown to someone who may not see it. */
function bar(reason) {
  const others = [...employees.values()].filter(({ UserId }) => UserId && UserId !== me);
  employees.clear();
  events.clear();
  draw();
  const { Name, UserId } = companies.find(({ CompanyId }) => CompanyId === company) ?? {};
  const other = others[0]?.UserId ?? UserId;
  const text = reason === "revoked"
    ? `${nameOf(me)} has just lost access to ${Name}: the row in employees is gone, and nothing more is sent.`
    : `${nameOf(me)} is not among the employees of ${Name}, and hears nothing of it.`;
  const button = h("button", { type: "button", className: "first", onclick: () => become(other) }, `Be ${nameOf(other)}`);
  $("veil").replaceChildren(h("p", {}, text), other && other !== me ? button : "");
  veil(true);
}

function veil(on) {
  $("veil").hidden = !on;
  $("grid").inert = on;
  for (const id of ["new", "welcome", "add", "shift", "cancel", "busy"]) $(id).disabled = on;
}

function become(user) {
  me = user;
  sessionStorage.setItem("me", me);
  if (offline) $("offline").click();
  else follow();
}

$("me").onchange = () => become($("me").value);

function enterCompany(id) {
  if (id === company) return;
  company = id;
  sessionStorage.setItem("company", id);
  absence = null;
  heard = 0;
  employees.clear();
  events.clear();
  $("feed").replaceChildren();
  $("empty").hidden = false;
  if (offline) {
    offline = {};
    $("offline").click();
  } else client.setCompany(id);
  setZone();
  draw();
}

// -------------------------------------------------------------------- what is drawn

const calendar = new Calendar($("grid"), {
  open: (event) => openEvent(event),
  create: (starts, ends) => openNew(starts, ends),
  move: (event, by) => moved(event, by),
  changed: () => {
    $("period").textContent = calendar.title;
    $("week").setAttribute("aria-pressed", String(calendar.view === "week"));
    $("month").setAttribute("aria-pressed", String(calendar.view === "month"));
  },
});

/** Ids to light at the next drawing; many messages make one drawing. */
const lit = new Set();
let due = null;

function draw() {
  due ??= setTimeout(() => {
    due = null;
    calendar.draw(
      [...events.values()].map((event) => ({
        ...event,
        hue: hue(event.OrganizerId),
        organizer: employees.get(event.OrganizerId)?.Name,
      })),
    );
    drawPeople();
    drawCompanies();
    showPosition();
    for (const id of lit) {
      calendar.light(id);
      const person = $("people").querySelector(`[data-id="${CSS.escape(id)}"]`);
      if (person) once(person, "lit");
    }
    lit.clear();
  }, 10);
}

function drawCompanies() {
  $("companies").replaceChildren(
    ...companies.map(({ CompanyId, Name }) =>
      h("button", { type: "button", "aria-pressed": String(CompanyId === company), onclick: () => enterCompany(CompanyId) }, Name),
    ),
  );
  const name = companies.find(({ CompanyId }) => CompanyId === company)?.Name;
  document.title = name ? `${name} · Notifier` : "Notifier";
}

function drawPeople() {
  const list = [...employees.values()];
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
          h("small", {}, [employee.UserId === me ? "you" : null, employee.JobTitle].filter(Boolean).join(", ")),
        ),
      ),
    ),
  );
  const users = new Map(list.filter(({ UserId }) => UserId).map(({ UserId, Name }) => [UserId, Name]));
  if (!users.has(me)) users.set(me, `${nameOf(me)} (no access)`);
  const options = [...users].map(([user, name]) => h("option", { value: user, selected: user === me }, name));
  const select = $("me");
  if (document.activeElement !== select || select.options.length !== options.length) select.replaceChildren(...options);
}

function avatar(name, number) {
  const letters = name.split(/\s+/).map((word) => word[0]).slice(0, 2).join("").toUpperCase();
  return h("span", { className: `avatar hue-${number}`, "aria-hidden": "true" }, letters);
}

/** Each person has a colour; who is nobody's is grey. */
function hue(id) {
  const index = [...employees.keys()].indexOf(id);
  return index < 0 ? "none" : index % HUES;
}

function nameOf(id) {
  return names.get(id) ?? (id ? String(id) : "nobody");
}

function actorName(actor) {
  if (!actor) return "Somebody, in plain SQL,";
  return actor === me ? "You" : nameOf(actor);
}

// -------------------------------------------------------------------- the feed

function enter(message, late) {
  const { Actor, At, Position, Data } = message;
  const { did, what, detail } = words(message, zone, nameOf);
  const who = actorName(Actor);
  const actor = [...employees.values()].find(({ UserId }) => UserId && UserId === Actor);
  const subject = events.has(Data.EventId)
    ? h("button", { type: "button", className: "subject", onclick: () => events.has(Data.EventId) && calendar.reveal(events.get(Data.EventId)) }, what)
    : h("b", {}, what);
  push(
    h(
      "li",
      { className: late ? "late" : "" },
      avatar(Actor ? nameOf(Actor) : "S Q", actor ? hue(actor.EmployeeId) : "none"),
      h(
        "div",
        {},
        h("p", {}, h("span", { className: "who" }, who), ` ${did} `, subject),
        detail ? h("p", { className: "detail" }, detail) : null,
        h("p", { className: "when" }, h("time", { dateTime: At }, say.seconds(zone.wall(Date.parse(At)))), ` · № ${Position}`, late ? " · while you were away" : ""),
      ),
    ),
  );
  $("said").textContent = `${who} ${did} ${what}`;
}

function note(text) {
  const entry = h("li", { className: "note" }, h("p", {}, text));
  push(entry);
  $("said").textContent = text;
  return entry;
}

function push(entry) {
  const feed = $("feed");
  $("empty").hidden = true;
  feed.prepend(entry);
  if (!calm()) once(entry, "fresh");
  while (feed.children.length > FEED) feed.lastElementChild.remove();
}

// -------------------------------------------------------------------- what is written

const eventForm = new Form($("event"), {
  async save(id, fields) {
    const day = fields.AllDay.checked;
    const starts = fromInput(fields.StartsAt.value);
    const ends = fromInput(fields.EndsAt.value) + (day ? DAY : 0);
    if (ends < starts) throw new Error("It ends before it begins.");
    const values = {
      Title: fields.Title.value.trim(),
      AllDay: day,
      StartsAt: zone.instant(starts),
      EndsAt: zone.instant(ends),
      Location: fields.Location.value.trim() || null,
      OrganizerId: fields.OrganizerId.value || null,
      Description: fields.Description.value.trim() || null,
    };
    if (id) await api.change(`events/${id}`, me, values);
    else await api.create("events", me, { CompanyId: company, ...values });
  },
  remove: (id) => api.remove(`events/${id}`, me),
});

const personForm = new Form($("person"), {
  async save(id, fields) {
    const values = { Name: fields.Name.value.trim(), JobTitle: fields.JobTitle.value.trim() || null };
    if (id) await api.change(`employees/${id}`, me, values);
    else await api.create("employees", me, { CompanyId: company, ...values });
  },
  remove: (id) => api.remove(`employees/${id}`, me),
});

eventForm.fields.AllDay.onchange = () => allDay(eventForm.fields.AllDay.checked);

/** Days or moments: the inputs change their type and keep the day. */
function allDay(day) {
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
  const own = [...employees.values()].find(({ UserId }) => UserId === me);
  openForm(null, "New event", { Title: "", AllDay: false, starts, ends, Location: "", Description: "", OrganizerId: own?.EmployeeId });
}

function openForm(id, title, { starts, ends, ...event }) {
  const nobody = h("option", { value: "" }, "nobody");
  eventForm.fields.OrganizerId.replaceChildren(nobody, ...[...employees.values()].map(({ EmployeeId, Name }) => h("option", { value: EmployeeId }, Name)));
  const length = event.AllDay ? 10 : 16;
  allDay(event.AllDay);
  const { Title, AllDay, Location, Description, OrganizerId } = event;
  $("event").querySelector(".zone").textContent = `Time in ${zone.name.replace("_", " ")}`;
  eventForm.open(id, title, {
    Title, AllDay, Location, Description, OrganizerId,
    StartsAt: toInput(starts).slice(0, length),
    EndsAt: toInput(ends).slice(0, length),
  });
}

function openPerson({ EmployeeId, Name, JobTitle }) {
  personForm.open(EmployeeId, Name, { Name, JobTitle });
}

/** Later or earlier by so much on the wall's clock. */
async function moved(event, by) {
  const move = (moment) => zone.instant(zone.wall(Date.parse(moment)) + by);
  await attempt(() => api.change(`events/${event.EventId}`, me, { StartsAt: move(event.StartsAt), EndsAt: move(event.EndsAt) }));
  if (client.status.state !== "live") draw(); // it is heard of later
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    note(error.message);
    draw();
  }
}

// What colleagues do when they are let.

const TITLES = ["Coffee", "Stand-up", "Review", "Lunch walk", "Interview", "Planning", "Retro", "Fitting", "Rehearsal", "Budget", "One to one", "Open house"];
const PLACES = ["Studio 1", "Roof", "Quiet room", "Front desk", "Pier 4", null];

const any = (list) => list[Math.floor(Math.random() * list.length)];

function colleague() {
  const others = [...employees.values()].filter(({ UserId }) => UserId && UserId !== me);
  return any(others) ?? { UserId: me };
}

/** The beginning of some hours within what is shown, free if there are any. */
function moment(length) {
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
  return [...events.values()].filter(({ StartsAt, AllDay }) => !AllDay && Date.parse(StartsAt) >= from && Date.parse(StartsAt) < to);
}

const WRITES = {
  add() {
    const length = any([0.5, 1, 1, 1.5, 2]) * HOUR;
    const starts = moment(length);
    const { UserId, EmployeeId } = colleague();
    return api.create("events", UserId, {
      CompanyId: company,
      Title: any(TITLES),
      Location: any(PLACES),
      OrganizerId: EmployeeId ?? null,
      StartsAt: zone.instant(starts),
      EndsAt: zone.instant(starts + length),
    });
  },
  shift() {
    const event = any(visible());
    if (!event) return WRITES.add();
    const starts = zone.wall(Date.parse(event.StartsAt));
    const by = moment(Date.parse(event.EndsAt) - Date.parse(event.StartsAt)) - starts;
    const move = (at) => zone.instant(zone.wall(Date.parse(at)) + by);
    return api.change(`events/${event.EventId}`, colleague().UserId, { StartsAt: move(event.StartsAt), EndsAt: move(event.EndsAt) });
  },
  cancel() {
    const event = any(visible());
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
    attempt(few ? WRITES.add : any([WRITES.add, WRITES.shift, WRITES.shift, WRITES.shift, WRITES.cancel]));
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
$("welcome").onclick = () => personForm.open(null, "Add a person", { Name: "", JobTitle: "" });
setInterval(() => calendar.now(), MINUTE);

// -------------------------------------------------------------------- the beginning

async function begin() {
  ({ Companies: companies } = await api.state(null));
  const wanted = asked.get("company") ?? sessionStorage.getItem("company");
  company = (companies.find(({ CompanyId }) => CompanyId === wanted) ?? companies[0])?.CompanyId ?? null;
  setZone();
  draw();
  follow();
}

begin().catch((error) => note(error.message));
