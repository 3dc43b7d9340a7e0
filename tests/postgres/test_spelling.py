"""`case` and `rename` in a database: stored, refused where names collide, and used by the relay."""

from __future__ import annotations

import pytest

from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.watches import CALENDAR, Case, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Relayed

DOCS = 'CREATE TABLE docs ("docId" int PRIMARY KEY, tenant_id text, "tenantId" text, is_new bool)'


def watch_of(case: Case, **rename: str) -> Watch:
    return Watch(
        table="docs", entity="Doc", key="docId", company="tenant_id", case=case, rename=rename
    )


async def test_row_1_18_messages_have_the_names_of_the_configuration(
    database: Database, app: Connection, relay: Relayed
) -> None:
    await database.execute(DOCS)
    await database.execute("GRANT ALL ON docs TO PUBLIC")
    await migrate(database.dsn, watches=[*CALENDAR, watch_of("camel", tenant_id="teamId")])
    await app.execute("INSERT INTO docs VALUES (1, 'c', 'other', true)")
    (message,) = await relay.messages_of("c")
    assert message["Data"] == {"docId": 1, "teamId": "c", "tenantId": "other", "isNew": True}


@pytest.mark.parametrize(
    ("case", "rename", "message"),
    [
        (
            "camel",
            {"tenant_id": "isNew"},
            "columns tenant_id and is_new would both be sent as isNew",
        ),
        (
            "column",
            {"docId": "tenantId"},
            "columns docId and tenantId would both be sent as tenantId",
        ),
        ("camel", {"tenantid": "x"}, "has no column tenantid; did you mean tenant"),
    ],
)
async def test_a_collision_or_an_unknown_column_is_refused_before_anything_changes(
    database: Database, case: Case, rename: dict[str, str], message: str
) -> None:
    await database.execute(DOCS)
    before = await database.fetch("SELECT * FROM notifier.watches")
    with pytest.raises(SettingsError, match=message) as caught:
        await migrate(database.dsn, watches=[*CALENDAR, watch_of(case, **rename)])
    assert "\n" not in str(caught.value)
    assert await database.fetch("SELECT * FROM notifier.watches") == before


async def test_the_refusal_of_a_collision_shows_a_rename_that_solves_it(
    database: Database, app: Connection
) -> None:
    await database.execute(DOCS)
    with pytest.raises(SettingsError, match=r'add rename = \{ tenantId = "…" \} to its'):
        await migrate(database.dsn, watches=[*CALENDAR, watch_of("pascal", tenantId="CompanyId")])
    await migrate(database.dsn, watches=[*CALENDAR, watch_of("pascal", tenantId="Tenant")])
