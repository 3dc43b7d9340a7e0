"""A proxy between a node and PostgreSQL that alters or withholds messages of the protocol.

It can change data as well, where TLS does not prevent it (docs/threats.md). But an answer that cannot be read, or
cannot be right, ends a connection and not the node, and a row that is missing is noticed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Connection, Database
from tests.ports import free_port
from tests.servers import listening
from tests.service.between import Between
from tests.service.calendars import EVENT, Calendar, positions
from tests.services import Service
from tests.waiting import until

ROW = b"D"
NO_TLS = b"N"

Change = Callable[[bytes, bytes], bytes | None]
"""Takes the type and the body of a message; returns what is sent instead, None for the message itself."""


def packed(kind: bytes, body: bytes) -> bytes:
    """A message as PostgreSQL sends it."""
    return kind + struct.pack("!I", len(body) + 4) + body


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a length beyond the row": lambda row: packed(ROW, row[:2] + b"\x10" + row[3:]),
    "a row without its end": lambda row: packed(ROW, row[:-1]),
    "a row of more columns": lambda row: packed(ROW, b"\x00\x7f" + row[2:]),
    "a row of no column": lambda _: packed(ROW, b"\x00\x00"),
    "a message of negative length": lambda row: ROW + b"\xff\xff\xff\xff" + row,
    "bytes that are no UTF-8": lambda row: packed(b"E", b"SERROR\0C42601\0M\xff\xfe\0\0"),
}


def columns(row: bytes) -> list[bytes | None]:
    """The values of a row."""
    (count,) = struct.unpack("!H", row[:2])
    values: list[bytes | None] = []
    begin = 2
    for _ in range(count):
        (size,) = struct.unpack("!i", row[begin : begin + 4])
        begin += 4
        values.append(None if size < 0 else row[begin : begin + size])
        begin += max(size, 0)
    return values


def row_of(values: list[bytes | None]) -> bytes:
    """A row of these values."""
    packed_values = [
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
        for value in values
    ]
    return packed(ROW, struct.pack("!H", len(values)) + b"".join(packed_values))


def error(state: str) -> bytes:
    """An ErrorResponse with this SQLSTATE."""
    return packed(b"E", b"SERROR\0VERROR\0C" + state.encode() + b"\0Mno error of PostgreSQL\0\0")


LIES: dict[str, Callable[[bytes], bytes]] = {
    "nulls": lambda row: row_of([None for _ in columns(row)]),
    "a null for the first value": lambda row: row_of([None, *columns(row)[1:]]),
    "no row": lambda _: b"",
    "empty texts": lambda row: row_of(
        [
            b"" if value and value.isascii() and value.strip(b"\0") else value
            for value in columns(row)
        ]
    ),
    "an error about values": lambda _: error("22P02"),
    "an error of PL/pgSQL": lambda _: error("P0002"),
    "a lock that is not available": lambda _: error("55P03"),
}


def lost_links(service: Service) -> int:
    """How often the service has lost a connection."""
    return service.log().count("database connection lost")


class InBetween(Between):
    """Between PostgreSQL and its clients; `change` is applied to each of its messages."""

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(*server)
        self.port = free_port()
        self.change: Change = lambda _, __: None

    async def alter_rows(self, altered: Callable[[bytes], bytes], service: Service) -> None:
        """Alters every row, until the service has lost two links."""
        before = lost_links(service)

        async def links_are_lost() -> bool:
            assert service.process.returncode is None, service.log()
            return lost_links(service) > before + 1

        self.change = lambda kind, body: altered(body) if kind == ROW else None
        await until(links_are_lost)
        self.change = lambda _, __: None

    async def _attack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = await reader.readexactly(1)
        if kind == NO_TLS:  # the answer to the driver's request
            writer.write(kind)
            kind = await reader.readexactly(1)
        while True:
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            changed = self.change(kind, body)
            writer.write(packed(kind, body) if changed is None else changed)
            kind = await reader.readexactly(1)


async def new_events(writer: Connection, company: str, *titles: str) -> None:
    """New events, in the writer's transaction."""
    for title in titles:
        await writer.execute(EVENT, company, title)


@pytest.fixture
async def between(database: Database) -> AsyncIterator[InBetween]:
    between = InBetween(database.address)
    async with listening(between.serve, between.port):
        yield between


async def test_an_answer_that_cannot_be_read_ends_a_connection_and_not_the_node(
    database: Database, serve: Serve, connect: Connect, between: InBetween
) -> None:
    """Each kind of it, on every link: of the relay, the stream, and the checks of access."""
    calendar = Calendar(database)
    service = await serve(database.through(between.port))
    company = await calendar.company("u1")
    for altered in CHANGES.values():
        await calendar.event(company)
        await between.alter_rows(altered, service)
        await service.ready()
    client = await connect(service, "u1", company)
    await calendar.event(company)
    await client.next("EventCreated")


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_cannot_be_right_ends_a_connection_and_not_the_node(
    database: Database, serve: Serve, connect: Connect, between: InBetween, lie: str
) -> None:
    """Messages that are well-formed, with values that the queries cannot have."""
    calendar = Calendar(database)
    service = await serve(database.through(between.port))
    company = await calendar.company("u1")
    await calendar.event(company)
    await between.alter_rows(LIES[lie], service)
    await service.ready()
    client = await connect(service, "u1", company)
    await calendar.event(company)
    await client.next("EventCreated")
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("text", [b"", b"null"])
async def test_a_message_without_its_text_is_read_again(
    database: Database, serve: Serve, connect: Connect, between: InBetween, text: bytes
) -> None:
    """A session that replays it would fail, as would each one after it."""
    calendar = Calendar(database)
    await serve(database)  # it relays
    node = await serve(database.through(between.port))
    company = await calendar.company("u1")
    client = await connect(node, "u1", company)

    def without_text(row: bytes) -> bytes:
        values = columns(row)
        return row_of(
            [text if (value or b"").startswith(b'{"Type":') else value for value in values]
        )

    between.change = lambda kind, body: without_text(body) if kind == ROW else None
    before = lost_links(node)
    await calendar.event(company)

    async def link_is_lost() -> bool:
        return lost_links(node) > before

    await until(link_is_lost)
    between.change = lambda _, __: None
    await client.next("EventCreated")


async def test_a_value_that_no_relay_has_written_is_not_stored_for_the_next_one(
    database: Database, serve: Serve, connect: Connect, between: InBetween
) -> None:
    """Such as the number of a partition that does not exist: no relay could store messages there."""
    calendar = Calendar(database)
    service = await serve(database.through(between.port))
    company = await calendar.company("u1")

    def another_slot(row: bytes) -> bytes:
        values = [b"\x3f\x3f" if value == b"\0\0" else value for value in columns(row)]
        return row_of(values) if len(values) > 8 else packed(ROW, row)

    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name ~ 'notifier relay$'"
    )
    await between.alter_rows(another_slot, service)
    await service.ready()
    client = await connect(service, "u1", company)
    await calendar.event(company)
    await client.next("EventCreated")


async def test_a_node_that_was_given_a_later_place_in_the_log_does_not_stay_deaf(
    database: Database, serve: Serve, connect: Connect, between: InBetween
) -> None:
    """It is ready once a new epoch has begun."""
    calendar = Calendar(database)
    await serve(database)  # it relays
    company = await calendar.company("u1")
    await calendar.event(company)
    await database.relayed()
    epoch: str = await database.fetchval("SELECT epoch FROM notifier.log")
    altered = 0

    def later(kind: bytes, body: bytes) -> bytes | None:
        nonlocal altered
        if (
            kind != ROW
            or altered
            or len(values := columns(body)) != 5
            or values[0] != epoch.encode()
        ):
            return None
        altered += 1
        return row_of([values[0], struct.pack("!q", 10**9), None, None, None])

    between.change = later
    node = await serve(database.through(between.port))
    client = await connect(node, "u1", company)
    assert altered
    await calendar.event(company)
    await client.next("EventCreated")


async def test_a_row_that_is_missing_among_those_of_the_log_is_not_lost(
    database: Database, serve: Serve, connect: Connect, between: InBetween
) -> None:
    """It is the last one of its company, so that no later position shows the gap; but seq does."""
    calendar = Calendar(database)
    await serve(database)  # it relays
    node = await serve(database.through(between.port))
    one, other = await calendar.company("u1"), await calendar.company("u2")
    client = await connect(node, "u1", one)
    await connect(node, "u2", other)
    withheld = 0

    def withhold(kind: bytes, body: bytes) -> bytes | None:
        nonlocal withheld
        if kind != ROW or b'"the last one"' not in body or withheld:
            return None
        withheld += 1
        return b""

    between.change = withhold
    writer = await database.connect()
    async with writer.transaction():
        await new_events(writer, one, "the first one", "the last one")
        await new_events(writer, other, "another")
    assert await client.closed() == 4503
    assert withheld
    again = await connect(node, "u1", one, client.position, client.epoch)
    await again.received(lambda messages: positions(messages)[-1:] == [3])
    titles = [
        each["Data"]["Title"] for each in (*client.messages, *again.messages) if "Position" in each
    ]
    assert titles == ["the first one", "the last one"]
