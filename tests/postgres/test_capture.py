"""What an app does with plain SQL, and what its company hears of it."""

from __future__ import annotations

import asyncpg
import pytest

from tests.databases import Connection, Database
from tests.postgres.relays import Relayed, heard, new_company, new_event, types

# --- every row of the table of messages


async def test_an_event_is_created_updated_and_deleted(
    app: Connection, company: str, relay: Relayed
) -> None:
    event = await new_event(app, company)
    await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    await app.execute("DELETE FROM events WHERE id = $1", event)
    created, updated, deleted = await relay.heard(company)
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
    added, updated, removed = await relay.heard(company)
    assert types([added, updated, removed]) == [
        "EmployeeAdded",
        "EmployeeUpdated",
        "EmployeeRemoved",
    ]
    assert added["Data"]["EmployeeId"] == employee
    assert updated["Old"] == {"JobTitle": None}
    assert removed["Data"]["UserId"] == "u1"


async def test_a_company_hears_of_its_own_update_and_end_but_not_of_its_beginning(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute("UPDATE companies SET name = 'Acme Ltd' WHERE id = $1", company)
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    updated, deleted = await relay.heard(company)
    assert types([updated, deleted]) == ["CompanyUpdated", "CompanyDeleted"]
    assert updated["Position"] == 1
    assert updated["Data"]["CompanyId"] == company
    assert updated["Old"] == {"Name": "Acme"}
    assert deleted["Data"]["Name"] == "Acme Ltd"


async def test_companies_hear_only_their_own(app: Connection, company: str, relay: Relayed) -> None:
    other = await new_company(app, "Bolt")
    mine, theirs = await new_event(app, company), await new_event(app, other)
    assert [m["Data"]["EventId"] for m in await relay.heard(company)] == [mine]
    assert [m["Data"]["EventId"] for m in await relay.heard(other)] == [theirs]


# --- triggers of the app's own


@pytest.mark.parametrize("name", ["a_trigger", "z_trigger"])
async def test_what_a_trigger_of_the_apps_writes_is_heard(
    name: str, database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """It may be captured before what fired it: its name comes first, or another row's turn does."""
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
    said = [
        (m["Type"], m["Data"]["EventId"], m["Data"]["Title"], m["Data"]["Location"])
        for m in await relay.heard(company)
    ]
    assert said[0] == ("EventCreated", first, "Tea", ".")
    assert set(said[1:3]) == {
        ("EventCreated", second, "Tea", "."),
        ("EventUpdated", first, "Tea", ".."),
    }
    assert set(said[3:]) == {
        ("EventUpdated", first, "Coffee", "...."),
        ("EventUpdated", second, "Coffee", "..."),
    }


# --- committed only


async def test_b1_what_was_rolled_back_is_never_heard(
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
    (message,) = await relay.heard(company)
    assert message["Data"]["Title"] == "real"
    assert message["Position"] == 1


async def test_b1_a_savepoint_that_was_rolled_back_is_never_heard(
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
    assert [m["Data"]["Title"] for m in await relay.heard(company)] == ["before", "kept"]


async def test_b1_a_write_that_fails_its_deferred_constraint_is_never_heard(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "ALTER TABLE events ADD CONSTRAINT once UNIQUE (title) DEFERRABLE INITIALLY DEFERRED"
    )
    await new_event(app, company, "Tea")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with app.transaction():
            await new_event(app, company, "Tea")
    assert len(await relay.heard(company)) == 1


async def test_b9_a_cascade_at_commit_is_heard(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "ALTER TABLE events ALTER CONSTRAINT events_company_id_fkey DEFERRABLE INITIALLY DEFERRED"
    )
    await new_event(app, company)
    await relay.asleep()
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    assert types(await relay.heard(company)) == ["EventCreated", "CompanyDeleted", "EventDeleted"]


# --- one transaction, one net change per row


async def test_insert_and_update_are_one_creation(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        event = await new_event(app, company)
        await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    (message,) = await relay.heard(company)
    assert message["Type"] == "EventCreated"
    assert message["Data"]["Title"] == "Coffee"


async def test_insert_and_delete_are_nothing(app: Connection, company: str, relay: Relayed) -> None:
    async with app.transaction():
        event = await new_event(app, company)
        await app.execute("DELETE FROM events WHERE id = $1", event)
    assert await relay.heard(company) == []


async def test_b5_an_update_that_changes_nothing_is_nothing(
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
    assert types(await relay.heard(company)) == ["EventCreated"]


async def test_delete_and_insert_of_one_key_are_an_update(
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
    _, message = await relay.heard(company)
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
    _, deleted, created = await relay.heard(company)
    assert types([deleted, created]) == ["EventDeleted", "EventCreated"]
    assert deleted["Data"]["EventId"] == event
    assert created["Data"]["EventId"] == changed


async def test_b6_a_row_updated_a_thousand_times_is_heard_once_or_in_order(
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
    _, *updates = await relay.heard(company)
    assert [message["Data"]["Title"] for message in updates] == [
        f"number {number}" for number in range(999, 1100)
    ]
    assert updates[0]["Old"] == {"Title": "Tea"}
    assert updates[1]["Old"] == {"Title": "number 999"}


# --- rows that move, rows of nobody


async def test_b8_a_moved_row_leaves_one_company_and_comes_to_the_other(
    app: Connection, company: str, relay: Relayed
) -> None:
    other = await new_company(app, "Bolt")
    event = await new_event(app, company, "secret of Acme")
    await app.execute(
        "UPDATE events SET company_id = $2, title = 'secret of Bolt' WHERE id = $1", event, other
    )
    _, removed = await relay.heard(company)
    (added,) = await relay.heard(other)
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
    assert types(await relay.heard(company)) == ["EmployeeAdded"] * 50 + ["EmployeeRemoved"] * 50
    assert types(await relay.heard(other)) == ["EmployeeAdded"] * 50


async def test_a_row_of_no_company_is_heard_by_nobody_until_it_has_one(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute("ALTER TABLE events ALTER company_id DROP NOT NULL")
    event = str(
        await app.fetchval(
            "INSERT INTO events (title, starts_at, ends_at) VALUES ('Tea', now(), now())"
            " RETURNING id"
        )
    )
    assert await relay.heard(company) == []
    await app.execute("UPDATE events SET company_id = $2 WHERE id = $1", event, company)
    await app.execute("UPDATE events SET company_id = NULL WHERE id = $1", event)
    assert types(await relay.heard(company)) == ["EventCreated", "EventDeleted"]
    assert await database.fetch("SELECT FROM notifier.messages WHERE company = 'null'") == []


# --- ways to write


async def test_b7_an_upsert_is_what_it_does(app: Connection, company: str, relay: Relayed) -> None:
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
    added, updated = await relay.heard(company)
    assert types([added, updated]) == ["EmployeeAdded", "EmployeeUpdated"]
    assert updated["Old"] == {"Name": "Ann"}


async def test_b7_a_merge_is_what_it_does(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    if await database.fetchval("SELECT current_setting('server_version_num')::int < 150000"):
        pytest.skip("MERGE came with PostgreSQL 15")
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
    merged = (await relay.heard(company))[2:]
    assert {message["Data"]["UserId"]: message["Type"] for message in merged} == {
        "u1": "EmployeeUpdated",
        "u2": "EmployeeRemoved",
        "u3": "EmployeeAdded",
    }


async def test_b7_a_writable_cte_is_heard_whole(
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
    heard = await relay.heard(company)
    assert sorted(types(heard[1:])) == ["EventCreated", "EventDeleted"]


async def test_b7_a_copy_is_heard_row_by_row(app: Connection, company: str, relay: Relayed) -> None:
    await app.copy_records_to_table(
        "employees",
        columns=["company_id", "user_id", "name"],
        records=[(company, f"u{number}", "Ann") for number in range(300)],
    )
    heard = await relay.heard(company)
    assert [message["Data"]["UserId"] for message in heard] == [f"u{n}" for n in range(300)]


async def test_b9_a_deleted_company_takes_its_rows_along(
    app: Connection, company: str, relay: Relayed
) -> None:
    employee = await app.fetchval(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'Ann') RETURNING id",
        company,
    )
    event = await new_event(app, company)
    await app.execute("UPDATE events SET organizer_id = $2 WHERE id = $1", event, employee)
    await app.execute("DELETE FROM companies WHERE id = $1", company)
    heard = (await relay.heard(company))[3:]
    assert sorted(types(heard)) == ["CompanyDeleted", "EmployeeRemoved", "EventDeleted"]
    (deleted,) = (message for message in heard if message["Type"] == "EventDeleted")
    # As it was before the transaction: the cascade had taken the organizer out of it meanwhile.
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
    heard = (await relay.heard(company))[3:]
    (updated,) = (message for message in heard if message["Type"] == "EventUpdated")
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
    heard = (await relay.heard(company))[4:]
    (updated,) = (message for message in heard if message["Type"] == "EventUpdated")
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
        heard = await relay.heard(each)
        assert types(heard) == kinds
        assert heard[1]["Data"]["Reason"] == "truncate"
        assert heard[1]["Data"]["CompanyId"] == each
    assert (await relay.heard(company))[2]["Data"]["Title"] == "stays"


async def test_b10_a_truncate_that_cascades_is_heard(
    app: Connection, company: str, relay: Relayed
) -> None:
    await new_event(app, company)
    await app.execute("TRUNCATE companies CASCADE")
    heard = await relay.heard(company)
    assert set(types(heard[1:])) == {"Resync"}


# --- who, and where


async def test_an_app_needs_no_right_on_the_schema(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    assert not await database.fetchval("SELECT has_schema_privilege('app', 'notifier', 'USAGE')")
    await new_event(app, company)
    assert types(await relay.heard(company)) == ["EventCreated"]


async def test_the_actor_is_whom_the_writer_names(
    app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction():
        await app.execute("SET LOCAL notifier.actor = 'Zoë \"\\'")
        await new_event(app, company)
    await new_event(app, company)
    named, unnamed = await relay.heard(company)
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
    (message,) = await relay.heard(company)
    assert message["Data"]["Title"] == "Tea"


async def test_b17_nobody_can_borrow_the_trigger_function(app: Connection) -> None:
    await app.execute("CREATE TEMP TABLE bait (id int, company_id text)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(
            "CREATE TRIGGER forged AFTER INSERT ON bait FOR EACH ROW"
            " EXECUTE FUNCTION notifier.capture('Event', 'id', 'company_id')"
        )


async def test_nobody_can_call_a_function_of_the_schema(
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
            " AND prosqlbody IS NULL"  # such a body was read when it was made
        )
        == []
    )


async def test_a_replica_role_fires_nothing(
    database: Database, company: str, relay: Relayed
) -> None:
    await database.execute("SET session_replication_role = replica")
    await new_event(database, company, "replicated")
    await database.execute("RESET session_replication_role")
    await new_event(database, company, "written")
    assert [m["Data"]["Title"] for m in await relay.heard(company)] == ["written"]


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_every_isolation_level_is_heard(
    isolation: str, app: Connection, company: str, relay: Relayed
) -> None:
    async with app.transaction(isolation=isolation):  # type: ignore[arg-type]  # its words
        await new_event(app, company)
    assert types(await relay.heard(company)) == ["EventCreated"]


async def test_serializable_writers_of_different_companies_do_not_hurt_each_other(
    database: Database, relay: Relayed
) -> None:
    one, two = await database.connect(app=True), await database.connect(app=True)
    first, second = await new_company(one), await new_company(two)
    async with one.transaction(isolation="serializable"), two.transaction(isolation="serializable"):
        await new_event(one, first)
        await new_event(two, second)
        await one.execute("UPDATE events SET title = 'x' WHERE company_id = $1", first)
        await two.execute("UPDATE events SET title = 'x' WHERE company_id = $1", second)
    assert types(await relay.heard(first)) == ["EventCreated"]
    assert types(await relay.heard(second)) == ["EventCreated"]


async def test_a_read_only_transaction_is_left_alone(app: Connection, company: str) -> None:
    async with app.transaction(readonly=True):
        assert await app.fetchval("SELECT count(*) FROM events") == 0


async def test_time_is_said_in_utc_whatever_the_writers_zone_is(
    app: Connection, company: str, relay: Relayed
) -> None:
    await app.execute("SET timezone = 'America/St_Johns'; SET datestyle = 'SQL, DMY'")
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " VALUES ($1, 'Tea', '2026-06-01 12:00+02', 'infinity')",
        company,
    )
    (message,) = await relay.heard(company)
    assert message["Data"]["StartsAt"] == "2026-06-01T10:00:00+00:00"
    assert message["Data"]["EndsAt"] == "infinity"
    assert message["At"].endswith("+00:00")


async def test_writes_succeed_while_nobody_relays(
    database: Database, app: Connection, company: str
) -> None:
    event = await new_event(app, company)
    await app.execute("UPDATE events SET title = 'Coffee' WHERE id = $1", event)
    relay = Relayed(database)
    await relay.start()
    await relay.settled()
    await relay.stop()
    assert types(await heard(database, company)) == ["EventCreated", "EventUpdated"]
