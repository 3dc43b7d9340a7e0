"""Catches individual channels up with the log after a broker has lost messages of their companies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from notifier import metrics
from notifier.delivery.history import COMPANIES, History
from notifier.delivery.hub import Hub
from notifier.messages import Message

_logger = structlog.get_logger("notifier.stream")


class Healing:
    """Reads missing messages and passes them to `deliver`, which hands them to the hub."""

    def __init__(
        self, hub: Hub, history: History, deliver: Callable[[Sequence[Message]], None]
    ) -> None:
        self._hub = hub
        self._history = history
        self.deliver = deliver

    async def heal(self, wanted: Mapping[str, int]) -> None:
        """Delivers each company's messages up to the position, and later ones that the same read returns.

        Raises DatabaseError, after some of them.
        """
        companies = list(wanted)
        for start in range(0, len(companies), COMPANIES):
            await asyncio.gather(
                *(
                    self._heal(company, wanted[company])
                    for company in companies[start : start + COMPANIES]
                )
            )

    async def _heal(self, company: str, position: int) -> None:
        hub, epoch = self._hub, self._hub.epoch
        while (accepted := hub.accepted(company)) is not None:
            page = await self._history.page(company, accepted, epoch)
            if hub.epoch != epoch or (accepted := hub.accepted(company)) is None:
                return
            missing = [message for message in page if message.position > accepted]
            if missing and missing[0].position == accepted + 1:
                metrics.HEALED.inc(len(missing))
                self.deliver(missing)
            elif accepted < position:
                _logger.error("missed messages that the log no longer has", company=company)
                hub.drop_company(company)
                return
            if (hub.accepted(company) or 0) >= position:
                return
