"""How a node follows the log: from where on, what it lacks, and when it must give up.

The messages are written by the test, as a relay stores them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import asyncpg
import pytest

from notifier.database import connections, sql
from notifier.database.connections import Connection, connect
from notifier.delivery import postgres_stream as streams
from notifier.messages import Message
from notifier.relay.publisher import LocalPublisher
from tests.databases import Database
from tests.postgres.streams import Log, Node, Recorder, cut
from tests.waiting import DEADLINE_SECONDS, until

# --- from where on


async def test_a_node_begins_at_the_end_of_the_log_and_delivers_what_comes(
    log: Log, node: Node
) -> None:
    await log.store("a", 3)
    await node.start()
    subscriber, other = await node.subscribe("a"), await node.subscribe("b")
    assert (subscriber.channel.position, other.channel.position) == (3, 0)
    assert node.hub.epoch == await log.epoch()
    await log.publish("a", 2)
    await log.publish("b", 1)
    await other.gets(1)
    await subscriber.gets(2)
    assert (subscriber.channel.position, other.channel.position) == (5, 1)


async def test_a_message_is_delivered_as_it_was_stored(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start()
    delivered: list[Message] = []
    monkeypatch.setattr(node.hub, "deliver", delivered.extend)
    await log.store("a", 1, ["u", "*"])
    await log.publish("b")

    async def both() -> bool:
        return len(delivered) == 2

    await until(both)
    assert delivered == await log.stored()
    assert [message.revokes for message in delivered] == [("u", "*"), ()]
    assert delivered[0].at < delivered[0].stored


async def test_a_user_who_may_have_lost_a_company_is_rechecked(log: Log, node: Node) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 2, ["u"])
    await log.publish("a")
    await subscriber.gets(3)
    assert subscriber.rechecks == [1, 2]
    assert node.hub.revocations.since(0, "a", "u")


async def test_messages_stored_while_the_link_is_down_are_delivered_when_it_is_back(
    log: Log, node: Node
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 1)
    await subscriber.gets(1)
    await log.store("a", 2)  # without a notification
    await cut(log.database, "node")
    await subscriber.gets(3)
    await log.publish("a", 1)
    await subscriber.gets(4)
    assert not subscriber.is_dropped


async def test_messages_without_a_notification_are_delivered_with_the_next_probe(
    log: Log, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    node = make_node()
    await node.start()
    subscriber = await node.subscribe()
    link = "SELECT pid FROM pg_stat_activity WHERE application_name = 'notifier node'"
    link += " AND datname = current_database()"
    pid = await log.database.fetchval(link)
    for count in (1, 2, 3):
        await log.store()
        await subscriber.gets(count)
    assert await log.database.fetchval(link) == pid


@pytest.mark.parametrize("count", [1, 3, 6, 7])
async def test_a_long_gap_is_read_in_pages_and_delivered_in_order(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(streams, "PAGE_MESSAGES", 3)
    await node.start()
    subscriber = await node.subscribe()
    reads, sizes, deliver = node.stream.reads, list[int](), node.hub.deliver

    def delivered(messages: Sequence[Message]) -> None:
        sizes.append(len(messages))
        deliver(messages)

    monkeypatch.setattr(node.hub, "deliver", delivered)
    await log.publish("a", count)
    await subscriber.gets(count)
    assert max(sizes) <= 3
    assert subscriber.bodies == [message.body for message in await log.stored()]
    await log.publish("a")
    await subscriber.gets(count + 1)
    assert node.stream.reads == reads + 2


async def test_a_page_of_the_log_that_is_not_read_in_time_is_read_again_in_shorter_ones(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL decompresses each text to learn its size: for a thousand of several MiB that takes longer than a read may."""
    fetch = connections._Bounded.fetch

    async def missing_deadlines(connection: Any, query: str, *arguments: Any, **rest: Any) -> Any:
        rows = await fetch(connection, query, *arguments, **rest)
        if query == sql.query("catch_up") and len(rows) > 100:
            raise TimeoutError
        return rows

    monkeypatch.setattr(connections._Bounded, "fetch", missing_deadlines)
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 150)
    await subscriber.gets(150)
    assert subscriber.bodies == [message.body for message in await log.stored()]


async def test_whole_pages_of_the_log_are_read_again_after_the_shortest_ones(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of one message is never shorter than it may be: what ends it is an empty one."""
    fetch, limits, is_slow = connections._Bounded.fetch, list[int](), True

    async def missing_deadlines(connection: Any, query: str, *arguments: Any, **rest: Any) -> Any:
        rows = await fetch(connection, query, *arguments, **rest)
        if query == sql.query("catch_up"):
            limits.append(arguments[2])
            if is_slow and len(rows) > 1:
                raise TimeoutError
        return rows

    monkeypatch.setattr(connections._Bounded, "fetch", missing_deadlines)
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 5)
    await subscriber.gets(5)
    assert 1 in limits
    is_slow = False

    async def is_whole() -> bool:
        await log.publish("a")
        return limits[-1] == streams.PAGE_MESSAGES

    await until(is_whole)


async def test_messages_that_are_gone_drop_all_subscribers_and_the_rest_is_delivered(
    log: Log, node: Node
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.publish()
    await subscriber.gets(1)
    await log.store("a", 5)
    await log.delete(log.seq - 1)
    await log.notify()

    async def lost() -> bool:
        return subscriber.is_dropped

    await until(lost)
    assert not node.hub.is_current(subscriber.channel)
    assert len(subscriber.bodies) == 1
    again = await node.subscribe()
    await log.publish("a")
    await again.gets(1)
    assert not again.is_dropped


async def test_a_log_without_a_gap_drops_no_subscriber(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await node.start()
    subscriber = await node.subscribe()
    await log.delete(3)
    await log.publish("a")
    await subscriber.gets(1)
    assert not subscriber.is_dropped


# --- another epoch


async def test_in_another_epoch_positions_start_again(log: Log, node: Node) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 3)
    await subscriber.gets(3)
    await log.begin_epoch("next")
    await log.publish("a", 2)
    await subscriber.gets(6)
    assert node.hub.epoch == "next"
    assert subscriber.channel.position == 3
    await log.publish("a")
    await subscriber.gets(7)
    assert not subscriber.is_dropped


async def test_nothing_of_the_former_epoch_is_delivered_in_the_next(log: Log, node: Node) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a")
    await subscriber.gets(1)
    await log.store("a", 4)  # the node has not delivered of it
    await log.begin_epoch("next")
    await log.publish("a")
    await subscriber.gets(3)
    assert subscriber.channel.position == 2


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("behind", [True, False])
async def test_an_epoch_without_a_resync_drops_the_channels_that_were_followed_into_it(
    log: Log,
    make_node: Callable[..., Node],
    monkeypatch: pytest.MonkeyPatch,
    behind: bool,
    written: bool,
) -> None:
    """Its clients would take the next messages, whose positions begin again, for those that they have.

    `behind`: a message that the node has not read precedes the epoch. `written`: the epoch has another message.
    """
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    node = make_node()
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 2)
    await subscriber.gets(2)
    await log.database.execute("BEGIN")  # so that no probe reads a part of it
    if behind:
        await log.store("a")
    await log.begin_epoch("next", resyncs=False)
    if written:
        await log.store("a")
    await log.database.execute("COMMIT")

    async def dropped() -> bool:
        return subscriber.is_dropped

    await until(dropped)
    assert node.hub.epoch == "next"
    assert len(subscriber.bodies) == 2


# --- notifications


async def test_a_forged_notification_is_at_most_a_reason_to_read(log: Log, node: Node) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    await node.start()
    subscriber = await node.subscribe()
    await log.publish()
    await subscriber.gets(1)
    reads = node.stream.reads
    nothing = ["", "x", "-7", "7 ", "0x7", "\u0667", "\u00b2", "0", "1", "9" * 20, "9" * 5000]
    for payload in nothing:
        await log.notify(payload)
    await log.publish()
    await subscriber.gets(2)
    assert node.stream.reads == reads + 1
    for number, payload in enumerate(["3", "9" * 19], 2):
        await log.notify(payload)
        await node.reads(reads + number)
    await log.publish()
    await subscriber.gets(3)
    assert not faults


async def test_many_forged_notifications_cost_few_reads(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 1.0)
    await node.start()
    subscriber = await node.subscribe()
    reads, began = node.stream.reads, time.monotonic()
    for _ in range(200):
        await log.notify("9" * 19)
    await log.publish()
    await subscriber.gets(1)
    assert node.stream.reads <= reads + 2 + (time.monotonic() - began)  # one in each second


# --- a relay on this node


async def test_messages_from_the_relay_on_this_node_are_delivered_at_once_and_not_read_again(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(streams, "PROBE_SECONDS", 600.0)  # a probe reads the log too
    await node.start()
    subscriber, other = await node.subscribe("a"), await node.subscribe("b")
    reads = node.stream.reads
    await log.store("a", 6)
    epoch, messages = await log.epoch(), await log.stored()
    node.stream.accept(epoch, messages[:3])
    assert len(subscriber.bodies) == 3
    await log.notify(5)
    await node.notified()  # and now a moment is left to the relay
    node.stream.accept(epoch, messages[3:5])
    assert len(subscriber.bodies) == 5

    async def over() -> bool:
        return not node.stream._unread.is_set()

    await until(over)
    assert node.stream.reads == reads
    await log.notify(6)
    await node.notified()
    node.stream.accept(epoch, messages[5:])
    assert len(subscriber.bodies) == 6
    assert node.stream.reads == reads
    await log.publish(
        "b"
    )  # from a relay on another node, whose notification comes in the grace time
    await other.gets(1)
    assert node.stream.reads == reads + 1
    assert len(subscriber.bodies) == 6


async def test_messages_delivered_right_after_their_notification_are_not_read_again(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay on this node delivers them before the stream's task has a turn."""
    monkeypatch.setattr(streams, "PROBE_SECONDS", 600.0)  # a probe reads the log too
    await node.start()
    subscriber, other = await node.subscribe("a"), await node.subscribe("b")
    reads = node.stream.reads
    await log.store("a", 2)
    epoch, messages = await log.epoch(), await log.stored()
    node.stream.accept(epoch, messages[:1])
    woken = node.stream._unread.set

    def wake() -> None:
        woken()
        node.stream.accept(epoch, messages[1:])

    monkeypatch.setattr(node.stream._unread, "set", wake)
    await log.notify(2)
    await subscriber.gets(2)
    monkeypatch.setattr(node.stream._unread, "set", woken)
    await log.publish("b")
    await other.gets(1)
    assert node.stream.reads == reads + 1


async def test_a_gap_in_messages_accepted_in_the_grace_time_is_read_from_the_log(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(streams, "PROBE_SECONDS", 600.0)  # a probe reads the log too
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 6)
    epoch, messages = await log.epoch(), await log.stored()
    node.stream.accept(epoch, messages[:2])
    await log.notify(4)
    await node.notified()
    node.stream.accept(epoch, messages[2:4])
    node.stream.accept(epoch, messages[5:])
    await subscriber.gets(6)
    assert subscriber.bodies == [message.body for message in messages]


async def test_messages_that_are_accepted_twice_are_delivered_once(log: Log, node: Node) -> None:
    await log.store("a", 2)
    await node.start()
    subscriber = await node.subscribe()
    epoch = await log.epoch()
    await log.store("a", 3)
    messages = await log.stored()
    for some in (messages[2:3], messages[:3], messages[2:3], messages[3:]):
        node.stream.accept(epoch, some)
    assert subscriber.bodies == [message.body for message in messages[2:]]
    assert not node.stream._unread.is_set()


async def test_messages_that_are_accepted_with_a_gap_are_read_from_the_log(
    log: Log, node: Node
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 4)
    messages = await log.stored()
    node.stream.accept(await log.epoch(), messages[2:])
    assert subscriber.bodies == []
    await subscriber.gets(4)
    assert subscriber.bodies == [message.body for message in messages]
    node.stream.accept(await log.epoch(), messages[2:])
    await log.store("a")
    node.stream.accept(await log.epoch(), (await log.stored())[3:])  # an overlap is one as well
    await subscriber.gets(5)


async def test_accepted_messages_of_which_one_is_missing_are_read_from_the_log(
    log: Log, node: Node
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 3)
    first, second, third = await log.stored()
    node.stream.accept(await log.epoch(), [])
    node.stream.accept(await log.epoch(), [first, third])
    assert subscriber.bodies == []
    await subscriber.gets(3)
    assert subscriber.bodies == [first.body, second.body, third.body]


async def test_messages_that_are_accepted_of_another_epoch_are_read_from_the_log(
    log: Log, node: Node
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 2)
    await subscriber.gets(2)
    await log.begin_epoch("next")
    await log.store("a")
    node.stream.accept("next", (await log.stored())[2:])
    assert len(subscriber.bodies) == 2
    await subscriber.gets(4)
    assert (node.hub.epoch, subscriber.channel.position) == ("next", 2)


@pytest.mark.parametrize("how", ["link", "term"])
async def test_messages_of_a_relay_on_a_rewound_log_are_not_delivered_behind_others(
    log: Log, node: Node, how: str
) -> None:
    """The relay leads again, and stores messages in the place of those that are lost.

    `how` the stream knows: its link was lost, too, or the relay has begun a term while it is not yet.
    """
    subscriber = await follow_and_cut(log, node)
    epoch, relay = await log.epoch(), LocalPublisher(node.stream.accept, node.stream.doubt)
    await log.database.execute("DELETE FROM notifier.messages WHERE seq > 2")
    log.seq, log.positions["a"] = 2, 2
    await log.store("a")
    if how == "link":
        await cut(log.database, "node")
        await node.reports("the log was rewound")
    else:
        await node.stop()
        relay.begin(epoch, 2)
        relay.publish(epoch, (await log.stored())[2:])
    for seq in (4, 5):
        await log.store("a")
        relay.publish(epoch, (await log.stored())[seq - 1 :])
    assert len(subscriber.bodies) == 3


async def test_a_relay_is_trusted_again_where_the_stream_has_read_what_it_has_stored(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 600.0)  # a probe reads the log too
    await node.start()
    subscriber = await node.subscribe()
    epoch = await log.epoch()
    node.stream.doubt()
    await log.store("a")
    node.stream.accept(epoch, await log.stored())
    assert not subscriber.bodies
    await subscriber.gets(1)
    await log.store("a")
    node.stream.accept(epoch, (await log.stored())[1:])
    assert len(subscriber.bodies) == 2


async def test_nothing_that_is_accepted_is_delivered_before_the_log_was_read(
    log: Log, node: Node
) -> None:
    await log.store("a", 2)
    node.stream.accept(await log.epoch(), await log.stored())
    assert node.hub.epoch == ""
    await node.start()
    subscriber = await node.subscribe()
    assert subscriber.channel.position == 2
    await log.publish()
    await subscriber.gets(1)


async def test_messages_accepted_while_the_log_is_read_are_delivered_once(
    log: Log, node: Node, database: Database
) -> None:
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 2)
    messages, epoch = await log.stored(), await log.epoch()
    link = await connect(database.dsn, "test")

    class Late:
        """A link whose answers come when the relay has handed over one message more."""

        async def fetch(self, *arguments: Any, **keywords: Any) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await link.fetch(*arguments, **keywords)
            if rest := messages[len(subscriber.bodies) :]:
                node.stream.accept(epoch, rest[:1])
            return rows

    await node.stream._catch_up(cast("Connection", Late()))
    link.terminate()
    assert subscriber.bodies == [message.body for message in messages]


# --- what cannot go on


async def test_a_node_that_has_lost_the_database_is_not_ready_until_it_is_back(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = asyncio.Event()

    async def wait(attempt: int) -> None:
        attempts.append(attempt)
        await back.wait()

    async def waits(*expected: int) -> None:
        """Returns when it waits before the next attempt."""

        async def is_waiting() -> bool:
            return attempts == [*expected]

        await until(is_waiting)
        # The second where the connection ends between two queries.
        assert re.match("lost the database|the connection was closed", node.health.reason() or "")

    attempts: list[int] = []
    monkeypatch.setattr(connections, "backoff", wait)
    await node.start()
    assert attempts == []
    await cut(log.database, "node")
    await waits(1)
    back.set()
    await node.reports("no node holds the relay lock")
    for count in (2, 3):
        back.clear()
        await cut(log.database, "node")
        await waits(*range(1, count + 1))
        back.set()
        await node.reports("no node holds the relay lock")
    monkeypatch.setattr(connections, "STEADY_SECONDS", 0.0)
    back.clear()
    await cut(log.database, "node")
    await waits(1, 2, 3, 0)


async def test_an_empty_log_is_reported(log: Log, node: Node) -> None:
    await log.database.execute("DELETE FROM notifier.log")
    node.begin()
    await node.reports("run: notifier migrate")


async def test_queries_and_the_stream_must_be_of_one_database(
    database: Database,
    make_database: Callable[[], Awaitable[Database]],
    make_node: Callable[..., Node],
) -> None:
    other = await make_database()
    torn, whole = make_node(database.dsn, other.dsn), make_node(database.dsn, database.dsn + "?")
    torn.begin()
    await torn.reports("is not the database of NOTIFIER_DATABASE_URL")
    assert torn.hub.epoch == ""
    await whole.start()
    assert whole.query.queries == 1


# --- a log that does not continue what was delivered (cases.md, 4)


async def follow_and_cut(log: Log, node: Node) -> Recorder:
    """A node that has delivered three messages and has lost its link."""
    await node.start()
    subscriber = await node.subscribe()
    await log.publish("a", 3)
    await subscriber.gets(3)
    return subscriber


@pytest.mark.parametrize("ahead", [False, True])
async def test_cases_4_a_log_with_other_messages_than_were_delivered_delivers_nothing(
    log: Log, node: Node, ahead: bool
) -> None:
    """It was rewound, and has not come as far again, or has passed what was delivered."""
    subscriber = await follow_and_cut(log, node)
    await log.database.execute("DELETE FROM notifier.messages WHERE seq > 1")
    if ahead:
        await log.database.execute(
            "INSERT INTO notifier.messages (slot, seq, company, position, at, body)"
            " SELECT 0, n, 'a', n, now(), '{}' FROM generate_series(2, 9) AS n"
        )
    await cut(log.database, "node")
    await node.reports("the log was rewound")
    assert len(subscriber.bodies) == 3
    assert await log.database.fetchval("SELECT saved_by::text FROM notifier.log") == "0"
    log.seq = 9
    await log.begin_epoch("next")  # as the relay does
    await log.publish("a", 2)
    await subscriber.gets(6)
    assert node.hub.epoch == "next"


async def test_a_log_that_was_rewound_is_noticed_by_a_node_that_has_delivered_nothing(
    log: Log, node: Node
) -> None:
    """It knows the message at which it began: messages up to there that were stored again would never be delivered."""
    await log.store("a", 5)
    await node.start()
    subscriber = await node.subscribe()
    assert subscriber.channel.position == 5
    await log.database.execute("DELETE FROM notifier.messages WHERE seq > 2")
    await log.database.execute(
        "INSERT INTO notifier.messages (slot, seq, company, position, at, body)"
        " SELECT 0, n, 'a', n, now(), '{}' FROM generate_series(3, 9) AS n"
    )
    await cut(log.database, "node")
    await node.reports("the log was rewound")
    assert not subscriber.bodies
    assert await log.database.fetchval("SELECT saved_by::text FROM notifier.log") == "0"


async def test_a_node_that_has_delivered_nothing_reports_no_log_that_goes_on(
    log: Log, node: Node
) -> None:
    await log.store("a", 5)
    await node.start()
    subscriber = await node.subscribe()
    await log.store("a", 2)
    await cut(log.database, "node")
    await subscriber.gets(2)
    assert await log.database.fetchval("SELECT saved_by::text FROM notifier.log") != "0"


async def test_cases_4_a_log_that_continues_what_was_delivered_is_not_reported(
    log: Log, node: Node
) -> None:
    subscriber = await follow_and_cut(log, node)
    await log.store("a", 2)
    await cut(log.database, "node")
    await subscriber.gets(5)
    assert await log.database.fetchval("SELECT saved_by::text FROM notifier.log") != "0"


async def test_a_configuration_that_was_announced_while_the_link_was_down_is_read(
    log: Log, node: Node
) -> None:
    read = asyncio.Event()
    await node.start()
    node.stream._on_configuration = read.set
    await cut(log.database, "node")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await read.wait()


async def test_a_probe_whose_number_has_digits_alone_is_no_seq(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "1234567890123456")
    await node.start()  # returns when its notification has come back
