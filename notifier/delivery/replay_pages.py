"""The pages of replays: what each client gets of the messages after its position, encoded.

A page without views is the same for all clients without a filter. From any other one, the messages that a client gets are selected,
which costs as much for each filter and user.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from notifier.delivery.channel import Channel
from notifier.delivery.encoding import Chunk, Encoding, encode_chunks
from notifier.delivery.filter import Change, Filter
from notifier.delivery.filter_catalogue import FilterCatalogue
from notifier.delivery.skipping import Selection, chunks_of
from notifier.messages import Message
from notifier.turns import Turns

ENCODED_PAGES = 8
"""Encoded pages that are kept for the next subscriptions that replay the same messages."""

SELECTED = 250
"""Messages that are selected, of all pages of this node together, before other tasks get a turn."""

_PageKey: TypeAlias = tuple[str, str, int, int, Encoding, Filter | None]
"""Company, epoch, first and last position, encoding and filter of the page."""


class ReplayPages:
    """Encodes pages; many clients that resume at once come from the same position.

    One page is selected at a time, and users take turns: replays under filters that differ are all ready at once.
    """

    def __init__(self, filters: FilterCatalogue) -> None:
        self._filters = filters
        self._encoded: OrderedDict[_PageKey, list[Chunk]] = OrderedDict()
        self._turns = Turns(1)
        self._selected = 0  # since other tasks had their last turn

    async def chunks(
        self,
        channel: Channel,
        messages: Sequence[Message],
        encoding: Encoding,
        user: str,
        wanted: Filter | None,
    ) -> list[Chunk]:
        """What a user gets of a page under a filter. Skipped covers the positions of the other messages."""
        if not messages:
            return []
        epoch = channel.epoch  # another one may begin while the page is selected
        if any(message.views for message in messages):  # not the same for all
            async with self._turns.turn([user]):
                return await self._select(messages, encoding, epoch, user, wanted)
        first, last = messages[0].position, messages[-1].position
        key = (channel.company, epoch, first, last, encoding, wanted)
        if (known := self._encoded.get(key)) is not None:
            return known
        if wanted is None:
            return self._keep(key, encode_chunks(encoding, messages, epoch))
        async with self._turns.turn([user]):
            if (known := self._encoded.get(key)) is not None:  # selected while this one waited
                return known
            return self._keep(key, await self._select(messages, encoding, epoch, user, wanted))

    def _keep(self, key: _PageKey, chunks: list[Chunk]) -> list[Chunk]:
        self._encoded[key] = chunks
        if len(self._encoded) > ENCODED_PAGES:
            self._encoded.popitem(last=False)
        return chunks

    async def _select(
        self,
        messages: Sequence[Message],
        encoding: Encoding,
        epoch: str,
        user: str,
        wanted: Filter | None,
    ) -> list[Chunk]:
        entities = self._filters.entities

        def choose(message: Message) -> Message | None:
            seen = message.seen_by(user)
            if seen is None or wanted is None:
                return seen
            return seen if wanted.passes(Change(seen.body, entities)) else None

        selection, start = Selection(choose), 0
        while start < len(messages):
            count = min(SELECTED - self._selected, len(messages) - start)
            selection.add(messages[start : start + count])
            start += count
            self._selected += count
            if self._selected >= SELECTED:
                self._selected = 0
                await asyncio.sleep(0)
        return chunks_of(encoding, selection.result, epoch)
