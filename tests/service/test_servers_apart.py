"""Several servers behind one address: a standby, or another primary. Each link of a node leads to the one that it follows."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from notifier.database.query import Query
from notifier.demo.postgres import EmbeddedPostgres
from notifier.errors import DatabaseError
from notifier.relay.relay import State
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.ports import free_port
from tests.postgres.relays import Relayed, messages_of, new_event
from tests.proxy import Proxy
from tests.servers import listening
from tests.service.calendars import Calendar
from tests.service.test_faults_database import answers, reason, standby
from tests.waiting import until


class Servers(NamedTuple):
    """A primary, and a hot standby that follows it until the replay is paused."""

    primary: Database
    copy: Database

    def url(self, first: int) -> str:
        """Two hosts: the primary behind the port `first`, and the standby."""
        parts = urlsplit(self.primary.dsn)
        user, _, _ = parts.netloc.rpartition("@")
        second = self.copy.address[1]
        return parts._replace(netloc=f"{user}@127.0.0.1:{first},127.0.0.1:{second}").geturl()

    async def replayed(self) -> None:
        """Returns when the standby has all that was committed before the call."""
        place = await self.primary.fetchval("SELECT pg_current_wal_lsn()")

        async def is_there() -> bool:
            return bool(
                await self.copy.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", place)
            )

        await until(is_there)


@pytest.fixture
async def servers(mortal: EmbeddedPostgres, mortal_database: Database) -> AsyncIterator[Servers]:
    with ExitStack() as stack:
        backup = standby(mortal, mortal_database.address)
        url, _ = await asyncio.to_thread(stack.enter_context, backup)
        copy = Database(url, mortal_database.name)
        await until(answers(copy.dsn))
        yield Servers(mortal_database, copy)
        copy.leave()


async def test_a_query_is_answered_by_no_standby(servers: Servers) -> None:
    query = Query(servers.url(free_port()), "test", pooled=False)
    try:
        with pytest.raises(DatabaseError, match="standby"):
            await query.fetch("SELECT")
    finally:
        query.close()


async def test_access_is_not_checked_on_a_standby_that_took_the_queries_for_a_moment(
    servers: Servers, serve: Serve, connect: Connect
) -> None:
    primary, copy = servers
    calendar = Calendar(primary)
    company = await calendar.add_company("u1", "u2")
    async with Proxy(*primary.address) as way:
        service = await serve(servers.url(way.port))
        await primary.relayed()
        await connect(service, "u1", company)
        way.refuse()
        await way.cut()

        async def has_left() -> bool:
            return not (await service.get("/readyz")).is_success

        await until(has_left)
        with suppress(Exception):  # while the primary is away: opens the link of the checks
            await (await connect(service, "u1")).set_company(company)
        await way.accept()
        await service.ready()
        await servers.replayed()
        await copy.execute("SELECT pg_wal_replay_pause()")
        await primary.execute("DELETE FROM employees WHERE user_id = 'u2'")
        await primary.relayed()
        answer = await (await connect(service, "u2")).set_company(company)
        assert answer["Success"] is False, "a user whose row is deleted has access"


class ByName:
    """Forwards connections to the standby if their application's name has `word`, else to the primary."""

    def __init__(self, servers: Servers, word: bytes) -> None:
        self._primary, self._copy = servers.primary.address, servers.copy.address
        self._word = word
        self.port = free_port()
        self.is_split = True
        self.apart = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = await reader.readexactly(4)
        start = size + await reader.readexactly(struct.unpack("!I", size)[0] - 4)
        goes_apart = self.is_split and self._word in start
        self.apart += goes_apart
        target = self._copy if goes_apart else self._primary
        theirs, ours = await asyncio.open_connection(*target)
        try:
            ours.write(start)
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, ours))
                both.create_task(pump(theirs, writer))
        finally:
            ours.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()


@pytest.mark.parametrize("promoted", [False, True], ids=["a standby", "another primary"])
async def test_a_relay_reads_where_it_writes(servers: Servers, promoted: bool) -> None:
    """A standby's snapshots do not list the transactions that run: what they write would never be read."""
    primary, copy = servers
    company = await Calendar(primary).add_company("u1")
    await servers.replayed()
    if promoted:
        await copy.execute("SELECT pg_promote()")
    way = ByName(servers, b"notifier relay reader")
    relay = Relayed(primary)
    relay.url = primary.through(way.port) + "?sslmode=disable"
    async with listening(way.serve, way.port):
        starting = asyncio.create_task(relay.start())

        def leads() -> bool:
            return relay.relay is not None and relay.relay.state is not State.STANDBY

        try:

            async def has_tried_twice() -> bool:
                return way.apart > 1 or leads()

            await until(has_tried_twice)
            writer = await primary.connect()
            late = writer.transaction()
            await late.start()
            await new_event(writer, company, "late")
            await new_event(primary, company, "early")
            if not promoted:
                await servers.replayed()
            if leads():  # it reads elsewhere
                await relay.settled()
            await late.commit()
            way.is_split = False
            await starting
            await relay.settled()
            titles = [
                message["Data"].get("Title") for message in await messages_of(primary, company)
            ]
            assert {"late", "early"} <= set(titles), titles
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await relay.stop()


async def test_access_is_not_checked_on_another_primary_than_the_one_that_is_followed(
    servers: Servers, serve: Serve, connect: Connect
) -> None:
    """Such as the one that failed and was not fenced, or one that was promoted too early."""
    primary, copy = servers
    company = await Calendar(primary).add_company("u1", "u2")
    await servers.replayed()
    await copy.execute("SELECT pg_promote()")
    way = ByName(servers, b"notifier membership")
    async with listening(way.serve, way.port):
        service = await serve(primary.through(way.port) + "?sslmode=disable", ready=False)

        async def reports() -> bool:
            with suppress(httpx.TransportError):
                return "different servers" in str(await reason(service))
            return False

        await until(reports)
        await primary.execute("DELETE FROM employees WHERE user_id = 'u2'")
        await primary.relayed()
        answer = await (await connect(service, "u2")).set_company(company)
        assert answer["Error"]["Code"] == "unavailable"
        way.is_split = False
        await service.ready()
        await connect(service, "u1", company)
