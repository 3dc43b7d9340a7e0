"""Messages that a channel writes together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from notifier.messages import Message

FEW_USERS = 50
"""Up to so many users of one view are written to without giving other tasks a turn."""


class Batch(NamedTuple):
    """Messages that are written together; `revokes` are the users who may lose access with the last.

    `skips`: no messages, but a Skipped for the groups that are behind. `restricted`: one message of
    which users get views of their own. `is_for_few`: all who get something are named.
    """

    messages: list[Message]
    revokes: Sequence[str] = ()
    certain: bool = True
    skips: bool = False
    restricted: bool = False
    is_for_few: bool = False

    @property
    def size(self) -> int:
        """The bytes of the messages."""
        return sum(message.size for message in self.messages)


def cut(messages: list[Message]) -> Iterable[Batch]:
    """Cuts behind each message that takes access away, and around each that has views."""
    batch: list[Message] = []
    for message in messages:
        if message.views:
            if batch:
                yield Batch(batch)
            few = not any(view.others or len(view.users) > FEW_USERS for view in message.views)
            yield Batch([message], message.revokes, restricted=True, is_for_few=few)
            batch = []
            continue
        batch.append(message)
        if message.revokes:
            yield Batch(batch, message.revokes)
            batch = []
    if batch:
        yield Batch(batch)
