"""Tables that are altered while a relay runs: the first message after it has the columns as they are now.

The relay's maintenance, which reads the columns from time to time, is never due here.
"""

from __future__ import annotations

from typing import Any

import pytest

from notifier.database.schema import migrate
from notifier.relay.changes import Source
from notifier.relay.store import RelayStore
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.installed import skip_before
from tests.postgres.relays import MakeRelay, Relayed, types

DOC = Watch(table="docs", entity="Doc", naive_timestamps="UTC")
BIG = 2**53 + 1
NESTED = f'{{"n": {BIG}}}'

TABLE = """
    CREATE TABLE docs (id int PRIMARY KEY, company_id text);
    GRANT ALL ON docs TO PUBLIC
"""

ALTERED: dict[str, tuple[str, str, Any]] = {
    "added as json": ("ADD extra jsonb", NESTED, {"n": BIG}),
    "renamed": ("RENAME extra TO value", NESTED, {"n": BIG}),
    "json to text": ("ALTER value TYPE text", NESTED, NESTED),
    "text to json": ("ALTER value TYPE json USING value::json", NESTED, {"n": BIG}),
    "json to bigint": ("ALTER value TYPE bigint USING 0", str(BIG), str(BIG)),
    "to an array": ("ALTER value TYPE bigint[] USING NULL", f"{{{BIG}}}", [str(BIG)]),
    "to a domain over json": ("ALTER value TYPE document USING NULL", NESTED, {"n": BIG}),
    "to a composite": ("ALTER value TYPE place USING NULL", f"({BIG})", {"code": str(BIG)}),
    "to a timestamp": (
        "ALTER value TYPE timestamp USING NULL",
        "2026-06-01 10:00:00",
        "2026-06-01T10:00:00+00:00",
    ),
    "timestamp to text": (
        "ALTER value TYPE text",
        "2026-06-01T10:00:00",
        "2026-06-01T10:00:00",
    ),
    "to an array of timestamps": (
        "ALTER value TYPE timestamp[] USING NULL",
        "{2026-06-01 10:00:00}",
        ["2026-06-01T10:00:00+00:00"],
    ),
    "to a timestamp with a zone": (
        "ALTER value TYPE timestamptz USING NULL",
        "2026-06-01 10:00:00+02",
        "2026-06-01T08:00:00+00:00",
    ),
    "zone to no zone": (
        "ALTER value TYPE timestamp",
        "2026-06-01 10:00:00",
        "2026-06-01T10:00:00+00:00",
    ),
    "dropped and added": ("DROP value, ADD value jsonb", NESTED, {"n": BIG}),
}
"""Each alters the table once more: how, the text of a value then, and what is sent for it."""


@pytest.fixture(autouse=True)
def maintenance_is_never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.relay.maintenance.AWAKE_SECONDS", 1e9)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 1e9)


async def watched(
    database: Database, relay: Relayed, watch: Watch = DOC, table: str = TABLE
) -> None:
    """Creates and watches the table; the relay has relayed what is before."""
    await database.execute(table)
    await migrate(database.dsn, watches=[*CALENDAR, watch])
    await relay.start()
    await relay.settled()


async def test_the_first_message_after_an_alteration_has_the_right_values(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    relay = make_relay()
    await database.execute(
        "CREATE DOMAIN document AS jsonb; CREATE TYPE place AS (code bigint);"
        " ALTER ROLE app SET timezone = 'UTC'"
    )
    await watched(database, relay)
    expected = []
    for number, (alteration, text, sent) in enumerate(ALTERED.values()):
        await database.execute(f"ALTER TABLE docs {alteration}")
        column = "extra" if number == 0 else "value"
        await app.execute(
            f"INSERT INTO docs (id, company_id, {column}) VALUES ({number}, 'c', '{text}')"
        )
        expected.append({"DocId": number, "CompanyId": "c", column.title(): sent})
        await relay.settled()  # before the column is of another type again
    messages = await relay.messages_of("c")
    seen = {name: message["Data"] for name, message in zip(ALTERED, messages, strict=True)}
    assert seen == dict(zip(ALTERED, expected, strict=True))


async def test_the_relay_that_sleeps_sends_what_the_transaction_that_adds_a_column_writes(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    relay = make_relay()
    await watched(database, relay)
    await app.execute("INSERT INTO docs VALUES (1, 'c')")
    assert types(await relay.messages_of("c")) == ["DocCreated"]
    await relay.asleep()
    await database.execute(
        f"ALTER TABLE docs ADD made timestamp, ADD extra json; UPDATE docs SET extra = '{NESTED}'"
    )
    _, updated = await relay.messages_of("c")
    assert updated["Data"]["Extra"] == {"n": BIG}
    assert updated["Old"] == {"Extra": None}


async def test_changes_that_were_captured_before_an_alteration_keep_their_values(
    database: Database, make_relay: MakeRelay
) -> None:
    """The relay reads them together with the alteration, in one transaction."""
    relay = make_relay()
    table = """
        CREATE TABLE docs (id int PRIMARY KEY, company_id text, a json, b json, c timestamp, d timestamp, e timestamp)
    """
    await watched(database, relay, table=table)
    await relay.asleep()
    await database.execute(
        f"""
        SET timezone = 'UTC';
        INSERT INTO docs SELECT 1, 'c', '{NESTED}', '{NESTED}', t, t, t FROM (VALUES (timestamp '2026-06-01 10:00:00')) AS v (t);
        ALTER TABLE docs DROP a;
        ALTER TABLE docs RENAME b TO z;
        ALTER TABLE docs DROP c;
        ALTER TABLE docs RENAME d TO y;
        ALTER TABLE docs ALTER e TYPE timestamptz;
        """
    )
    (created,) = await relay.messages_of("c")
    moment = "2026-06-01T10:00:00+00:00"
    assert created["Data"] == {
        "DocId": 1,
        "CompanyId": "c",
        "A": {"n": BIG},
        "B": {"n": BIG},
        "C": moment,
        "D": moment,
        "E": moment,
    }


async def test_a_backlog_from_before_a_column_had_a_time_zone_gets_it(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(f"{TABLE}; ALTER TABLE docs ADD made timestamp")
    await migrate(database.dsn, watches=[*CALENDAR, DOC])
    await app.execute("INSERT INTO docs VALUES (1, 'c', '2026-06-01 10:00:00')")
    await database.execute("SET timezone = 'UTC'; ALTER TABLE docs ALTER made TYPE timestamptz")
    relay = make_relay()
    await relay.start()
    (created,) = await relay.messages_of("c")
    assert created["Data"]["Made"] == "2026-06-01T10:00:00+00:00"


async def test_a_column_that_is_gone_again_is_not_looked_for_with_each_change(
    database: Database, app: Connection, make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    load_sources = RelayStore.load_sources

    async def counted(store: RelayStore) -> dict[str, Source]:
        nonlocal reads
        reads += 1
        return await load_sources(store)

    relay = make_relay()
    await watched(database, relay)
    monkeypatch.setattr(RelayStore, "load_sources", counted)
    await relay.asleep()
    await database.execute(
        f"ALTER TABLE docs ADD extra json; INSERT INTO docs VALUES (0, 'c', '{NESTED}'); ALTER TABLE docs DROP extra"
    )
    for number in range(1, 31):
        await app.execute(f"INSERT INTO docs VALUES ({number}, 'c')")
        await relay.settled()
    assert len(await relay.messages_of("c")) == 31
    assert 0 < reads < 10  # ANALYZE by autovacuum may add one


async def test_a_column_that_decides_who_sees_a_row_and_is_replaced_by_a_virtual_one_hides_it(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await skip_before(18, database, "virtual columns")
    relay = make_relay()
    watch = Watch(table="docs", entity="Doc", visible_to=("reader",))
    await watched(database, relay, watch, f"{TABLE}; ALTER TABLE docs ADD reader text")
    await app.execute("INSERT INTO docs VALUES (1, 'c', NULL)")
    assert types(await relay.messages_of("c")) == ["DocCreated"]
    await database.execute(
        "ALTER TABLE docs DROP reader, ADD reader text GENERATED ALWAYS AS ('u' || id) VIRTUAL"
    )
    await app.execute("INSERT INTO docs VALUES (2, 'c')")
    assert types(await relay.messages_of("c")) == ["DocCreated", "Skipped"]


@pytest.mark.parametrize("column", ["id", "company_id", "gone", "member", "flag"])
async def test_a_column_that_a_watch_needs_and_is_replaced_by_a_virtual_one_is_a_problem(
    database: Database, column: str
) -> None:
    """No trigger sees its values: changes would be of no company, or of another row."""
    await skip_before(18, database, "virtual columns")
    await database.execute(
        "CREATE TABLE docs (id text PRIMARY KEY, company_id text, gone bool, member text, flag bool, title text)"
    )
    doc = Watch(
        table="docs", entity="Doc", member="member", member_if={"flag": True}, deleted_if="gone"
    )
    await migrate(database.dsn, watches=[*CALENDAR, doc])
    problems = "SELECT object FROM notifier.watch_problems() WHERE fatal"
    assert await database.fetch(problems) == []
    value = "bool GENERATED ALWAYS AS (title IS NULL)" if column in ("gone", "flag") else ""
    await database.execute(
        f"ALTER TABLE docs DROP {column}, ADD {column} {value or 'text GENERATED ALWAYS AS (title)'} VIRTUAL"
    )
    assert [row["object"] for row in await database.fetch(problems)] == [f"public.docs.{column}"]
