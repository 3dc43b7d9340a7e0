"""The position in one company: which message comes next, and what a different one means. No I/O."""

from __future__ import annotations

import re
from typing import TypeGuard

from notifier.client.reports import Message, Position, Recovered, Resync, Row, Skipped

MAX_GAP_RETRIES = 3
"""How often one gap is requested again before the state has to be reloaded."""


_UUID = re.compile(r"(?:^|:)[0-9a-f]{32}$")


class Unreadable(Exception):
    """The server sent a message that does not conform to the protocol."""


class Gap(Exception):
    """Messages are missing before this one."""


class Progress:
    """A company and the position of the last message received from it.

    `blocked` is why the company must not be requested: `revoked`, or the code of a refusal.
    """

    def __init__(self, company: str | None, head: Position | None) -> None:
        self.follow(company, head)

    def follow(self, company: str | None, head: Position | None) -> None:
        """Changes the company and where to resume in it."""
        self.company = company
        self.head = head
        self.blocked: str | None = None
        self._failures = 0  # in a row, to get the message after `head`

    def count_failure(self) -> None:
        """The next message did not arrive, or could not be read."""
        self._failures += 1

    def request(self) -> Row:
        """The `data` of the command to send; without a position if a gap cannot be filled."""
        if self._failures > MAX_GAP_RETRIES:
            self.head = None
        head = {} if self.head is None else self.head._asdict()
        known = {name: value for name, value in head.items() if value is not None}
        return {"companyId": self.company, **known}

    def acknowledge(
        self, company: str, requested: Position | None, data: Row, start: str = "start"
    ) -> Recovered | Resync:
        """Takes the `Data` of the answer to a request. Raises Unreadable.

        `start` is the reason of the resync where no position was requested.
        """
        position, epoch = data.get("Position"), data.get("Epoch")
        if not _is_position(position) or not isinstance(epoch, str):
            raise Unreadable
        head = Position(position, epoch, _text(data.get("At")))
        if data.get("Recovered") is True and requested is not None and _same(head, requested):
            self.head = head if requested.at is None else requested
            return Recovered(company=company, position=position, epoch=epoch, at=self.head.at)
        reason = "expired"
        if self._failures > MAX_GAP_RETRIES:
            reason = "gap"
        elif requested is None:
            reason = start
        elif epoch != requested.epoch or (
            position == requested.after and not _same(head, requested)
        ):
            reason = "epoch"
        return self._resync(company, reason, head)

    def accept(self, message: Row, text: str) -> Message | Resync | Skipped | None:
        """Takes a message that has a position: the report of it, or None for a duplicate.

        Raises Gap when messages before it are missing, and Unreadable; both are counted.
        """
        head, company = self.head, self.company
        assert head is not None, "nothing was acknowledged"
        assert company is not None, "nothing was requested"
        position = message["Position"]
        if not _is_position(position):
            self.count_failure()
            raise Unreadable
        data = nested(message, "Data")
        if message["Type"] == "Resync":
            epoch = data.get("Epoch") or head.epoch
            if epoch == head.epoch and position < head.after:
                return None
            at = _text(message.get("At"))
            return self._resync(company, data.get("Reason", ""), Position(position, epoch, at))
        if position <= head.after:
            return None
        if message["Type"] == "Skipped":
            self._failures = 0
            self.head = Position(position, head.epoch, _text(message.get("At")))
            return Skipped(company=company, position=position, epoch=head.epoch, at=self.head.at)
        if position > head.after + 1:
            self.count_failure()
            raise Gap
        self._failures = 0
        self.head = Position(position, head.epoch, _text(message.get("At")))
        return Message(
            type=message["Type"],
            company=company,
            data=data,
            old=nested(message, "Old") if "Old" in message else None,
            position=position,
            epoch=head.epoch,
            at=self.head.at or "",
            tx=_text(message.get("Tx")),
            actor=message.get("Actor"),
            partial=message.get("Partial") is True,
            text=text,
        )

    def _resync(self, company: str, reason: str, head: Position) -> Resync:
        self.head = head
        self._failures = 0
        return Resync(
            company=company, reason=reason, position=head.after, epoch=head.epoch, at=head.at
        )


def nested(message: Row, name: str) -> Row:
    """The object of that name in a message, empty if there is none."""
    value = message.get(name)
    return value if isinstance(value, dict) else {}


def same_company(one: object, other: object) -> bool:
    """Whether two ids are equal; the server may spell a uuid differently than the client did."""
    if str(one) == str(other):
        return True
    plain = _plain(one)
    return _UUID.search(plain) is not None and plain == _plain(other)


def _plain(company: object) -> str:
    return "".join(letter for letter in str(company).lower() if letter not in "-{} \t\r\n")


def _same(one: Position, other: Position) -> bool:
    """Whether both are the same message. An `at` that one of them does not know is not compared."""
    if (one.after, one.epoch) != (other.after, other.epoch):
        return False
    return one.at is None or other.at is None or one.at == other.at


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_position(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
