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
from notifier.relay.netting import AnyDraft
from notifier.relay.numbering import Numbering
from notifier.relay.rendering import Draft, ResyncDraft
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


async def test_a_company_gets_one_of_many_resyncs_for_every_company_and_those_before_its_messages() -> (
    None
):
    """A batch may hold thousands, and the log as many companies: all of them for each would not fit into memory."""
    now = datetime.now(UTC)
    every = ResyncDraft(EVERY_COMPANY, "truncate", now)
    own = Draft("c03", b'{"Type":"E"', b"}", now)
    drafts: list[AnyDraft] = [*[every] * 500, own, every._replace(revokes=REVOKE_ALL), own]
    drafts += [every] * 500
    messages = await Numbering(cast("RelayStore", FakeStore())).number(drafts)
    of_company = [each for each in messages if each.company == "c03"]
    assert [(each.is_resync, each.revokes) for each in of_company] == [
        (True, ()),
        (False, ()),
        (True, REVOKE_ALL),
        (False, ()),
        (True, REVOKE_ALL),
    ]
    assert [each.position for each in of_company] == [2, 3, 4, 5, 6]
    others = [each for each in messages if each.company != "c03"]
    assert [(each.company, each.revokes) for each in others] == [
        (company, REVOKE_ALL) for company in COMPANIES if company != "c03"
    ]
    assert [each.seq for each in messages] == list(range(8, 8 + len(messages)))
