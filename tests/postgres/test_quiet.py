"""A relay that sleeps makes few transactions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from notifier.database import sql
from notifier.relay import relay as timing
from notifier.relay.connection import RelayConnection
from notifier.relay.reader import ChangeReader
from tests.postgres.relays import Relayed
from tests.waiting import until

ROOM = ["log_usage"]
WATCHES = ["watches", "capture_state"]


async def test_a_sleeping_relay_does_one_part_of_its_maintenance_with_each_read_and_no_heartbeat(
    relay: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timing.SLEEPING_READ_SECONDS < timing.HEARTBEAT_SECONDS
    monkeypatch.setattr(timing, "SLEEPING_READ_SECONDS", 0.02)
    monkeypatch.setattr("notifier.relay.maintenance.ASLEEP_SECONDS", 0.0)
    await relay.asleep()
    turns: list[list[str]] = [[]]  # the statements of the writer before each read
    names = {sql.query(name): name for name in (*ROOM, *WATCHES)}
    fetch, fetchrow, read_new = (
        RelayConnection.fetch,
        RelayConnection.fetchrow,
        ChangeReader.read_new,
    )

    async def fetched(self: RelayConnection, query: str, *rest: Any) -> list[asyncpg.Record]:
        turns[-1].append(names.get(query, query))
        return await fetch(self, query, *rest)

    async def fetched_row(self: RelayConnection, query: str, *rest: Any) -> asyncpg.Record | None:
        turns[-1].append(names.get(query, query))
        return await fetchrow(self, query, *rest)

    async def read(self: ChangeReader, cursor: str) -> Any:
        turns.append([])
        return await read_new(self, cursor)

    monkeypatch.setattr(RelayConnection, "fetch", fetched)
    monkeypatch.setattr(RelayConnection, "fetchrow", fetched_row)
    monkeypatch.setattr(ChangeReader, "read_new", read)

    async def has_slept_long() -> bool:
        return len(turns) > 12

    await until(has_slept_long)
    complete = turns[2:-1]
    assert ROOM in complete
    assert all(turn == (WATCHES if before == ROOM else ROOM) for before, turn in pairwise(complete))
