"""The role of `serve` and the schemas of watched tables: USAGE is granted, and what its owner takes away disturbs no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database.schema import migrate
from notifier.settings import load
from notifier.watches import CALENDAR, Watch
from tests.databases import Database
from tests.postgres.relays import MakeRelay, Relayed, types
from tests.postgres.states import url_of
from tests.services import SECRET

NOTE = Watch(table="crm.notes", entity="Note", company="team")
MEMBER = Watch(table="t_*.members", entity="Member", company="schema", member="login")


@pytest.fixture
async def role(database: Database) -> AsyncIterator[str]:
    """A role that may log in, without rights."""
    name = f"role_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'")
    yield name
    await database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def relaying(database: Database, role: str, make_relay: MakeRelay, watch: Watch) -> Relayed:
    """A relay that has the rights of `migrate --grant`."""
    await migrate(database.dsn, watches=[*CALENDAR, watch], grant=role)
    relay = make_relay()
    relay.url = url_of(database, role)
    await relay.start()
    return relay


async def problems(database: Database, role: str) -> dict[str, bool]:
    """Of tables that are gone, as the role sees them: whether each is fatal."""
    await database.execute(f"SET ROLE {role}")
    rows = await database.fetch("SELECT kind, object, fatal FROM notifier.watch_problems()")
    await database.execute("RESET ROLE")
    assert not any(row["fatal"] for row in rows)
    return {row["object"]: row["fatal"] for row in rows if row["kind"] == "table"}


async def test_a_table_without_members_in_a_schema_of_its_own_is_relayed(
    database: Database, role: str, make_relay: MakeRelay
) -> None:
    await database.execute(
        "CREATE SCHEMA crm; CREATE TABLE crm.notes (id int PRIMARY KEY, team int)"
    )
    relay = await relaying(database, role, make_relay, NOTE)
    await database.execute("INSERT INTO crm.notes VALUES (1, 7)")
    assert types(await relay.messages_of(7)) == ["NoteCreated"]
    settings = load({}, database_url=relay.url, jwt_secret=SECRET, watch=[*CALENDAR, NOTE])
    assert [each.line for each in await check(settings) if each.sound is False] == []


async def test_a_schema_whose_owner_takes_usage_away_disturbs_no_other(
    database: Database, role: str, make_relay: MakeRelay
) -> None:
    await database.execute(
        "CREATE SCHEMA crm; CREATE TABLE crm.notes (id int PRIMARY KEY, team int)"
    )
    relay = await relaying(database, role, make_relay, NOTE)
    await database.execute(f"REVOKE USAGE ON SCHEMA crm FROM {role}")
    await database.execute("INSERT INTO crm.notes VALUES (1, 7)")
    await relay.looked()
    assert types(await relay.messages_of(7)) == ["NoteCreated"]
    assert await problems(database, role) == {"crm.notes": False}
    settings = load({}, database_url=relay.url, jwt_secret=SECRET, watch=[*CALENDAR, NOTE])
    found = [each.line for each in await check(settings) if each.sound is False]
    assert any(f"role {role} lacks USAGE ON SCHEMA crm" in line for line in found)


async def test_a_schema_of_a_tenant_that_is_made_again_disturbs_no_other(
    database: Database, role: str, make_relay: MakeRelay
) -> None:
    table = "CREATE SCHEMA {0}; CREATE TABLE {0}.members (id int PRIMARY KEY, login text)"
    await database.execute(f"{table.format('t_a')}; {table.format('t_b')}")
    relay = await relaying(database, role, make_relay, MEMBER)
    await database.execute(f"DROP SCHEMA t_a CASCADE; {table.format('t_a')}")
    await relay.looked()
    await database.execute("INSERT INTO t_b.members VALUES (1, 'ada')")
    assert types(await relay.messages_of("t_b")) == ["MemberCreated"]
    assert await problems(database, role) == {"t_a.members": False}
