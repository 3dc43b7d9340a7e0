"""`notifier why`: prepared situations of "I did not receive it", each explained by one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from notifier.database import sql
from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from notifier.why import rows
from notifier.why.explanation import explain
from notifier.why.question import Explanation, Question
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, new_company, new_event
from tests.services import SECRET, run
from tests.waiting import until

SECRET_TITLE = "a title that no explanation contains"
XID = "SELECT pg_current_xact_id()::text::bigint"


class World:
    """A database with a relay, an application that writes, and a user u1 of `company`."""

    def __init__(self, database: Database, app: Connection, relay: Relayed, company: str) -> None:
        self.database, self.app, self.relay, self.company = database, app, relay, company

    async def event(self, company: str | None = None) -> str:
        """Inserts an event, and waits until its message is stored."""
        event = await new_event(self.app, company or self.company, SECRET_TITLE)
        await self.relay.settled()
        return event

    async def tx(self, *statements: str, rollback: bool = False) -> int:
        """Runs statements in a transaction, waits for the relay; returns the transaction's number."""
        transaction = self.app.transaction()
        await transaction.start()
        xid: int = await self.app.fetchval(XID)
        for statement in statements:
            await self.app.execute(statement)
        await (transaction.rollback() if rollback else transaction.commit())
        await self.relay.settled()
        return xid

    async def position(self, event: str) -> int:
        """The position of the last message about an event."""
        position: int = await self.database.fetchval(
            "SELECT max(position) FROM notifier.messages WHERE strpos(body::text, $1) > 0", event
        )
        return position

    async def why(self, **question: Any) -> Explanation:
        """The explanation, which must not contain a value of a row."""
        settings = load({}, database_url=self.database.dsn, jwt_secret=SECRET)
        wanted = Question(**{"company": self.company, **question})
        explanation = await explain(settings, wanted)
        assert SECRET_TITLE not in "\n".join([*explanation.facts, str(explanation.answer)])
        return explanation


@pytest.fixture
async def world(database: Database, app: Connection, relay: Relayed) -> World:
    company = await new_company(app)
    world = World(database, app, relay, company)
    await app.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Ada')", company
    )
    await relay.settled()
    return world


Case: TypeAlias = Callable[[World], Awaitable[dict[str, Any]]]
"""Prepares a situation; returns the question."""

CASES: dict[str, tuple[str, Case]] = {}


def case(answer: str) -> Callable[[Case], Case]:
    """A situation whose answer contains that text."""

    def add(prepare: Case) -> Case:
        CASES[prepare.__name__] = (answer, prepare)
        return prepare

    return add


@case("delivered as EventCreated at position")
async def a_row_that_was_delivered(world: World) -> dict[str, Any]:
    return {"table": "events", "key": await world.event()}


@case("every client of user u1 that follows the company without a filter received it")
async def a_row_that_its_user_may_see(world: World) -> dict[str, Any]:
    return {"table": "Event", "key": await world.event(), "user": "u1"}


@case("delivered as EventUpdated at position")
async def a_transaction_that_was_delivered(world: World) -> dict[str, Any]:
    event = await world.event()
    return {"tx": await world.tx(f"UPDATE events SET title = 'x' WHERE id = '{event}'")}


@case("delivered as EventCreated at position 2")
async def a_position_that_was_delivered(world: World) -> dict[str, Any]:
    return {"position": await world.position(await world.event())}


@case("was not given out yet")
async def a_position_in_the_future(world: World) -> dict[str, Any]:
    return {"position": 4711}


@case("beyond the retention")
async def a_position_that_was_pruned(world: World) -> dict[str, Any]:
    position = await world.position(await world.event())
    await world.event()
    await world.relay.stop()
    await world.database.execute(
        "INSERT INTO notifier.positions (company, position) VALUES ($1, $2) ON CONFLICT (company)"
        " DO UPDATE SET position = excluded.position",
        world.company,
        position,
    )
    await world.database.execute(
        "DELETE FROM notifier.messages WHERE company = $1 AND position <= $2",
        world.company,
        position,
    )
    return {"position": position}


@case("is not watched: add a [[watch]]")
async def a_table_that_is_not_watched(world: World) -> dict[str, Any]:
    await world.database.execute("CREATE TABLE rooms (id int PRIMARY KEY, company_id uuid)")
    return {"table": "rooms", "key": "1"}


@case("there is no table eventz")
async def a_table_that_does_not_exist(world: World) -> dict[str, Any]:
    return {"table": "eventz", "key": "1"}


@case("not captured: trigger notifier_capture on public.events is disabled")
async def a_trigger_that_was_disabled(world: World) -> dict[str, Any]:
    await world.database.execute("ALTER TABLE events DISABLE TRIGGER notifier_capture")
    return {"table": "events", "key": await world.event()}


@case("not captured: trigger notifier_capture on public.events is missing")
async def a_trigger_that_was_dropped(world: World) -> dict[str, Any]:
    await world.database.execute("DROP TRIGGER notifier_capture ON events")
    return {"table": "events", "key": await world.event()}


@case("netted away")
async def a_row_inserted_and_deleted_in_one_transaction(world: World) -> dict[str, Any]:
    key = uuid4()
    return {
        "tx": await world.tx(
            "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
            f" VALUES ('{key}', '{world.company}', 'x', now(), now())",
            f"DELETE FROM events WHERE id = '{key}'",
        )
    }


@case("netted away")
async def the_same_by_its_key(world: World) -> dict[str, Any]:
    key = uuid4()
    await world.tx(
        "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
        f" VALUES ('{key}', '{world.company}', 'x', now(), now())",
        f"DELETE FROM events WHERE id = '{key}'",
    )
    return {"table": "events", "key": str(key)}


@case("nothing of it was captured")
async def an_update_that_changes_nothing(world: World) -> dict[str, Any]:
    event = await world.event()
    return {"tx": await world.tx(f"UPDATE events SET title = title WHERE id = '{event}'")}


@case("was rolled back")
async def a_transaction_that_was_rolled_back(world: World) -> dict[str, Any]:
    event = await world.event()
    statement = f"UPDATE events SET title = 'x' WHERE id = '{event}'"
    return {"tx": await world.tx(statement, rollback=True)}


@case("is still running")
async def a_transaction_that_is_open(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.app.execute("BEGIN")
    await world.app.execute("UPDATE events SET title = 'x' WHERE id = $1", event)
    return {"tx": await world.app.fetchval(XID)}


@case("no transaction has the number")
async def a_transaction_that_has_not_begun(world: World) -> dict[str, Any]:
    return {"tx": 10**15}


@case("not relayed yet: it waits since")
async def a_change_that_no_node_relays(world: World) -> dict[str, Any]:
    await world.relay.stop()
    return {"table": "events", "key": await new_event(world.app, world.company)}


@case("not relayed yet: it waits since")
async def a_deletion_that_no_node_relays(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.relay.stop()
    await world.app.execute("DELETE FROM events WHERE id = $1", event)
    return {"table": "events", "key": event}


@case("and no node relays; start: notifier serve")
async def a_transaction_that_no_node_relays(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.relay.stop()
    async with world.app.transaction():
        xid = await world.app.fetchval(XID)
        await world.app.execute("UPDATE events SET title = 'x' WHERE id = $1", event)
    return {"tx": xid}


@case("it is behind Resync (bulk) at position")
async def a_bulk_change(world: World) -> dict[str, Any]:
    return {
        "tx": await world.tx(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            f" SELECT '{world.company}', 'x', now(), now() FROM generate_series(1, 1001)"
        )
    }


@case("leave it uncertain whether a row is there")
async def a_deletion_that_may_be_of_a_row_that_was_there_before(world: World) -> dict[str, Any]:
    event = uuid4()
    return {
        "tx": await world.tx(
            "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
            f" VALUES ('{event}', '{world.company}', 'x', now(), now())",
            f"UPDATE events SET title = repeat('x', 3000000) WHERE id = '{event}'",
            f"DELETE FROM events WHERE id = '{event}'",
        )
    }


@case("it is behind Resync (truncate) at position")
async def a_table_that_was_truncated(world: World) -> dict[str, Any]:
    return {"tx": await world.tx("TRUNCATE events")}


@case("it changed rows of other companies only")
async def a_change_of_another_company(world: World) -> dict[str, Any]:
    other = await new_company(world.app)
    event = await world.event(other)
    return {"tx": await world.tx(f"UPDATE events SET title = 'x' WHERE id = '{event}'")}


@case("the row belongs to another company")
async def a_row_of_another_company(world: World) -> dict[str, Any]:
    return {"table": "events", "key": await world.event(await new_company(world.app))}


@case("delivered as EventDeleted at position")
async def a_row_that_has_moved_away(world: World) -> dict[str, Any]:
    event = await world.event()
    other = await new_company(world.app)
    await world.tx(f"UPDATE events SET company_id = '{other}' WHERE id = '{event}'")
    return {"table": "events", "key": event}


@case("no message is configured for it: a created Company sends none")
async def an_inserted_company(world: World) -> dict[str, Any]:
    company = await new_company(world.app)
    await world.relay.settled()
    return {"company": company, "table": "companies", "key": company}


@case("no row of public.employees gives this user access")
async def a_user_who_is_no_member(world: World) -> dict[str, Any]:
    return {"user": "u2"}


@case("access was lost with position 2")
async def a_user_who_was_removed_before(world: World) -> dict[str, Any]:
    await world.tx("DELETE FROM employees WHERE user_id = 'u1'")
    return {"table": "events", "key": await world.event(), "user": "u1"}


@case("user u1 lost access with position 3, behind it")
async def a_user_who_was_removed_after(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.tx("DELETE FROM employees WHERE user_id = 'u1'")
    return {"table": "events", "key": event, "user": "u1"}


@case("user u2 got access with position 3 only")
async def a_user_who_was_added_after(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.tx(
        f"INSERT INTO employees (company_id, user_id, name) VALUES ('{world.company}', 'u2', 'Bob')"
    )
    return {"table": "events", "key": event, "user": "u2"}


@case("the row is gone and its deletion was not captured")
async def a_row_deleted_by_a_replica_session(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.database.execute(
        f"SET session_replication_role = replica; DELETE FROM events WHERE id = '{event}';"
        " RESET session_replication_role"
    )
    return {"table": "events", "key": event}


@case("the log is full")
async def a_change_that_a_full_log_dropped(world: World) -> dict[str, Any]:
    await world.relay.stop()
    await world.database.execute(
        "SELECT setval('notifier.change_ids', (1::bigint << 62) + last_value) FROM notifier.change_ids"
    )
    return {"table": "events", "key": await new_event(world.app, world.company)}


@case("it is behind Resync (epoch) at position 1")
async def a_change_before_a_new_epoch(world: World) -> dict[str, Any]:
    event = await world.event()
    xid = await world.tx(f"UPDATE events SET title = 'x' WHERE id = '{event}'")
    await world.relay.stop()
    await world.database.execute("UPDATE notifier.log SET saved_by = '0'")
    await world.database.execute("TRUNCATE notifier.changes_0, notifier.changes_1")
    await world.relay.start()
    await world.event()
    return {"tx": xid}


@case("delivered as EventCreated at position")
async def an_id_of_a_company_in_capitals(world: World) -> dict[str, Any]:
    return {"company": world.company.upper(), "table": "events", "key": await world.event()}


@case("no row of public.employees gives this user access")
async def a_name_in_the_place_of_the_companys_id(world: World) -> dict[str, Any]:
    return {"company": "Acme", "user": "u1"}


@case("the row belongs to another company")
async def a_row_under_a_companys_name(world: World) -> dict[str, Any]:
    return {"company": "Acme", "table": "events", "key": await world.event()}


@case("not captured: no trigger fired when transaction")
async def a_row_inserted_by_a_replica_session(world: World) -> dict[str, Any]:
    key = uuid4()
    await world.database.execute(
        "SET session_replication_role = replica;"
        "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
        f" VALUES ('{key}', '{world.company}', '{SECRET_TITLE}', now(), now());"
        " RESET session_replication_role"
    )
    return {"table": "events", "key": str(key)}


@case("not captured: no trigger fired when transaction")
async def a_row_of_the_time_when_the_trigger_was_disabled(world: World) -> dict[str, Any]:
    await world.relay.stop()  # it would send a Resync sooner or later, which is another answer
    await world.database.execute("ALTER TABLE events DISABLE TRIGGER notifier_capture")
    event = await new_event(world.app, world.company)
    await world.database.execute("ALTER TABLE events ENABLE ALWAYS TRIGGER notifier_capture")
    await migrate(world.database.dsn)
    return {"table": "events", "key": event}


@case("delivered as EventDeleted at position 3, the last of 2 messages")
async def a_row_that_was_deleted(world: World) -> dict[str, Any]:
    event = await world.event()
    await world.tx(f"DELETE FROM events WHERE id = '{event}'")
    return {"table": "events", "key": event}


@case("delivered as EventUpdated at position 3 with its keys only")
async def a_row_that_is_too_large_for_a_message(world: World) -> dict[str, Any]:
    event = await world.event()
    return {
        "tx": await world.tx(
            f"UPDATE events SET description = repeat('x', 300000) WHERE id = '{event}'"
        )
    }


@case("access was lost with EmployeeUpdated at position 2")
async def a_member_whose_row_names_another_user_now(world: World) -> dict[str, Any]:
    await world.tx("UPDATE employees SET user_id = 'u9' WHERE user_id = 'u1'")
    return {"user": "u1"}


ROLE = """
DO $$ BEGIN
    CREATE ROLE app LOGIN PASSWORD 'app';
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;
"""
TABLES = """
CREATE TABLE members (team int, login text, active boolean, left_at timestamptz, PRIMARY KEY (team, login));
CREATE TABLE notes (id int, team int, PRIMARY KEY (id, team)) PARTITION BY LIST (team);
CREATE TABLE old_notes (id int NOT NULL, team int NOT NULL);
INSERT INTO old_notes VALUES (1, 7);
CREATE TABLE tasks (id int PRIMARY KEY, team int, name text, secret text, done_at timestamptz);
CREATE TABLE seats (task int, seat text, team int, PRIMARY KEY (task, seat));
GRANT SELECT, INSERT, UPDATE, DELETE ON members, tasks, seats TO app;
INSERT INTO members VALUES (7, 'ada', true, NULL), (7, 'bob', false, NULL), (7, 'cyd', true, now())
"""
WATCHES = (
    Watch(
        table="members",
        entity="Member",
        key=("team", "login"),
        company="team",
        member="login",
        member_if={"active": True},
        deleted_if="left_at",
    ),
    Watch(table="notes", entity="Note", key=("id", "team"), company="team"),
    Watch(table="tasks", entity="Task", company="team", exclude=("secret",), deleted_if="done_at"),
    Watch(table="seats", entity="Seat", key=("task", "seat"), company="team"),
)


async def test_keys_of_several_columns_soft_deletions_and_ids_that_are_integers(
    empty: Database,
) -> None:
    """Everything that differs from the calendar, on one database."""
    database = empty
    await database.execute(ROLE + TABLES)
    await migrate(database.dsn, watches=WATCHES)
    relay = Relayed(database)
    await relay.start()
    try:
        world = World(database, await database.connect(app=True), relay, "7")

        async def settle(*statements: str) -> int:
            xid = 0
            for statement in statements:
                async with world.app.transaction():
                    xid = await world.app.fetchval(XID)
                    await world.app.execute(statement)
            await stored(database, xid)
            return xid

        await settle(
            "INSERT INTO tasks VALUES (1, 7, 'a', 's'), (2, NULL, 'b', 's')",
            "INSERT INTO tasks VALUES (11, 7, 'a', '1')",
            "INSERT INTO tasks VALUES (3, 7, 'c', 's', now())",
            "INSERT INTO seats VALUES (1, 'A\"ü', 7)",
        )
        seat = await world.why(table="seats", key='[1, "A\\"ü"]')
        assert seat.answer == "delivered as SeatCreated at position 3"
        assert (await world.why(table="seats", key='["1", "B"]')).is_found
        assert "has no company" in str((await world.why(table="tasks", key="2")).answer)
        assert "counts as deleted" in str((await world.why(table="tasks", key="3")).answer)
        assert "no such row was committed" in str((await world.why(table="tasks", key="9")).answer)
        not_a_key = await world.why(table="tasks", key="x")
        assert any("this is no key" in fact for fact in not_a_key.facts)
        excluded = await settle("UPDATE tasks SET secret = 't' WHERE id = 1")
        assert "excluded columns" in str((await world.why(tx=excluded)).answer)
        by_key = await world.why(table="tasks", key="1")
        assert by_key.answer == "delivered as TaskCreated at position 1"
        assert any("or it is the number of a savepoint" in fact for fact in by_key.facts)
        assert "without leading zeros" in str((await world.why(company="07")).answer)
        assert (await world.why(user="ada")).answer == "user ada: may see the company now"
        for user in ("bob", "cyd"):
            one = await world.why(user=user)
            assert "no row of public.members (with member_if and deleted_if) gives" in str(
                one.answer
            )
        await database.execute("ALTER TABLE notes ATTACH PARTITION old_notes FOR VALUES IN (7)")
        attached = await world.why(table="notes", key="[1, 7]")
        assert "or it came with an attached partition" in str(attached.answer)
        for key in ("[1", "[1]"):
            with pytest.raises(SettingsError, match="--key"):
                await world.why(table="seats", key=key)
    finally:
        await relay.stop()


async def stored(database: Database, xid: int) -> None:
    """Returns when the relay has read a transaction."""

    async def read() -> bool:
        states = await database.fetch(sql.query("transaction_states"), [xid])
        return bool(states[0]["state"] == "stored")

    await until(read)


SHARED = (
    Watch(table="bookings", entity="Booking", company="team", scope="team"),
    Watch(table="bookings", entity="Appointment", key="no", company="owner", scope="user"),
)


async def test_several_watches_of_one_table_and_scopes(empty: Database) -> None:
    database = empty
    await database.execute(
        f"{ROLE} CREATE TABLE bookings (id int PRIMARY KEY, no int NOT NULL UNIQUE, team int, owner text);"
        " GRANT ALL ON bookings TO PUBLIC"
    )
    await migrate(database.dsn, watches=SHARED)
    relay = Relayed(database)
    await relay.start()
    try:
        app = await database.connect(app=True)
        await app.execute("INSERT INTO bookings VALUES (1, 1, 7, 'ada')")
        xid = await app.fetchval("SELECT xmin::text::bigint FROM bookings")
        await stored(database, xid)
    finally:
        await relay.stop()

    async def answer(**question: Any) -> str:
        settings = load({}, database_url=database.dsn, jwt_secret=SECRET)
        return str((await explain(settings, Question(**question))).answer)

    team, user = {"company": "team:7"}, {"company": "user:ada"}
    assert (
        await answer(**team, table="bookings", key="1")
        == "delivered as BookingCreated at position 1"
    )
    assert (
        await answer(**team, table="Booking", key="1")
        == "delivered as BookingCreated at position 1"
    )
    assert await answer(**user, table="Appointment", key="1") == (
        "delivered as AppointmentCreated at position 1"
    )
    assert await answer(company="team:8", table="Booking", key="1") == (
        "the row belongs to another company"
    )
    assert (
        await answer(company="7", table="Booking", key="1") == "the row belongs to another company"
    )
    await app.execute("DELETE FROM bookings")
    assert "not relayed yet" in await answer(**user, table="Appointment", key="1")
    assert "not relayed yet" in await answer(**team, table="Booking", key="1")
    await app.execute("INSERT INTO bookings VALUES (1, 1, 7, 'ada')")
    await database.execute(
        "DELETE FROM notifier.messages; DELETE FROM notifier.changes_0; DELETE FROM notifier.changes_1"
    )
    for company in (team, user):
        assert "another company" not in await answer(**company, table="bookings", key="1")


async def test_a_path_is_explained_step_by_step_without_its_values(empty: Database) -> None:
    database = empty
    await database.execute(
        f"""
        {ROLE}
        CREATE TABLE orgs (id int PRIMARY KEY, slug text);
        CREATE TABLE projects (id int PRIMARY KEY, org int REFERENCES orgs);
        CREATE TABLE tasks (id int PRIMARY KEY, project int REFERENCES projects, owner int);
        GRANT ALL ON orgs, projects, tasks TO PUBLIC;
        INSERT INTO orgs VALUES (1, '{SECRET_TITLE}'), (2, NULL);
        INSERT INTO projects VALUES (1, 1), (2, 2), (3, NULL)
        """
    )
    task = Watch(table="tasks", entity="Task", company="project -> projects.org -> orgs.slug")
    await migrate(database.dsn, watches=[task])
    app = await database.connect(app=True)
    await app.execute("INSERT INTO tasks VALUES (1, 1), (2, 2), (3, 3), (4, NULL)")

    async def explained(key: str, company: str = "other") -> Explanation:
        settings = load({}, database_url=database.dsn, jwt_secret=SECRET)
        question = Question(company=company, table="tasks", key=key)
        explanation = await explain(settings, question)
        assert SECRET_TITLE not in "\n".join([*explanation.facts[1:], str(explanation.answer)])
        return explanation

    relay = Relayed(database)
    await relay.start()
    await stored(database, await app.fetchval("SELECT max(xmin::text::bigint) FROM tasks"))
    await relay.stop()
    path = "company project -> projects.org -> orgs.slug: project"
    through = f"{path} leads to a row of public.projects; public.projects.org"
    for key, line in {
        "1": f"{through} leads to a row of public.orgs; public.orgs.slug names a company",
        "2": f"{through} leads to a row of public.orgs; public.orgs.slug is null: the row has no company",
        "3": f"{through} is null: the row has no company",
        "4": f"{path} is null: the row has no company",
    }.items():
        explanation = await explained(key)
        assert line in explanation.facts
        belongs = "belongs to another company" if key == "1" else "has no company"
        assert explanation.answer == f"the row {belongs}"
    assert (await explained("1", SECRET_TITLE)).answer == "delivered as TaskCreated at position 1"
    await database.execute("ALTER TABLE orgs RENAME slug TO name")
    assert "orgs has no column slug" in "; ".join((await explained("1")).facts)


@pytest.mark.parametrize(
    ("xid", "near", "whole"),
    [
        (800, 900, 800),
        (950, 900, 950),
        (5, (7 << 32) + 10, (7 << 32) + 5),
        ((1 << 32) - 5, (7 << 32) + 10, (7 << 32) - 5),
        (5, (8 << 32) - 10, (8 << 32) + 5),
        ((1 << 32) - 5, 10, (1 << 32) - 5),
    ],
)
def test_the_number_of_a_rows_transaction_is_completed(xid: int, near: int, whole: int) -> None:
    assert rows.completed(xid, near) == whole


async def test_a_savepoint_hides_no_message(world: World) -> None:
    key = str(uuid4())
    async with world.app.transaction():
        await world.app.execute("SELECT pg_current_xact_id()")
        async with world.app.transaction():
            await world.app.execute(
                "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
                " VALUES ($1, $2, 'x', now(), now())",
                key,
                world.company,
            )
    await world.relay.settled()
    explanation = await world.why(table="events", key=key)
    assert explanation.answer == "delivered as EventCreated at position 2"


async def test_a_row_that_waits_for_an_open_transaction(world: World) -> None:
    event = await world.event()
    other = await world.database.connect(app=True)
    await other.execute("BEGIN")
    await other.execute("UPDATE events SET title = 'y' WHERE id = $1", event)
    explanation = await world.why(table="events", key=event)
    assert any("changes or locks it now" in fact for fact in explanation.facts)
    await other.execute("ROLLBACK")


async def test_the_token_decides_where_authorization_is_by_claim(world: World) -> None:
    settings = load({}, database_url=world.database.dsn, jwt_secret=SECRET, authorization="claim")
    explanation = await explain(settings, Question(company=world.company, user="u1", position=1))
    assert "every client whose token names the company" in str(explanation.answer)


async def test_a_view_in_the_place_of_a_table_is_not_read(world: World) -> None:
    await world.event()
    await world.database.execute(
        "CREATE TABLE traces (called text);"
        " CREATE FUNCTION trace() RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO traces VALUES ('by a view'); RETURN NULL; END $$;"
        " ALTER TABLE events RENAME TO old_events;"
        " CREATE VIEW events AS SELECT trace() AS id, NULL::uuid AS company_id, NULL::text AS title"
    )
    explanation = await world.why(table="events", key=str(uuid4()))
    assert any("is no table with a column id" in fact for fact in explanation.facts)
    assert await world.database.fetchval("SELECT count(*) FROM traces") == 0


async def test_user_query_maps_the_user_of_a_token(world: World) -> None:
    await world.database.execute(
        "CREATE TABLE accounts (login text, id text); INSERT INTO accounts VALUES ('auth0|7', 'u1')"
    )
    settings = load(
        {},
        database_url=world.database.dsn,
        jwt_secret=SECRET,
        user_query="SELECT id FROM accounts WHERE login = $1",
    )

    async def answer(user: str) -> str:
        return str((await explain(settings, Question(company=world.company, user=user))).answer)

    assert (
        await answer("auth0|7") == "user auth0|7: may see the company now, by a row of position 1"
    )
    assert "USER_QUERY finds no user" in await answer("u1")


async def test_the_role_of_serve_may_run_it(world: World) -> None:
    """It may not read the rows, and the answer comes from the log."""
    event = await world.event()
    role = f"{world.database.name}_serves"
    await world.database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        await migrate(world.database.dsn, grant=role)
        url = f"postgresql://{role}@{world.database.dsn.partition('@')[2]}"
        settings = load({}, database_url=url, jwt_secret=SECRET)
        question = Question(company=world.company, table="events", key=event, user="u1")
        explanation = await explain(settings, question)
        assert "delivered as EventCreated at position 2" in str(explanation.answer)
        assert any("permission denied for table events" in fact for fact in explanation.facts)
    finally:
        await world.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_command_line_and_its_exit_statuses(world: World, tmp_path: Path) -> None:
    event = await world.event()
    settings = {"database_url": world.database.dsn, "jwt_secret": SECRET}
    here = ("why", "--company", world.company)
    status, output = await run(tmp_path, *here, "--table", "events", "--key", event, **settings)
    assert status == 0
    assert output.splitlines()[-1] == "answer: delivered as EventCreated at position 2"
    await world.tx("TRUNCATE events")
    status, output = await run(
        tmp_path, *here, "--table", "events", "--key", str(uuid4()), **settings
    )
    assert status == 1
    assert output.splitlines()[-1] == "notifier: the database does not show which of these it was"
    for wrong in (["--table", "events"], ["--tx", "5", "--position", "1"], ["--position", "x"]):
        status, _ = await run(tmp_path, *here, *wrong, **settings)
        assert status == 2
    status, output = await run(
        tmp_path, *here, **{**settings, "database_url": "postgresql://x@127.0.0.1:1/x"}
    )
    assert status == 1
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("name", CASES)
async def test_one_command_explains_it(world: World, tmp_path: Path, name: str) -> None:
    """Its last line is the answer, and it prints no value of a row."""
    expected, prepare = CASES[name]
    question = {"company": world.company, **await prepare(world)}
    options = [word for key, value in question.items() for word in (f"--{key}", str(value))]
    settings = {"database_url": world.database.dsn, "jwt_secret": SECRET}
    status, printed = await run(tmp_path, "why", *options, **settings)
    assert status == 0, printed
    answer = printed.splitlines()[-1]
    assert answer.startswith("answer: "), printed
    assert expected in answer, printed
    assert SECRET_TITLE not in printed
    assert "Ada" not in printed


def test_there_are_at_least_twenty_situations_with_different_answers() -> None:
    assert len(CASES) >= 40
    assert len({answer for answer, _ in CASES.values()}) >= 20


async def test_a_row_that_is_visible_to_others_is_explained_and_nothing_of_it_is_shown(
    world: World,
) -> None:
    epoch = await world.database.fetchval("SELECT epoch FROM notifier.log")
    event, employee, company = CALENDAR
    restricted = replace(event, visible_to=("description",))
    await migrate(world.database.dsn, watches=[restricted, employee, company])

    async def has_begun() -> bool:
        return bool(await world.database.fetchval("SELECT epoch FROM notifier.log") != epoch)

    await until(has_begun)
    row = await world.event()
    tx = await world.tx(f"UPDATE events SET description = 'u2' WHERE id = '{row}'")
    for question in ({"tx": tx}, {"table": "events", "key": row}, {"position": 3}):
        one = await world.why(**question, user="u1")
        assert "as EventDeleted because of visible_to" in str(one.answer), question
    tx = await world.tx(f"UPDATE events SET title = '{SECRET_TITLE}.' WHERE id = '{row}'")
    assert "visible_to names other users" in str((await world.why(tx=tx, user="u1")).answer)
    assert "delivered as EventUpdated" in str((await world.why(tx=tx)).answer)
