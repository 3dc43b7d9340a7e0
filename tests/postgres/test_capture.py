"""Every way to write rows in SQL, and the messages that its company gets."""

from __future__ import annotations

from typing import Literal

import asyncpg
import pytest

from tests.databases import Connection, Database
from tests.installed import skip_before
from tests.postgres.relays import Relayed, messages_of, new_company, new_event, types

# --- each type of message


async def test_an_event_is_created_updated_and_deleted(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    await app.execute("DELETE FROM events WHERE id = $1", event)
    created, updated, deleted = await relay.messages_of(company)
    assert types([created, updated, deleted]) == ["EventCreated", "EventUpdated", "EventDeleted"]
    assert created["Data"]["EventId"] == event
    assert created["Data"]["CompanyId"] == company
    assert created["Data"]["Title"] == "Tea"
    assert set(created["Data"]) == {
        *("EventId", "CompanyId", "Title", "Description", "Location", "StartsAt", "EndsAt"),
        *("AllDay", "OrganizerId", "CreatedAt", "UpdatedAt"),
    }
    assert "Old" not in created
    assert updated["Data"] == {**created["Data"], "Title": "Coffee"}
    assert updated["Old"] == {"Title": "Tea"}
    assert deleted["Data"] == updated["Data"]
    assert "Old" not in deleted
    assert [message["Position"] for message in (created, updated, deleted)] == [1, 2, 3]


async def test_an_employee_is_added_updated_and_removed(
    app: Connection, company: str, relay: Relayed
) -> None:
    employee = str(
        await app.fetchval(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Ann')"
            " RETURNING id",
            company,
        )
    )
    await app.execute("UPDATE employees SET job_title = 'Cook' WHERE id = $1", employee)
    await app.execute("DELETE FROM employees WHERE id = $1", employee)
    added, updated, removed = await relay.messages_of(company)
    assert types([added, updated, removed]) == [
        "EmployeeAdded",
        "EmployeeUpdated",
        "EmployeeRemoved",
    ]
    assert added["Data"]["EmployeeId"] == employee
    assert updated["Old"] == {"JobTitle": None}
    assert removed["Data"]["UserId"] == "u1"


async def test_a_company_gets_its_own_update_and_deletion_but_not_its_creation(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute("UPDATE companies SET name = 'Acme Ltd' WHERE id = $1", company)
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    updated, deleted = await relay.messages_of(company)
    assert types([updated, deleted]) == ["CompanyUpdated", "CompanyDeleted"]
    assert updated["Position"] == 1
    assert updated["Data"]["CompanyId"] == company
    assert updated["Old"] == {"Name": "Acme"}
    assert deleted["Data"]["Name"] == "Acme Ltd"


async def test_each_company_gets_only_its_own_changes(
    app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    mine, theirs = await new_event(app, company), await new_event(app, other)
    assert [m["Data"]["EventId"] for m in await relay.messages_of(company)] == [mine]
    assert [m["Data"]["EventId"] for m in await relay.messages_of(other)] == [theirs]


# --- triggers of the application


@pytest.mark.parametrize("name", ["a_trigger", "z_trigger"])
async def test_writes_of_the_applications_triggers_are_captured(
    name: str, database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """A nested write may be captured before the write that fired its trigger."""
    await database.execute(
        f"""
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF pg_trigger_depth() = 1 THEN
                UPDATE events SET location = coalesce(location, '') || '.';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON events
        FOR EACH ROW EXECUTE FUNCTION touch();
        """
    )
    first, second = await new_event(app, company), await new_event(app, company)
    await app.execute("UPDATE events SET title = 'Coffee'")
    sent = [
        (m["Type"], m["Data"]["EventId"], m["Data"]["Title"], m["Data"]["Location"])
        for m in await relay.messages_of(company)
    ]
    assert sent[0] == ("EventCreated", first, "Tea", ".")
    assert set(sent[1:3]) == {
        ("EventCreated", second, "Tea", "."),
        ("EventUpdated", first, "Tea", ".."),
    }
    assert set(sent[3:]) == {
        ("EventUpdated", first, "Coffee", "...."),
        ("EventUpdated", second, "Coffee", "..."),
    }


# --- committed only


async def test_b1_a_rolled_back_change_is_never_sent(
    app: Connection, company: str, relay: Relayed
) -> None:
    transaction = app.transaction()
    await transaction.start()
    await new_event(app, company, "ghost")
    await transaction.rollback()

    async def fail() -> None:
        async with app.transaction():
            await new_event(app, company, "ghost")
            await app.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await fail()
    await new_event(app, company, "real")
    (message,) = await relay.messages_of(company)
    assert message["Data"]["Title"] == "real"
    assert message["Position"] == 1


async def test_b1_a_rolled_back_savepoint_is_never_sent(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute(
        f"""
        BEGIN;
        INSERT INTO events (company_id, title, starts_at, ends_at)
            VALUES ('{company}', 'before', now(), now());
        SAVEPOINT one;
        INSERT INTO events (company_id, title, starts_at, ends_at)
            VALUES ('{company}', 'ghost', now(), now());
        UPDATE events SET title = 'ghost' WHERE title = 'before';
        ROLLBACK TO one;
        SAVEPOINT two;
        INSERT INTO events (company_id, title, starts_at, ends_at)
            VALUES ('{company}', 'kept', now(), now());
        RELEASE two;
        COMMIT;
        """
    )
    assert [m["Data"]["Title"] for m in await relay.messages_of(company)] == ["before", "kept"]


async def test_b1_a_write_that_fails_its_deferred_constraint_is_never_sent(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "ALTER TABLE events ADD CONSTRAINT once UNIQUE (title) DEFERRABLE INITIALLY DEFERRED"
    )
    await new_event(app, company, "Tea")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with app.transaction():
            await new_event(app, company, "Tea")
    assert len(await relay.messages_of(company)) == 1


async def test_b9_a_cascade_at_commit_is_captured(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "ALTER TABLE events ALTER CONSTRAINT events_company_id_fkey DEFERRABLE INITIALLY DEFERRED"
    )
    await new_event(app, company)
    await relay.asleep()
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    assert types(await relay.messages_of(company)) == [
        "EventCreated",
        "CompanyDeleted",
        "EventDeleted",
    ]


# --- one transaction, one net change per row


async def test_an_insert_and_an_update_are_one_creation(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        event = await new_event(app, company)
        await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    (message,) = await relay.messages_of(company)
    assert message["Type"] == "EventCreated"
    assert message["Data"]["Title"] == "Coffee"


async def test_an_insert_and_a_delete_send_nothing(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        event = await new_event(app, company)
        await app.execute("DELETE FROM events WHERE id = $1", event)
    assert await relay.messages_of(company) == []


async def test_b5_an_update_that_changes_nothing_sends_nothing(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await relay.settled()
    before = await database.fetchval("SELECT count(*) FROM notifier.changes")
    await app.execute("UPDATE events SET title = title WHERE id = $1", event)
    assert await database.fetchval("SELECT count(*) FROM notifier.changes") == before
    async with app.transaction():
        await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
        await app.execute("UPDATE events SET title = 'Tea' WHERE id = $1", event)
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_a_delete_and_an_insert_of_one_key_are_an_update(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    async with app.transaction():
        await app.execute("DELETE FROM events WHERE id = $1", event)
        await app.execute(
            "INSERT INTO events (id, company_id, title, starts_at, ends_at)"
            " VALUES ($1, $2, 'Coffee', now(), now())",
            event,
            company,
        )
    _, message = await relay.messages_of(company)
    assert message["Type"] == "EventUpdated"
    assert message["Old"]["Title"] == "Tea"


async def test_b7_a_changed_key_is_a_deletion_and_a_creation(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    changed = str(
        await app.fetchval(
            "UPDATE events SET id = gen_random_uuid() WHERE id = $1 RETURNING id", event
        )
    )
    _, deleted, created = await relay.messages_of(company)
    assert types([deleted, created]) == ["EventDeleted", "EventCreated"]
    assert deleted["Data"]["EventId"] == event
    assert created["Data"]["EventId"] == changed


async def test_b6_a_row_updated_a_thousand_times_is_sent_once_or_in_order(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    async with app.transaction():
        for number in range(1000):
            await app.execute(
                "UPDATE events SET title = $2 WHERE id = $1", event, f"number {number}"
            )
    for number in range(1000, 1100):
        await app.execute("UPDATE events SET title = $2 WHERE id = $1", event, f"number {number}")
    _, *updates = await relay.messages_of(company)
    assert [message["Data"]["Title"] for message in updates] == [
        f"number {number}" for number in range(999, 1100)
    ]
    assert updates[0]["Old"] == {"Title": "Tea"}
    assert updates[1]["Old"] == {"Title": "number 999"}


# --- rows that move, rows without a company


async def test_b8_a_moved_row_leaves_one_company_and_comes_to_the_other(
    app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    event = await new_event(app, company, "secret of Acme")
    await app.execute(
        "UPDATE events SET company_id = $2, title = 'secret of Bolt' WHERE id = $1", event, other
    )
    _, removed = await relay.messages_of(company)
    (added,) = await relay.messages_of(other)
    assert removed["Type"] == "EventDeleted"
    assert removed["Data"]["Title"] == "secret of Acme"
    assert "Bolt" not in str(removed)
    assert other not in str(removed)
    assert added["Type"] == "EventCreated"
    assert added["Data"]["Title"] == "secret of Bolt"
    assert "Old" not in added
    assert company not in str(added)
    assert "secret of Acme" not in str(added)


async def test_b8_many_rows_move_at_once(app: Connection, company: str, relay: Relayed) -> None:
    other = await new_company(app, "Bolt")
    await app.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT $1, 'u' || n, 'Ann' FROM generate_series(1, 50) AS n",
        company,
    )
    await app.execute("UPDATE employees SET company_id = $1", other)
    assert (
        types(await relay.messages_of(company)) == ["EmployeeAdded"] * 50 + ["EmployeeRemoved"] * 50
    )
    assert types(await relay.messages_of(other)) == ["EmployeeAdded"] * 50


async def test_a_row_without_a_company_is_not_sent_until_it_has_one(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute("ALTER TABLE events ALTER company_id DROP NOT NULL")
    event = str(
        await app.fetchval(
            "INSERT INTO events (title, starts_at, ends_at) VALUES ('Tea', now(), now())"
            " RETURNING id"
        )
    )
    assert await relay.messages_of(company) == []
    await app.execute("UPDATE events SET company_id = $2 WHERE id = $1", event, company)
    await app.execute("UPDATE events SET company_id = NULL WHERE id = $1", event)
    assert types(await relay.messages_of(company)) == ["EventCreated", "EventDeleted"]
    assert await database.fetch("SELECT FROM notifier.messages WHERE company = 'null'") == []


# --- ways to write


async def test_b7_an_upsert_is_an_insert_or_an_update(
    app: Connection, company: str, relay: Relayed
) -> None:
    for name in ("Ann", "Anna"):
        await app.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', $2)"
            " ON CONFLICT (company_id, user_id) DO UPDATE SET name = excluded.name",
            company,
            name,
        )
    await app.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'no')"
        " ON CONFLICT DO NOTHING",
        company,
    )
    added, updated = await relay.messages_of(company)
    assert types([added, updated]) == ["EmployeeAdded", "EmployeeUpdated"]
    assert updated["Old"] == {"Name": "Ann"}


async def test_b7_a_merge_is_its_inserts_updates_and_deletes(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await skip_before(15, database, "MERGE")
    for user in ("u1", "u2"):
        await app.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'Ann')",
            company,
            user,
        )
    await app.execute(
        f"""
        MERGE INTO employees AS e
        USING (VALUES ('u1', 'Anna'), ('u2', NULL), ('u3', 'Cleo')) AS s (user_id, name)
            ON e.user_id = s.user_id AND e.company_id = '{company}'
        WHEN MATCHED AND s.name IS NULL THEN DELETE
        WHEN MATCHED THEN UPDATE SET name = s.name
        WHEN NOT MATCHED THEN INSERT (company_id, user_id, name)
            VALUES ('{company}', s.user_id, s.name)
        """
    )
    merged = (await relay.messages_of(company))[2:]
    assert {message["Data"]["UserId"]: message["Type"] for message in merged} == {
        "u1": "EmployeeUpdated",
        "u2": "EmployeeRemoved",
        "u3": "EmployeeAdded",
    }


async def test_b7_every_write_of_a_writable_cte_is_captured(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await app.execute(
        """
        WITH gone AS (DELETE FROM events WHERE id = $1 RETURNING *)
        INSERT INTO events (company_id, title, starts_at, ends_at)
        SELECT company_id, 'copy of ' || title, starts_at, ends_at FROM gone
        """,
        event,
    )
    messages = await relay.messages_of(company)
    assert sorted(types(messages[1:])) == ["EventCreated", "EventDeleted"]


async def test_b7_a_copy_is_captured_row_by_row(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.copy_records_to_table(
        "employees",
        columns=["company_id", "user_id", "name"],
        records=[(company, f"u{number}", "Ann") for number in range(300)],
    )
    messages = await relay.messages_of(company)
    assert [message["Data"]["UserId"] for message in messages] == [f"u{n}" for n in range(300)]


async def test_b9_a_deleted_company_removes_its_rows(
    app: Connection, company: str, relay: Relayed
) -> None:
    employee = await app.fetchval(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Ann') RETURNING id",
        company,
    )
    event = await new_event(app, company)
    await app.execute("UPDATE events SET organizer_id = $2 WHERE id = $1", event, employee)
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    messages = (await relay.messages_of(company))[3:]
    assert sorted(types(messages)) == ["CompanyDeleted", "EmployeeRemoved", "EventDeleted"]
    (deleted,) = (message for message in messages if message["Type"] == "EventDeleted")
    # The row as before the transaction, although the cascade removed the organizer first.
    assert deleted["Data"]["OrganizerId"] == str(employee)


async def test_b9_a_reference_set_to_null_is_an_update(
    app: Connection, company: str, relay: Relayed
) -> None:
    employee = await app.fetchval(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Ann') RETURNING id",
        company,
    )
    event = await new_event(app, company)
    await app.execute("UPDATE events SET organizer_id = $2 WHERE id = $1", event, employee)
    await app.execute("DELETE FROM employees WHERE id = $1", employee)
    messages = (await relay.messages_of(company))[3:]
    (updated,) = (message for message in messages if message["Type"] == "EventUpdated")
    assert updated["Old"] == {"OrganizerId": str(employee)}
    assert updated["Data"]["OrganizerId"] is None


async def test_b9_a_reference_set_to_its_default_is_an_update(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    first, second = [
        str(
            await app.fetchval(
                "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'Ann')"
                " RETURNING id",
                company,
                user,
            )
        )
        for user in ("u1", "u2")
    ]
    await database.execute(
        f"""
        ALTER TABLE events
            DROP CONSTRAINT events_organizer_id_fkey,
            ALTER organizer_id SET DEFAULT '{first}',
            ADD FOREIGN KEY (organizer_id) REFERENCES employees ON DELETE SET DEFAULT
        """
    )
    event = await new_event(app, company)
    await app.execute("UPDATE events SET organizer_id = $2 WHERE id = $1", event, second)
    await app.execute("DELETE FROM employees WHERE id = $1", second)
    messages = (await relay.messages_of(company))[4:]
    (updated,) = (message for message in messages if message["Type"] == "EventUpdated")
    assert updated["Old"] == {"OrganizerId": second}
    assert updated["Data"]["OrganizerId"] == first


async def test_b10_a_truncated_table_is_a_resync_for_every_company(
    app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    await new_event(app, company)
    await new_event(app, other)
    async with app.transaction():
        await new_event(app, company, "gone at once")
        await app.execute("TRUNCATE events")
        await new_event(app, company, "stays")
    for each, kinds in (
        (company, ["EventCreated", "Resync", "EventCreated"]),
        (other, ["EventCreated", "Resync"]),
    ):
        messages = await relay.messages_of(each)
        assert types(messages) == kinds
        assert messages[1]["Data"]["Reason"] == "truncate"
        assert messages[1]["Data"]["CompanyId"] == each
    assert (await relay.messages_of(company))[2]["Data"]["Title"] == "stays"


async def test_b10_a_truncate_that_cascades_is_captured(
    app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company)
    await app.execute("TRUNCATE companies CASCADE")
    messages = await relay.messages_of(company)
    assert set(types(messages[1:])) == {"Resync"}


# --- actor, rights, search_path


async def test_an_application_needs_no_right_on_the_schema(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    assert not await database.fetchval("SELECT has_schema_privilege('app', 'notifier', 'USAGE')")
    await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_the_actor_is_the_one_that_the_writer_set(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        await app.execute("SET LOCAL notifier.actor = 'Zoë \"\\'")
        await new_event(app, company)
    await new_event(app, company)
    named, unnamed = await relay.messages_of(company)
    assert named["Actor"] == 'Zoë "\\'
    assert "Actor" not in unnamed


async def test_another_search_path_changes_nothing(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute("CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO app")
    await app.execute(
        """
        CREATE FUNCTION evil.row_to_json(events) RETURNS json LANGUAGE sql AS $$ SELECT '{}'::json $$;
        CREATE FUNCTION evil.nextval(text) RETURNS bigint LANGUAGE sql AS $$ SELECT 0::bigint $$;
        CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT 1/0 $$;
        CREATE FUNCTION evil.sum(bigint, integer) RETURNS bigint LANGUAGE sql AS $$ SELECT 1/0 $$;
        CREATE OPERATOR evil.% (leftarg = bigint, rightarg = integer, function = evil.sum);
        CREATE TEMP TABLE changes_0 (id bigint);
        SET search_path = evil, pg_temp, public, pg_catalog
        """
    )
    await new_event(app, company)
    (message,) = await relay.messages_of(company)
    assert message["Data"]["Title"] == "Tea"


async def test_b17_other_roles_cannot_use_the_trigger_function(app: Connection) -> None:
    await app.execute("CREATE TEMP TABLE bait (id int, company_id text)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(
            "CREATE TRIGGER forged AFTER INSERT ON bait FOR EACH ROW"
            " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
        )


async def test_other_roles_cannot_call_functions_of_the_schema(
    database: Database, app: Connection
) -> None:
    assert (
        await database.fetch(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'notifier'::regnamespace"
            " AND has_function_privilege('app', oid, 'EXECUTE')"
        )
        == []
    )


async def test_every_function_pins_its_search_path(database: Database) -> None:
    assert (
        await database.fetch(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'notifier'::regnamespace"
            " AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']"
            # It is inlined, so it cannot; it names the schema of everything instead.
            " AND proname <> 'readable_json'"
        )
        == []
    )


async def test_session_replication_role_replica_captures_nothing(
    database: Database, company: str, relay: Relayed
) -> None:
    await database.execute("SET session_replication_role = replica")
    await new_event(database, company, "replicated")
    await database.execute("RESET session_replication_role")
    await new_event(database, company, "written")
    assert [m["Data"]["Title"] for m in await relay.messages_of(company)] == ["written"]


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_every_isolation_level_is_captured(
    isolation: Literal["read_committed", "repeatable_read", "serializable"],
    app: Connection,
    company: str,
    relay: Relayed,
) -> None:
    async with app.transaction(isolation=isolation):
        await new_event(app, company)
    assert types(await relay.messages_of(company)) == ["EventCreated"]


async def test_serializable_writers_of_different_companies_do_not_conflict(
    database: Database, relay: Relayed
) -> None:
    one, two = await database.connect(app=True), await database.connect(app=True)
    first, second = await new_company(one), await new_company(two)
    async with one.transaction(isolation="serializable"), two.transaction(isolation="serializable"):
        await new_event(one, first)
        await new_event(two, second)
        await one.execute("UPDATE events SET title = 'x' WHERE company_id = $1", first)
        await two.execute("UPDATE events SET title = 'x' WHERE company_id = $1", second)
    assert types(await relay.messages_of(first)) == ["EventCreated"]
    assert types(await relay.messages_of(second)) == ["EventCreated"]


async def test_a_read_only_transaction_is_not_affected(app: Connection, company: str) -> None:
    async with app.transaction(readonly=True):
        assert await app.fetchval("SELECT count(*) FROM events") == 0


async def test_timestamps_are_in_utc_whatever_the_writers_time_zone(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute("SET timezone = 'America/St_Johns'; SET datestyle = 'SQL, DMY'")
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " VALUES ($1, 'Tea', '2026-06-01 12:00+02', 'infinity')",
        company,
    )
    (message,) = await relay.messages_of(company)
    assert message["Data"]["StartsAt"] == "2026-06-01T10:00:00+00:00"
    assert message["Data"]["EndsAt"] == "infinity"
    assert message["At"].endswith("+00:00")


async def test_writes_succeed_without_a_relay(
    database: Database, app: Connection, company: str
) -> None:
    event = await new_event(app, company)
    await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    relay = Relayed(database)
    await relay.start()
    await relay.settled()
    await relay.stop()
    assert types(await messages_of(database, company)) == ["EventCreated", "EventUpdated"]


async def test_plain_relations_are_found_once_for_all_relations(database: Database) -> None:
    """The first write of a backend compiles the statements of rows: with many tables it must not take their number squared."""
    calls = "SELECT pg_stat_get_xact_function_calls('notifier.plain_relations'::regproc)"
    relations = "ARRAY['events', 'employees', 'companies']::regclass[]"
    connection = await database.connect()
    await connection.execute("BEGIN; SET LOCAL track_functions = 'all'")
    await connection.execute(f"SELECT notifier.row_statements({relations})")
    assert await connection.fetchval(calls) == 1
