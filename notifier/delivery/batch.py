"""Messages that a channel writes together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from notifier.messages import Message


class Batch(NamedTuple):
    """Messages that are written together; `revokes` are the users who may lose access with the last.

    `skips`: no messages, but a Skipped for the groups that are behind. `restricted`: one message of
    which users get views of their own.
    """

    messages: list[Message]
    revokes: Sequence[str] = ()
    certain: bool = True
    skips: bool = False
    restricted: bool = False

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
            yield Batch([message], message.revokes, restricted=True)
            batch = []
            continue
        batch.append(message)
        if message.revokes:
            yield Batch(batch, message.revokes)
            batch = []
    if batch:
        yield Batch(batch)
