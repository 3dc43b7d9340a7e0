"""F5: changes that one of 5,000 users sees, by `visible_to`, and what their delivery costs the server.

The relay has a cost of its own for each change that comes alone, however many clients see it. It is measured with
changes of a company that has no clients, and subtracted; `with_relay` is the ratio before that. Both take as long as
the node takes to check the access of all clients again: clients that connected at the same time are checked at the same
time, which would count in one of them only.
"""

from __future__ import annotations

import asyncio

from bench import feed, service
from bench.load import Load, load
from bench.postgres import connected, uuid
from bench.service import Service
from bench.stand import Stand
from notifier.delivery.periodic_recheck import RECHECK_SECONDS

SOCKETS = 5_000
NO_CLIENTS = 20
"""A company that has none."""
CONFIGURATION = """
[[watch]]
table = "events"
entity = "Event"
visible_to = ["location"]

[[watch]]
table = "employees"
entity = "Employee"
member = "user_id"
"""
FOR_ONE = (
    "UPDATE events SET location = 'user-' || n FROM generate_series(1, 100) AS n"
    " WHERE id = lpad(to_hex(n), 32, '0')::uuid"
)
FOR_ALL = "UPDATE events SET location = NULL WHERE company_id = $1::uuid"

ALL_PER_SECOND, ALL_CHANGES = 5, 25
ONE_PER_SECOND = 100
ONE_CHANGES = ONE_PER_SECOND * round(RECHECK_SECONDS)


async def _cpu(
    url: str, target: Service, per_second: float, changes: int, company: int = 1
) -> float:
    """The server's CPU seconds per change, with the Skipped that follow within five seconds."""
    before = target.program.cpu_seconds()
    await feed.paced(url, per_second=per_second, changes=changes, writers=4, company=company)
    await asyncio.sleep(5)
    return (target.program.cpu_seconds() - before) / changes


async def _sees(clients: Load, url: str, statement: str, *arguments: str) -> None:
    """Changes who sees the events, and waits until all messages of it were sent."""
    async with connected(url) as connection:
        await connection.execute(statement, *arguments)
    await asyncio.sleep(6)
    await clients.mark()


async def measure(stand: Stand, _names: frozenset[str]) -> None:
    path = stand.directory / "restricted.toml"
    path.write_text(CONFIGURATION)
    async with stand.cluster.copy("restricted") as url:
        await service.migrate(url, config=str(path))
        async with (
            service.serving(stand, url, config=str(path)) as target,
            load(stand.load, target.port, service.subscribers(SOCKETS), step=SOCKETS) as clients,
        ):
            await clients.ready()
            for _ in stand.rounds(1):
                watch = stand.watch()
                await _sees(clients, url, FOR_ALL, uuid(1))
                all_see = await _cpu(url, target, ALL_PER_SECOND, ALL_CHANGES) / SOCKETS
                await _sees(clients, url, FOR_ONE)
                one_sees = await _cpu(url, target, ONE_PER_SECOND, ONE_CHANGES)
                no_client = await _cpu(url, target, ONE_PER_SECOND, ONE_CHANGES, NO_CLIENTS)
                (await clients.mark()).check()
                stand.table.add(
                    "F5",
                    (one_sees - no_client) / all_see,
                    watch.noise(),
                    with_relay=one_sees / all_see,
                    us_per_change=one_sees * 1e6,
                    us_without_clients=no_client * 1e6,
                    us_per_delivery=all_see * 1e6,
                )
