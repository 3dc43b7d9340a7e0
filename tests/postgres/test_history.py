"""What is read of the log for many at once: heads, pages, and their bounds."""

from __future__ import annotations

import asyncio

import pytest

from notifier.database.query import Query
from notifier.delivery import history as histories
from notifier.delivery.encoding import TEXT
from notifier.delivery.history import Head, History
from notifier.delivery.hub import Beginning
from notifier.demo.postgres import EmbeddedPostgres
from notifier.messages import View, encode_views
from tests.databases import Database
from tests.postgres.streams import Log, Node


async def test_a_company_whose_head_is_read_is_registered_in_the_log(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await log.database.execute("INSERT INTO notifier.positions VALUES ('gone', 7)")
    (*_, last) = await log.stored()
    epoch = await log.epoch()
    heads = await node.history._load_heads(["a", "gone", "new"])
    assert heads == {
        "a": Head(3, last.at, epoch, 3),
        "gone": Head(7, None, epoch, 3),
        "new": Head(0, None, epoch, 3),
    }
    assert node.query.queries == 2
    rows = await log.database.fetch("SELECT * FROM notifier.positions ORDER BY company")
    assert [tuple(row) for row in rows] == [("a", 0), ("gone", 7), ("new", 0)]
    heads = await node.history._load_heads(["new", "gone"])
    assert heads == {"gone": Head(7, None, epoch, 3), "new": Head(0, None, epoch, 3)}
    assert node.query.queries == 3


async def test_a_company_that_the_encoding_lacks_has_no_messages_and_harms_no_other(
    log: Log, node: Node
) -> None:
    await log.store("a", 3)
    await log.store("b", 2)
    heads = await node.history._load_heads(["a", "no\0company", "b"])
    assert [heads[name].position for name in ("a", "no\0company", "b")] == [3, 0, 2]
    heads = await node.history._load_heads(["no\0company"])
    assert heads == {"no\0company": Head(0, None)}


async def test_a_page_has_the_texts_of_single_users(log: Log, node: Node) -> None:
    await log.store("a", 2)
    views = encode_views([View(frozenset({"u1"}), True, b'{"Type":"EventCreated"}')])
    await log.database.execute(
        "UPDATE notifier.messages SET views = $1 WHERE position = 2", views.decode()
    )
    page = await node.history.page("a", 0, await log.epoch())
    assert [len(message.views) for message in page] == [0, 1]
    assert page == await log.stored()


async def test_pages_are_each_companys_after_its_position_in_its_epoch(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "PAGE_MESSAGES", 3)
    await log.store("a", 5)
    await log.store("b", 2)
    epoch = await log.epoch()
    wanted = [
        ("b", 0, epoch),
        ("a", 1, "former"),
        ("a", 1, epoch),
        ("a", 4, epoch),
        ("c", 0, epoch),
    ]
    pages = await asyncio.gather(*(node.history.page(*key) for key in wanted))
    places = [[(message.company, message.position) for message in page] for page in pages]
    assert places == [
        [("b", 1), ("b", 2)],
        [],
        [("a", 2), ("a", 3), ("a", 4)],
        [("a", 5)],
        [],
    ]
    assert pages[0] == (await log.stored())[5:]
    assert node.query.queries == 2  # one for each epoch


async def test_the_hub_resumes_from_the_log(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await node.start()
    channel = await node.hub.open("a")
    stored = await log.stored()
    for after, message in enumerate(stored, 1):
        assert await node.hub.begin_replay(channel, after) == Beginning(message.at)
    assert await node.hub.begin_replay(channel, 0) == Beginning(None)
    assert await node.hub.begin_replay(channel, 4) is None
    (chunk,) = await node.hub.replay(channel, 1, TEXT, "u")
    assert chunk.bodies == [message.body for message in stored][1:]


async def test_the_at_of_a_company_is_unknown_when_only_older_messages_are_left(
    log: Log, node: Node
) -> None:
    """Slots are emptied in turn, so this is no state that pruning leaves; it must not be trusted."""
    await log.store("a", 3)
    await log.database.execute("INSERT INTO notifier.positions VALUES ('a', 5)")
    assert await node.history.head("a") == Head(5, None, await log.epoch(), log.seq)


async def test_pages_are_read_a_hundred_at_once(log: Log, node: Node) -> None:
    await log.store("a", 101)
    epoch = await log.epoch()
    pages = await asyncio.gather(*(node.history.page("a", after, epoch) for after in range(101)))
    assert [len(page) for page in pages] == list(range(101, 0, -1))
    assert node.query.queries == 2


async def test_a_company_that_a_subscription_has_registered_survives_a_crash(
    mortal: EmbeddedPostgres, mortal_database: Database
) -> None:
    """Though the database commits asynchronously: otherwise a TRUNCATE is no Resync for it."""
    await mortal_database.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await mortal_database.execute("SELECT pg_reload_conf()")
    await mortal_database.execute(
        f"ALTER DATABASE {mortal_database.name} SET synchronous_commit = 'off'"
    )
    mortal_database.leave()
    for pooled in (False, True):
        query = Query(mortal_database.dsn, "queries", pooled=pooled)
        await History(query).head(f"a{pooled}")
        query.close()
        await asyncio.to_thread(mortal.kill)
        await asyncio.to_thread(mortal.start)
    rows = await mortal_database.fetch("SELECT company FROM notifier.positions ORDER BY 1")
    assert [row["company"] for row in rows] == ["aFalse", "aTrue"]


async def test_many_pages_in_one_query_are_shorter_and_companies_take_turns(
    log: Log, node: Node
) -> None:
    await log.store("a", 1500)
    await log.store("b", 1)
    epoch = await log.epoch()
    reading = [node.history.page("a", after, epoch) for after in range(histories.COMPANIES)]
    *pages, other = await asyncio.gather(*reading, node.history.page("b", 0, epoch))
    assert node.query.queries == 2
    assert len(other) == 1
    whole = histories.WHOLE_PAGES * histories.PAGE_MESSAGES
    assert sum(map(len, pages)) <= 1.2 * whole
    for after, page in enumerate(pages):
        assert len(page) >= 100
        assert [each.position for each in page] == [*range(after + 1, after + 1 + len(page))]
    assert len(await node.history.page("a", 0, epoch)) == histories.PAGE_MESSAGES


async def test_many_pages_are_shorter_than_a_few(log: Log, node: Node) -> None:
    """Those of a hundred clients that resume from different positions would not be read in time."""
    await log.store("a", 2000)
    epoch = await log.epoch()
    for count, length in ((1, 1000), (12, 1000), (13, 500), (100, 111)):
        keys = [("a", after, epoch) for after in range(count)]
        pages = await node.history._load_pages(keys)
        assert [[each.position for each in pages[key]] for key in keys] == [
            [*range(after + 1, after + length + 1)] for after in range(count)
        ]
