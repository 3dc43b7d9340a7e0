"""Cuts messages into portions, each of which PostgreSQL stores in one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from notifier.messages import Message

PORTION = 5000
"""Messages in one statement, which has a deadline: a TRUNCATE is a Resync for every company, however many there are."""

PORTION_BYTES = 8 * 1024 * 1024
"""Bytes of messages in one statement."""


def are_many(messages: Sequence[Message]) -> bool:
    """Whether they are more than a portion: a page of changes that several watches render is some hundred megabytes at most."""
    return len(messages) > PORTION or sum(message.size for message in messages) > PORTION_BYTES


def portions_of(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Portions of at most PORTION messages and PORTION_BYTES; a larger message is one of its own."""
    portion: list[Message] = []
    size = 0
    for message in messages:
        if len(portion) == PORTION or (portion and size + message.size > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += message.size
    if portion:
        yield portion
