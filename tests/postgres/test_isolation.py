"""A message that PostgreSQL refuses to store stops no other: a Resync takes its place."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from tests.databases import Connection, Database
from tests.postgres.relays import (
    MakeRelay,
    Relayed,
    log_head,
    messages_of,
    new_company,
    new_event,
    types,
)
from tests.waiting import until


async def refuse_bodies(database: Database) -> None:
    """Messages with the word `poison` cannot be stored any more."""
    await database.execute(
        "ALTER TABLE notifier.messages ADD CHECK (body::text NOT LIKE '%poison%')"
    )


def replaced() -> float:
    return REGISTRY.get_sample_value("notifier_replaced_messages_total") or 0.0


async def test_a_refused_message_is_replaced_by_a_resync_at_its_position(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await refuse_bodies(database)
    other, before = await new_company(app, "Bolt"), replaced()
    async with app.transaction():
        for number in range(20):
            await new_event(app, company, f"{number}{' poison' if number in (7, 8, 19) else ''}")
            await new_event(app, other, str(number))
    messages = await relay.messages_of(company)
    assert [m["Type"] for m in messages] == [
        "Resync" if number in (7, 8, 19) else "EventCreated" for number in range(20)
    ]
    epoch, _ = await log_head(database)
    assert messages[7]["Data"] == {"CompanyId": company, "Reason": "overflow", "Epoch": epoch}
    assert types(await relay.messages_of(other)) == ["EventCreated"] * 20
    assert replaced() == before + 3
    revokes = await database.fetchval(
        "SELECT revokes FROM notifier.messages WHERE company = $1 AND position = 8", company
    )
    assert revokes == ["*"]
    published = [message for _, message in relay.published if message.company == company]
    assert [message.position for message in published] == list(range(1, 21))


@pytest.mark.parametrize("beats", [False, True], ids=["", "with heartbeats all the time"])
async def test_after_a_refused_message_the_relay_goes_on_in_the_same_term(
    database: Database,
    app: Connection,
    company: str,
    make_relay: MakeRelay,
    monkeypatch: pytest.MonkeyPatch,
    beats: bool,
) -> None:
    await refuse_bodies(database)
    if beats:
        monkeypatch.setattr("notifier.relay.relay.HEARTBEAT_SECONDS", 0.0)
    relay = make_relay()
    await relay.start()
    term = relay.relay and relay.relay._term
    for title in ("first", "poison", "last"):
        await new_event(app, company, title)
        await relay.settled()
    assert types(await relay.messages_of(company)) == ["EventCreated", "Resync", "EventCreated"]
    assert relay.relay is not None
    assert relay.relay._term is term


@pytest.mark.parametrize("rows", [3_000, 6_000], ids=["pages", "one large transaction"])
async def test_a_refused_message_in_a_backlog_is_replaced_too(
    rows: int, database: Database, app: Connection, company: str
) -> None:
    await refuse_bodies(database)
    relay = Relayed(database, bulk_limit=100_000)
    statement = (
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT $1, 'u' || n, CASE n % 1000 WHEN 0 THEN 'poison' ELSE 'Ann' END"
        " FROM generate_series($2::int, $3::int) AS n"
    )
    if rows > 5_000:
        await app.execute(statement, company, 1, rows)
    else:
        for first in range(1, rows, 100):
            await app.execute(statement, company, first, first + 99)
    await relay.start()
    try:
        kinds = types(await relay.messages_of(company))
        assert len(kinds) == rows
        assert kinds.count("Resync") == rows // 1000
    finally:
        await relay.stop()


async def test_a_company_of_which_nothing_can_be_stored_stops_no_other(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    await database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF new.company = '{company}' THEN RAISE 'no'; END IF; RETURN new; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON notifier.messages"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    other = await new_company(app, "Bolt")
    async with app.transaction():
        for number in range(10):
            await new_event(app, (company, other)[number % 2], str(number))
    await new_event(app, other, "later")
    assert len(await relay.messages_of(other)) == 6
    assert await messages_of(database, company) == []
    seqs = await database.fetch("SELECT seq FROM notifier.messages ORDER BY seq")
    assert [row["seq"] for row in seqs] == list(range(1, len(seqs) + 1))


async def test_a_position_that_is_taken_begins_an_epoch(
    database: Database, app: Connection, company: str, relay: Relayed
) -> None:
    """The log has messages that this relay has not numbered: it is not the one that it continues."""
    await new_event(app, company)
    await relay.settled()
    before, _ = await log_head(database)
    await database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body)"
        " SELECT slot, 1000000, company, 2, at, body FROM notifier.messages"
        " WHERE company = $1 AND position = 1",
        company,
    )
    async with app.transaction():
        await new_event(app, company, "collides")
        await new_event(app, await new_company(app, "Bolt"), "stored after it")

    async def begun() -> bool:
        return (await log_head(database))[0] != before

    await until(begun)
    await new_event(app, company, "after")
    assert types(await relay.messages_of(company))[0] == "Resync"
