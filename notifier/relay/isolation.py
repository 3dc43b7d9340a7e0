"""Stores a batch in which PostgreSQL rejects one message: isolates that message, and stores the others."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec
import structlog

from notifier import metrics
from notifier.database.connections import VALUE_ERRORS, first_line
from notifier.messages import Message
from notifier.relay.changes import REVOKE_ALL
from notifier.relay.connection import RelayConnection
from notifier.relay.rendering import ResyncDraft
from notifier.relay.store import RelayStore

REFUSED = (*VALUE_ERRORS, asyncpg.ProgramLimitExceededError)
"""Errors about the messages of a batch: to store it again would fail again. A full notification queue raises ProgramLimitExceededError
too, and again at the commit, which ends the term."""

_log = structlog.get_logger("notifier.relay")


class Isolation:
    """Halves a refused batch until the refused messages stand alone, each try in a savepoint.

    A refused message is replaced by a Resync at its position; where that is refused too, by none.
    """

    def __init__(self, writer: RelayConnection, store: RelayStore) -> None:
        self._writer = writer
        self._store = store

    async def append(self, messages: Sequence[Message]) -> list[Message]:
        """Stores what can be stored, in the caller's transaction, and returns it."""
        if self._store.is_epoch_demanded:
            return []
        seq = self._store.checkpoint.seq
        numbered = [
            message if message.seq == seq + n else msgspec.structs.replace(message, seq=seq + n)
            for n, message in enumerate(messages, 1)
        ]
        error = await self._try(numbered)
        if error is None:
            return numbered
        if len(numbered) > 1:
            half = len(numbered) // 2
            return await self.append(numbered[:half]) + await self.append(numbered[half:])
        return await self._replace(numbered[0], error)

    async def _replace(self, message: Message, error: Exception) -> list[Message]:
        draft = ResyncDraft(message.company, "overflow", message.at, REVOKE_ALL)
        body = draft.body(message.company, self._store.checkpoint.epoch, message.position)
        resync = msgspec.structs.replace(message, body=body, revokes=REVOKE_ALL, views=())
        failure = await self._try([resync])
        metrics.REPLACED.inc()
        _log.error(
            "PostgreSQL refused a message: a Resync took its place"
            if failure is None
            else "PostgreSQL refused a message: it is dropped",
            company=message.company,
            position=message.position,
            error=first_line(error),
        )
        if isinstance(failure, asyncpg.UniqueViolationError):
            # The position is taken: another relay has numbered this log.
            await self._store.demand_epoch()
        return [] if failure is not None else [resync]

    async def _try(self, messages: Sequence[Message]) -> Exception | None:
        """Stores messages; the error where they are refused, and nothing is stored."""
        await self._writer.fetchrow("SAVEPOINT messages")
        try:
            await self._store.append(messages, None)
        except REFUSED as error:
            await self._writer.fetchrow("ROLLBACK TO SAVEPOINT messages")
            await self._writer.fetchrow("RELEASE SAVEPOINT messages")
            return error
        await self._writer.fetchrow("RELEASE SAVEPOINT messages")
        return None
