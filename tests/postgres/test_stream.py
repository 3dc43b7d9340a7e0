"""How a node hears the log, on a real one: from where on, what it lacks, and when it must give up.

The messages are written by the test, as a relay stores them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import asyncpg
import pytest

from notifier.database import connections
from notifier.database.connections import Connection, connect, listener
from notifier.database.query import Query
from notifier.delivery import history as histories
from notifier.delivery import postgres as streams
from notifier.delivery import probe as probes
from notifier.delivery.channel import Channel
from notifier.delivery.encoding import TEXT
from notifier.delivery.history import History
from notifier.delivery.hub import Hub
from notifier.delivery.postgres import PostgresStream
from notifier.delivery.probe import Probe
from notifier.errors import Misplaced, SchemaMissing
from notifier.health import Health
from notifier.messages import Message
from tests.databases import Database
from tests.waiting import until


class Log:
    """Stores messages and rings, each when the test says so."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seq = self.slot = 0
        self.positions: Counter[str] = Counter()

    async def store(
        self, company: str = "a", count: int = 1, revokes: Sequence[str] | None = None
    ) -> None:
        await self.database.execute(
            "INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes)"
            " SELECT $6, $1 + n, $2, $3 + n, now() - interval '1 s', json_build_object('N', n), $4"
            " FROM generate_series(1, $5::int) AS n",
            self.seq, company, self.positions[company], revokes, count, self.slot,
        )  # fmt: skip
        self.seq += count
        self.positions[company] += count

    async def ring(self, payload: object = None) -> None:
        payload = self.seq if payload is None else payload
        await self.database.execute("SELECT pg_notify('notifier_messages', $1)", str(payload))

    async def say(self, company: str = "a", count: int = 1) -> None:
        await self.store(company, count)
        await self.ring()

    async def renew(self, epoch: str) -> None:
        """Another epoch begins behind what is stored."""
        await self.database.execute(
            "UPDATE notifier.log SET epoch = $1, epoch_seq = $2", epoch, self.seq
        )
        self.positions.clear()
        self.slot += 1

    async def forget(self, seq: int) -> None:
        """What is stored up to this one is gone."""
        await self.database.execute("DELETE FROM notifier.messages WHERE seq <= $1", seq)

    async def stored(self) -> list[Message]:
        """All of it, as a relay on this node would hand it over."""
        rows = await self.database.fetch("SELECT * FROM notifier.messages ORDER BY seq")
        return [
            Message(
                row["seq"], row["company"], row["position"], row["at"], row["stored"],
                row["body"].encode(), tuple(row["revokes"] or ()),
            )
            for row in rows
        ]  # fmt: skip

    async def epoch(self) -> str:
        return str(await self.database.fetchval("SELECT epoch FROM notifier.log"))


class Looking(PostgresStream):
    """Counts how often it reads the log."""

    looks = 0

    async def _catch_up(self, connection: Connection) -> None:
        self.looks += 1
        await super()._catch_up(connection)


class Ear:
    """A subscriber of one company."""

    user = "u"

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.bodies: list[bytes] = []
        self.rechecks: list[int] = []
        self.is_dropped = False
        channel.join(self, TEXT, None)

    def write(self, frames: bytes, bodies: Sequence[bytes]) -> None:
        self.bodies += bodies

    def recheck(self, position: int, *, certain: bool) -> None:
        self.rechecks.append(position)

    def dropped(self) -> None:
        self.is_dropped = True

    async def hears(self, count: int) -> None:
        """Returns when it has heard so many messages."""

        async def heard() -> bool:
            return len(self.bodies) >= count

        await until(heard)
        assert len(self.bodies) == count


class Node:
    """A stream with what it needs, and the task it runs in."""

    def __init__(self, url: str, questions: str) -> None:
        self.asker = Query(questions, "questions", pooled=False)
        self.health = Health()
        self.history = History(self.asker)
        self.hub = Hub(self.history, 24)
        self.stream = Looking(url, self.asker, self.hub, self.health)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it has heard its own notification."""
        self._running = asyncio.create_task(self.stream.run())
        await self.says("no node holds the relay lock")

    def begin(self) -> None:
        self._running = asyncio.create_task(self.stream.run())

    async def says(self, words: str) -> None:
        """Returns when this is why it is not ready."""

        async def said() -> bool:
            return words in (self.health.reason() or "")

        await until(said)

    async def looks(self, count: int) -> None:
        """Returns when it has read the log so often."""

        async def looked() -> bool:
            return self.stream.looks == count

        await until(looked)

    async def rung(self) -> None:
        """Returns when somebody has rung for what it has not heard."""
        looks = self.stream.looks

        async def rings() -> bool:
            return self.stream._look.is_set() or self.stream.looks > looks

        await until(rings)

    async def listen(self, company: str = "a") -> Ear:
        channel = await self.hub.open(company)
        ear = Ear(channel)
        self.hub.close(channel)
        return ear

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self.asker.close()


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
async def make_node(database: Database) -> AsyncIterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(url: str = database.dsn, questions: str | None = None) -> Node:
        made.append(Node(url, questions or url))
        return made[-1]

    yield make
    for node in made:
        await node.stop()


@pytest.fixture
def node(make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node that looks into the log when it is told to, and else once a minute."""
    monkeypatch.setattr(streams, "PROBE_SECONDS", 60.0)
    return make_node()


async def cut(database: Database, name: str) -> None:
    """Ends the connections of that name, as a server does."""
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = $1",
        f"notifier {name}",
    )


# --- from where on


async def test_a_node_begins_at_the_end_of_the_log_and_hears_what_comes(
    log: Log, node: Node
) -> None:
    await log.store("a", 3)
    await node.start()
    ear, other = await node.listen("a"), await node.listen("b")
    assert (ear.channel.position, other.channel.position) == (3, 0)
    assert node.hub.epoch == await log.epoch()
    await log.say("a", 2)
    await log.say("b", 1)
    await other.hears(1)
    await ear.hears(2)
    assert (ear.channel.position, other.channel.position) == (5, 1)


async def test_a_message_is_what_was_stored(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.start()
    heard: list[Message] = []
    monkeypatch.setattr(node.hub, "deliver", heard.extend)
    await log.store("a", 1, ["u", "*"])
    await log.say("b")

    async def both() -> bool:
        return len(heard) == 2

    await until(both)
    assert heard == await log.stored()
    assert [message.revokes for message in heard] == [("u", "*"), ()]
    assert heard[0].at < heard[0].stored


async def test_who_may_have_lost_a_company_is_asked_about(log: Log, node: Node) -> None:
    await node.start()
    ear = await node.listen()
    await log.store("a", 2, ["u"])
    await log.say("a")
    await ear.hears(3)
    assert ear.rechecks == [1, 2]
    assert node.hub.revocations.since(0, "a", "u")


async def test_what_is_stored_while_the_link_is_down_is_heard_when_it_is_back(
    log: Log, node: Node
) -> None:
    await node.start()
    ear = await node.listen()
    await log.say("a", 1)
    await ear.hears(1)
    await log.store("a", 2)  # nobody rings
    await cut(log.database, "node")
    await ear.hears(3)
    await log.say("a", 1)
    await ear.hears(4)
    assert not ear.is_dropped


async def test_what_nobody_rang_for_is_heard_with_the_next_probe(
    log: Log, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    node = make_node()
    await node.start()
    ear = await node.listen()
    link = "SELECT pid FROM pg_stat_activity WHERE application_name = 'notifier node'"
    link += " AND datname = current_database()"
    pid = await log.database.fetchval(link)
    for count in (1, 2, 3):
        await log.store()
        await ear.hears(count)
    assert await log.database.fetchval(link) == pid


@pytest.mark.parametrize("count", [1, 3, 6, 7])
async def test_much_is_read_in_pages_and_heard_in_order(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(streams, "PAGE_MESSAGES", 3)
    await node.start()
    ear = await node.listen()
    looks, sizes, deliver = node.stream.looks, list[int](), node.hub.deliver

    def delivered(messages: Sequence[Message]) -> None:
        sizes.append(len(messages))
        deliver(messages)

    monkeypatch.setattr(node.hub, "deliver", delivered)
    await log.say("a", count)
    await ear.hears(count)
    assert max(sizes) <= 3
    assert ear.bodies == [message.body for message in await log.stored()]
    await log.say("a")
    await ear.hears(count + 1)
    assert node.stream.looks == looks + 2


async def test_messages_that_are_gone_send_everybody_away_and_the_rest_is_heard(
    log: Log, node: Node
) -> None:
    await node.start()
    ear = await node.listen()
    await log.say()
    await ear.hears(1)
    await log.store("a", 5)
    await log.forget(log.seq - 1)
    await log.ring()

    async def lost() -> bool:
        return ear.is_dropped

    await until(lost)
    assert not node.hub.is_current(ear.channel)
    assert len(ear.bodies) == 1
    again = await node.listen()
    await log.say("a")
    await again.hears(1)
    assert not again.is_dropped


async def test_a_log_without_a_hole_sends_nobody_away(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await node.start()
    ear = await node.listen()
    await log.forget(3)
    await log.say("a")
    await ear.hears(1)
    assert not ear.is_dropped


# --- another epoch


async def test_in_another_epoch_positions_begin_anew(log: Log, node: Node) -> None:
    await node.start()
    ear = await node.listen()
    await log.say("a", 3)
    await ear.hears(3)
    await log.renew("next")
    await log.say("a", 2)
    await ear.hears(5)
    assert node.hub.epoch == "next"
    assert ear.channel.position == 2
    await log.say("a")
    await ear.hears(6)
    assert not ear.is_dropped


async def test_of_the_former_epoch_nothing_is_heard_in_the_next(log: Log, node: Node) -> None:
    await node.start()
    ear = await node.listen()
    await log.say("a")
    await ear.hears(1)
    await log.store("a", 4)  # the node has not heard of it
    await log.renew("next")
    await log.say("a")
    await ear.hears(2)
    assert ear.channel.position == 1


async def test_an_epoch_may_begin_without_a_message(
    log: Log, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    node = make_node()
    await node.start()
    ear = await node.listen()
    await log.say("a", 2)
    await ear.hears(2)
    await log.store("a")
    await log.renew("next")

    async def renewed() -> bool:
        return node.hub.epoch == "next"

    await until(renewed)
    assert ear.channel.position == 0
    await log.say("a")
    await ear.hears(3)
    assert not ear.is_dropped


# --- who rings


async def test_a_forged_notification_is_at_most_a_reason_to_look(log: Log, node: Node) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    await node.start()
    ear = await node.listen()
    await log.say()
    await ear.hears(1)
    looks = node.stream.looks
    nothing = ["", "x", "-7", "7 ", "0x7", "\u0667", "\u00b2", "0", "1", "9" * 20, "9" * 5000]
    for payload in nothing:
        await log.ring(payload)
    await log.say()
    await ear.hears(2)
    assert node.stream.looks == looks + 1
    for number, payload in enumerate(["3", "9" * 19], 2):
        await log.ring(payload)
        await node.looks(looks + number)
    await log.say()
    await ear.hears(3)
    assert not faults


async def test_many_forged_notifications_cost_few_looks(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 1.0)
    await node.start()
    ear = await node.listen()
    looks = node.stream.looks
    for _ in range(200):
        await log.ring("9" * 19)
    await log.say()
    await ear.hears(1)
    assert node.stream.looks < looks + 10


# --- a relay on this node


async def test_what_the_relay_of_this_node_hands_over_is_heard_at_once_and_not_read_again(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 2.0)
    await node.start()
    ear, other = await node.listen("a"), await node.listen("b")
    looks = node.stream.looks
    await log.store("a", 6)
    epoch, messages = await log.epoch(), await log.stored()
    node.stream.accept(epoch, messages[:3])
    assert len(ear.bodies) == 3
    await log.ring(5)
    await node.rung()  # and now a moment is left to the relay
    node.stream.accept(epoch, messages[3:5])
    assert len(ear.bodies) == 5

    async def over() -> bool:
        return not node.stream._look.is_set()

    await until(over)
    assert node.stream.looks == looks
    await log.ring(6)
    await node.rung()
    node.stream.accept(epoch, messages[5:])
    assert len(ear.bodies) == 6
    assert node.stream.looks == looks
    await log.say("b")  # the relay is another node's from now on, and has rung in that moment
    await other.hears(1)
    assert node.stream.looks == looks + 1
    assert len(ear.bodies) == 6


async def test_a_hole_in_what_is_handed_over_in_that_moment_is_read_from_the_log(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 2.0)
    await node.start()
    ear = await node.listen()
    await log.store("a", 6)
    epoch, messages = await log.epoch(), await log.stored()
    node.stream.accept(epoch, messages[:2])
    await log.ring(4)
    await node.rung()
    node.stream.accept(epoch, messages[2:4])
    node.stream.accept(epoch, messages[5:])
    await ear.hears(6)
    assert ear.bodies == [message.body for message in messages]


async def test_what_is_handed_over_twice_is_heard_once(log: Log, node: Node) -> None:
    await log.store("a", 2)
    await node.start()
    ear = await node.listen()
    epoch = await log.epoch()
    await log.store("a", 3)
    messages = await log.stored()
    for some in (messages[2:3], messages[:3], messages[2:3], messages[3:]):
        node.stream.accept(epoch, some)
    assert ear.bodies == [message.body for message in messages[2:]]
    assert not node.stream._look.is_set()


async def test_what_is_handed_over_with_a_hole_is_read_from_the_log(log: Log, node: Node) -> None:
    await node.start()
    ear = await node.listen()
    await log.store("a", 4)
    messages = await log.stored()
    node.stream.accept(await log.epoch(), messages[2:])
    assert ear.bodies == []
    await ear.hears(4)
    assert ear.bodies == [message.body for message in messages]
    node.stream.accept(await log.epoch(), messages[2:])
    await log.store("a")
    node.stream.accept(await log.epoch(), (await log.stored())[3:])  # an overlap is one as well
    await ear.hears(5)


async def test_what_is_handed_over_of_another_epoch_is_read_from_the_log(
    log: Log, node: Node
) -> None:
    await node.start()
    ear = await node.listen()
    await log.say("a", 2)
    await ear.hears(2)
    await log.renew("next")
    await log.store("a")
    (first,) = (await log.stored())[2:]
    node.stream.accept("next", [first])
    assert len(ear.bodies) == 2
    await ear.hears(3)
    assert (node.hub.epoch, ear.channel.position) == ("next", 1)


async def test_before_the_log_was_read_nothing_that_is_handed_over_is_heard(
    log: Log, node: Node
) -> None:
    await log.store("a", 2)
    node.stream.accept(await log.epoch(), await log.stored())
    assert node.hub.epoch == ""
    await node.start()
    ear = await node.listen()
    assert ear.channel.position == 2
    await log.say()
    await ear.hears(1)


async def test_a_relay_that_is_quicker_than_the_query_is_not_said_again(
    log: Log, node: Node, database: Database
) -> None:
    await node.start()
    ear = await node.listen()
    await log.store("a", 2)
    messages, epoch = await log.stored(), await log.epoch()
    link = await connect(database.dsn, "test")

    class Late:
        """A link whose answers come when the relay has handed over one message more."""

        async def fetch(self, *arguments: Any, **keywords: Any) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await link.fetch(*arguments, **keywords)
            if rest := messages[len(ear.bodies) :]:
                node.stream.accept(epoch, rest[:1])
            return rows

    await node.stream._catch_up(cast("Connection", Late()))
    link.terminate()
    assert ear.bodies == [message.body for message in messages]


# --- what cannot go on


async def test_a_node_that_has_lost_the_database_says_so_until_it_is_back(
    log: Log, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = asyncio.Event()

    async def wait(attempt: int) -> None:
        attempts.append(attempt)
        await back.wait()

    attempts: list[int] = []
    monkeypatch.setattr(connections, "backoff", wait)
    await node.start()
    assert attempts == []
    await cut(log.database, "node")
    await node.says("connection")
    assert attempts == [1]
    back.set()
    await node.says("no node holds the relay lock")
    for count in (2, 3):
        back.clear()
        await cut(log.database, "node")
        await node.says("connection")
        assert attempts == list(range(1, count + 1))
        back.set()
        await node.says("no node holds the relay lock")
    monkeypatch.setattr(connections, "STEADY_SECONDS", 0.0)
    back.clear()
    await cut(log.database, "node")
    await node.says("connection")
    assert attempts == [1, 2, 3, 0]


async def test_an_empty_log_is_said(log: Log, node: Node) -> None:
    await log.database.execute("DELETE FROM notifier.log")
    node.begin()
    await node.says("run: notifier migrate")


async def test_a_log_that_was_emptied_is_said(log: Log, node: Node, database: Database) -> None:
    await node.start()
    await log.database.execute("DELETE FROM notifier.log")
    link, probe = await connect(database.dsn, "test"), Probe(node.health)
    await link.add_listener("notifier_messages", listener(probe.receive))
    with pytest.raises(SchemaMissing, match="run: notifier migrate"):
        await probe.run(link)
    link.terminate()
    await log.ring(10**9)
    await node.says("the log is empty")


async def test_who_does_not_hear_his_own_notification_listens_in_vain(
    node: Node, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "DEADLINE_SECONDS", 0.5)
    link = await connect(database.dsn, "test")
    with pytest.raises(Misplaced, match="NOTIFIER_LISTEN_DATABASE_URL"):
        await Probe(node.health).run(link)
    link.terminate()
    assert node.health.reason() == "not connected to the database yet"


async def test_a_probe_shows_what_it_has_seen(log: Log, node: Node) -> None:
    await log.database.execute("ALTER TABLE events DISABLE TRIGGER USER")
    node.begin()
    await node.says("triggers are missing or disabled on public.events")


async def test_a_probe_sees_the_relay_and_what_waits_for_it(
    database: Database, make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.05)
    await database.execute("INSERT INTO companies (name) VALUES ('A')")
    await database.execute("UPDATE notifier.changes_0 SET at = at - interval '1 minute'")
    leader = await database.connect()
    await leader.execute("SELECT pg_advisory_lock(7815279000)")  # as a relay does that leads
    node = make_node()
    node.begin()
    await node.says("changes wait")
    await database.execute("TRUNCATE notifier.changes_0")

    async def ready() -> bool:
        await leader.execute("SELECT")  # it is alive
        return node.health.reason() is None

    await until(ready)
    await leader.close()
    await node.says("no node holds the relay lock")


async def test_questions_and_the_stream_are_of_one_database(
    database: Database,
    make_database: Callable[[], Awaitable[Database]],
    make_node: Callable[..., Node],
) -> None:
    other = await make_database()
    torn, whole = make_node(database.dsn, other.dsn), make_node(database.dsn, database.dsn + "?")
    torn.begin()
    await torn.says("is not the database of NOTIFIER_DATABASE_URL")
    assert torn.hub.epoch == ""
    await whole.start()
    assert whole.asker.queries == 1


# --- questions of the hub


async def test_companies_are_known_to_the_log_once_they_are_asked_for(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await log.database.execute("INSERT INTO notifier.positions VALUES ('gone', 7)")
    heads = await node.history._load_heads(["a", "gone", "new"])
    assert heads == {"a": 3, "gone": 7, "new": 0}
    assert node.asker.queries == 2
    rows = await log.database.fetch("SELECT * FROM notifier.positions ORDER BY company")
    assert [tuple(row) for row in rows] == [("a", 0), ("gone", 7), ("new", 0)]
    assert await node.history._load_heads(["new", "gone"]) == {"gone": 7, "new": 0}
    assert node.asker.queries == 3


async def test_a_company_that_cannot_be_written_has_no_messages_and_harms_no_other(
    log: Log, node: Node
) -> None:
    await log.store("a", 3)
    await log.store("b", 2)
    heads = await node.history._load_heads(["a", "no\0company", "b"])
    assert heads == {"a": 3, "no\0company": 0, "b": 2}
    assert await node.history._load_heads(["no\0company"]) == {"no\0company": 0}


async def test_pages_are_each_companys_from_where_it_was_asked_in_its_epoch(
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
    assert node.asker.queries == 2  # one for each epoch


async def test_the_hub_resumes_from_the_log(log: Log, node: Node) -> None:
    await log.store("a", 3)
    await node.start()
    channel = await node.hub.open("a")
    assert [await node.hub.can_replay(channel, after) for after in range(5)] == [True] * 4 + [False]
    (chunk,) = await node.hub.replay(channel, 1, TEXT)
    assert chunk.bodies == [message.body for message in await log.stored()][1:]


async def test_pages_are_asked_for_a_hundred_at_once(log: Log, node: Node) -> None:
    await log.store("a", 101)
    epoch = await log.epoch()
    pages = await asyncio.gather(*(node.history.page("a", after, epoch) for after in range(101)))
    assert [len(page) for page in pages] == list(range(101, 0, -1))
    assert node.asker.queries == 2
