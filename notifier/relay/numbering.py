"""Numbers drafts: each message gets the next position of its company and the next seq of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from notifier import metrics
from notifier.messages import Message, View
from notifier.relay.changes import EVERY_COMPANY
from notifier.relay.netting import AnyDraft
from notifier.relay.rendering import Draft, ResyncDraft
from notifier.relay.store import RelayStore

HEADS_LIMIT = 100_000
"""Companies whose last position is kept in memory."""

HEADS_AT_ONCE = 5000
"""Companies in one query, which has a deadline."""

NUMBERED_AT_ONCE = 1000
"""Messages that are numbered before other tasks run."""


class Numbering:
    """Keeps the last position of each company, and loads the missing ones."""

    def __init__(self, store: RelayStore) -> None:
        self._store = store
        self._heads: dict[str, int] = {}

    def clear(self) -> None:
        """Discards all positions: a new epoch counts from 1."""
        self._heads.clear()

    async def number(self, drafts: Sequence[AnyDraft], *, traced: bool = False) -> list[Message]:
        """The messages, in the order of `drafts`. Every message before must be stored already.

        `traced`: some of the drafts have a `traceparent`.
        """
        companies = {draft.company for draft in drafts}
        known: list[str] = []
        if EVERY_COMPANY in companies:
            companies.remove(EVERY_COMPANY)
            known = sorted(companies.union(await self._store.companies()))
            companies.update(known)
        await self._load(companies)
        checkpoint = self._store.checkpoint
        now = datetime.now(UTC)
        messages: list[Message] = []
        for seq, (draft, company) in enumerate(_addressed(drafts, known), checkpoint.seq + 1):
            position = self._heads[company] = self._heads[company] + 1
            if isinstance(draft, ResyncDraft):
                metrics.RESYNCS.labels(draft.reason).inc()
                body = draft.body(company, checkpoint.epoch, position)
                views: tuple[View, ...] = ()
            else:
                if draft.partial:
                    metrics.PARTIAL.inc()
                body, views = draft.body(position), draft.views_at(position)
            messages.append(
                Message(seq, company, position, draft.at, now, body, draft.revokes, views)
            )
            if len(messages) % NUMBERED_AT_ONCE == 0:  # as for a Resync for every company
                await asyncio.sleep(0)
        if traced:
            return [
                msgspec.structs.replace(message, traceparent=draft.traceparent)
                for message, (draft, _) in zip(messages, _addressed(drafts, known), strict=True)
            ]
        return messages

    async def _load(self, companies: set[str]) -> None:
        # Not `companies - self._heads.keys()`, which looks at every key.
        unknown = {company for company in companies if company not in self._heads}
        if unknown and len(self._heads) > HEADS_LIMIT:
            self._heads.clear()
            unknown = companies
        if unknown:
            names = list(unknown)
            for first in range(0, len(names), HEADS_AT_ONCE):
                found = await self._store.heads(names[first : first + HEADS_AT_ONCE])
                self._heads.update(found)


def _addressed(
    drafts: Sequence[AnyDraft], known: Sequence[str]
) -> Iterator[tuple[Draft | ResyncDraft, str]]:
    """Each draft with its company. A draft for every company is repeated for each of those that are known.

    There may be thousands of these in a batch, and as many companies. So a company gets the last of them, and before it those
    alone that are followed by messages of its own; each re-checks the users whom one before it would have re-checked.
    """
    addressees: list[Sequence[str]] = []
    own: set[str] = set()
    is_last = True
    for draft in reversed(drafts):
        if draft.company == EVERY_COMPANY:
            addressees.append(known if is_last else sorted(own))
            own, is_last = set(), False
        else:
            addressees.append((draft.company,))
            own.add(draft.company)
    revokes: tuple[str, ...] = ()
    for given, companies in zip(drafts, reversed(addressees), strict=True):
        draft = given
        if draft.company == EVERY_COMPANY:
            revokes = revokes or draft.revokes
            draft = draft._replace(revokes=revokes)
        for company in companies:
            yield draft, company
