"""`Skipped`: covers the positions of messages that a subscription does not get."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from notifier.messages import CompanyOnly, Message, Skipped, at_text, encode


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


def select(
    messages: Sequence[Message], choose: Callable[[Message], Message | None]
) -> list[Message]:
    """Selects the messages that a subscription gets. A Skipped covers the positions of the others, up to the last.

    `choose` returns the message as the subscription gets it, or None where it gets a Skipped.
    """
    selected: list[Message] = []
    last: Message | None = None  # that was not chosen, since the one that was
    for message in messages:
        chosen = choose(message)
        if chosen is None:
            last = message
            continue
        if last is not None:
            selected.append(skipped(last))
            last = None
        selected.append(chosen)
    if last is not None:
        selected.append(skipped(last))
    return selected
