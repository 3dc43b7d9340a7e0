"""Several hosts, of which the first answers nothing, as the primary that was may after a failover."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from urllib.parse import urlsplit

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.proxy import Proxy
from tests.service.calendars import Calendar
from tests.waiting import until


def hosts(database: Database, *ports: int) -> str:
    """A URL with these hosts."""
    parts = urlsplit(database.dsn)
    user, _, _ = parts.netloc.rpartition("@")
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    return parts._replace(netloc=f"{user}@{places}").geturl()


async def test_a_node_is_ready_again_though_the_first_host_answers_nothing(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """To wait for it takes longer than a check of what a new client needs may: then no connection is opened by that."""
    calendar = Calendar(database)
    async with Proxy(*database.address) as first, Proxy(*database.address) as second:
        url = hosts(database, first.port, second.port)
        service = await serve(url, user_query="SELECT $1::text")
        company = await calendar.company("u1")
        client = await connect(service, "u1", company)

        async def are_up(former: Collection[int] = ()) -> set[int]:
            """The process ids of the links; none while one is missing, or a former one is there."""
            rows = await database.fetch(
                "SELECT pid, substr(application_name, 10) AS name FROM pg_stat_activity"
                " WHERE application_name LIKE 'notifier %' AND datname = current_database()"
            )
            names, pids = {row["name"] for row in rows}, {row["pid"] for row in rows}
            is_complete = names >= {"node", "relay", "stream", "membership", "users"}
            return pids if is_complete and pids.isdisjoint(former) else set()

        former = await until(are_up)
        first.freeze()
        await first.reset()
        await until(partial(are_up, former))
        await service.ready()
        await calendar.event(company)
        await client.next("EventCreated")
