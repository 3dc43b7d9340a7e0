"""No setting that an application may change in its session makes capture fail its write, or changes a value."""

from __future__ import annotations

import asyncpg

from tests.databases import Connection, Database

PLAIN = "CREATE TABLE plain (LIKE events INCLUDING DEFAULTS); GRANT ALL ON plain TO app"
INSERT = (
    "INSERT INTO {} (company_id, title, description, starts_at, ends_at)"
    " VALUES ('{}', 'Tea\\\\', 'a ''quoted'' \\ text', '2026-11-22 17:00:00.123456+00', now())"
)
EXTRA = {
    "plpgsql.extra_errors": ["all"],
    "plpgsql.extra_warnings": ["all"],
    "notifier.actor": ["\\\"{}'", "x" * 100_000],
    "notifier.traceparent": ["\\\"{}'\n", "x" * 1_000_000],
    "search_path": ["", "pg_temp"],
    "datestyle": ["German, DMY", "SQL", "Postgres"],
    "timezone": ["Asia/Kathmandu", "-15:59"],
    "client_encoding": ["LATIN1"],
    "default_tablespace": ["none_such", ""],
    "temp_tablespaces": [""],
    "default_table_access_method": ["heap"],
}


async def settings_to_try(app: Connection) -> list[tuple[str, str]]:
    """Each setting of a session with its extremes."""
    tried: list[tuple[str, str]] = []
    rows = await app.fetch(
        "SELECT name, vartype, min_val, max_val, enumvals FROM pg_settings WHERE context = 'user'"
        " ORDER BY name"
    )
    for row in rows:
        if row["vartype"] == "bool":
            values = ["on", "off"]
        elif row["vartype"] == "enum":
            values = list(row["enumvals"])
        elif row["vartype"] in ("integer", "real"):
            values = [row["min_val"], row["max_val"]]
        else:
            values = []
        tried += [(row["name"], value) for value in values]
    return tried + [(name, value) for name, values in EXTRA.items() for value in values]


async def write(connection: Connection, table: str, company: str) -> str | None:
    """The error of a write, None where it was done."""
    try:
        await connection.execute(INSERT.format(f"public.{table}", company))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return repr(error)
    return None


async def test_no_setting_of_a_session_makes_capture_fail_a_write(
    database: Database, app: Connection, company: str
) -> None:
    """Every one with its extremes, where the same write into a table that is not watched is done."""
    await database.execute(PLAIN)
    failed: list[str] = []
    for name, value in await settings_to_try(app):
        connection = await database.connect(app=True)
        try:
            await connection.execute("SELECT set_config($1, $2, false)", name, value)
        except asyncpg.PostgresError:  # not in a session that has begun, or not this value
            continue
        if await write(connection, "plain", company) is None:
            error = await write(connection, "events", company)
            stored = await database.fetchval(
                "WITH c AS (DELETE FROM notifier.changes_0 WHERE entity = 'Event' RETURNING *)"
                " SELECT array_agg(concat_ws(' ', partial, new ->> 'starts_at')) FROM c"
            )
            if error is not None or stored != ["f 2026-11-22T17:00:00.123456+00:00"]:
                failed.append(f"{name}={value}: {error}, {stored}")
        connection.terminate()
    assert failed == []
