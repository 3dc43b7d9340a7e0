"""`Skipped`: covers the positions of messages that a subscription does not get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from notifier.delivery.encoding import Chunk, Encoding, encode_chunks
from notifier.messages import CompanyOnly, Message, Skipped, at_text, encode

SKIPPED_EVERY = 1000
"""In a replay each multiple of this gets a Skipped where its message is left out."""


def skipped(message: Message) -> Message:
    """The Skipped in place of a message, which also covers those before it."""
    body = encode(
        Skipped(
            data=CompanyOnly(company_id=message.company),
            position=message.position,
            at=at_text(message.at),
        )
    )
    return structs.replace(message, body=body, revokes=(), views=())


class Selected(NamedTuple):
    """The messages of a page that a subscription gets, with a Skipped before each that would leave a gap. `left`: the last message
    of the page, where it is not among them. `is_covered`: the first one is a Skipped.
    """

    messages: list[Message]
    left: Message | None
    is_covered: bool


class Selection:
    """Selects the messages of a page that a subscription gets. A Skipped covers the positions of the others.

    `choose` returns the message as the subscription gets it, or None where it is left out. A Skipped also comes at each multiple of
    SKIPPED_EVERY that is left out, so that the position of a client moves on.
    """

    def __init__(self, choose: Callable[[Message], Message | None]) -> None:
        self._choose = choose
        self._selected: list[Message] = []
        self._left: Message | None = None  # since the last one that was selected
        self._is_covered = False

    def add(self, messages: Sequence[Message]) -> None:
        """The next messages of the page."""
        selected, left = self._selected, self._left
        for message in messages:
            chosen = self._choose(message)
            if chosen is None and not selected:
                self._is_covered = True
            if chosen is None and message.position % SKIPPED_EVERY:
                left = message
                continue
            if left is not None and chosen is not None:
                selected.append(skipped(left))
            left = None
            selected.append(skipped(message) if chosen is None else chosen)
        self._left = left

    @property
    def result(self) -> Selected:
        """What was selected of all messages that were added."""
        return Selected(self._selected, self._left, self._is_covered)


def chunks_of(encoding: Encoding, selected: Selected, epoch: str) -> list[Chunk]:
    """The chunks of a page. The Skipped for what is left out at its end is a chunk of its own, which ReplayWriter holds back."""
    chunks = encode_chunks(encoding, selected.messages, epoch)
    if chunks:
        chunks[0] = chunks[0]._replace(is_covered=selected.is_covered)
    if selected.left is not None:
        (end,) = encode_chunks(encoding, [skipped(selected.left)], epoch)
        chunks.append(end._replace(is_covered=True, is_end=True))
    return chunks
