"""Numbering: a Resync for very many companies does not keep the event loop busy for long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from notifier.relay import numbering
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL
from notifier.relay.numbering import Numbering
from notifier.relay.rendering import ResyncDraft
from notifier.relay.store import RelayStore

COMPANIES = [f"c{n:02}" for n in range(35)]


class FakeStore:
    """A log in which each company has one message."""

    checkpoint = SimpleNamespace(seq=7, epoch="e")

    async def companies(self) -> list[str]:
        return COMPANIES

    async def heads(self, companies: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(companies, 1)


async def test_other_tasks_run_while_very_many_messages_are_numbered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numbering, "NUMBERED_AT_ONCE", 10)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    running = asyncio.create_task(other())
    await asyncio.sleep(0)
    draft = ResyncDraft(EVERY_COMPANY, "truncate", datetime.now(UTC), REVOKE_ALL)
    messages = await Numbering(cast("RelayStore", FakeStore())).number([draft])
    running.cancel()
    assert [(each.seq, each.company, each.position) for each in messages] == [
        (seq, company, 2) for seq, company in enumerate(COMPANIES, 8)
    ]
    assert turns >= 3
