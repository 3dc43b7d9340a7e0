"""The published payloads: a company's messages or head, notices and beats of the relay. All are signed.

docs/nats.md describes the JSON for other services.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime

import msgspec

from notifier.messages import JSON, Message, StoredView, loaded_views, stored_views

SIGNATURE = "Notifier-Signature"
"""The header that holds the HMAC-SHA256, in hexadecimal digits, of subject, line feed and payload."""

_HEADER = SIGNATURE.encode() + b": "


class Entry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The columns of the log beside a message's text."""

    seq: int
    at: datetime
    revokes: tuple[str, ...] = ()
    views: list[StoredView] = []
    traceparent: str | None = None


class Messages(msgspec.Struct, frozen=True, rename="pascal"):
    """The next messages of a company up to `position`; a head where there are none."""

    company_id: str
    epoch: str
    position: int
    stored: datetime | None = None
    log: list[Entry] = []
    messages: list[msgspec.Raw] = []

    @property
    def first(self) -> int:
        """The position of the first message; after `position` in a head."""
        return self.position - len(self.messages) + 1

    def after(self, position: int) -> list[Message]:
        """The messages after `position`."""
        skipped = max(0, position + 1 - self.first)
        assert self.stored is not None
        return [
            Message(
                entry.seq,
                self.company_id,
                number,
                entry.at,
                self.stored,
                bytes(body),
                entry.revokes,
                loaded_views(entry.views),
                entry.traceparent,
            )
            for number, (entry, body) in enumerate(
                zip(self.log[skipped:], self.messages[skipped:], strict=True), self.first + skipped
            )
        ]


class Beat(msgspec.Struct, frozen=True, rename="pascal"):
    """Sent by the relay every half second, in the order of the messages that it publishes.

    `term`: which leadership of which relay; `number` counts its beats. `seq`: the log has come so far, and
    all messages up to there were published, except that `missed` counts the times when some were not.
    `configuration` counts the changes of the configuration, `notices` the notices of the term.
    """

    term: str
    number: int
    epoch: str
    seq: int
    missed: int
    configuration: int
    notices: int


class Notice(msgspec.Struct, frozen=True, rename="pascal"):
    """A row that USER_QUERY reads has changed: its values, or null where any account may be another one.

    Every node gets it, as its sockets may be of any company. `number` counts the notices of a term. A relay of an earlier
    version sends neither.
    """

    values: list[str] | None
    term: str | None = None
    number: int = 0


encode = msgspec.json.Encoder().encode
decode_notice = msgspec.json.Decoder(Notice).decode
decode_beat = msgspec.json.Decoder(Beat).decode
_decode_messages = msgspec.json.Decoder(Messages).decode


def encode_messages(epoch: str, messages: Sequence[Message]) -> bytes:
    """Messages of one company with consecutive positions, stored at once."""
    last = messages[-1]
    return encode(
        Messages(
            last.company,
            epoch,
            last.position,
            last.stored,
            [
                Entry(
                    message.seq,
                    message.at,
                    message.revokes,
                    stored_views(message.views),
                    message.traceparent,
                )
                for message in messages
            ],
            [msgspec.Raw(message.body) for message in messages],
        )
    )


def encode_head(epoch: str, company: str, position: int) -> bytes:
    """A company's last position, for nodes that have missed its last messages."""
    return encode(Messages(company, epoch, position))


def decode_messages(payload: bytes) -> Messages:
    """Raises msgspec.DecodeError."""
    decoded = _decode_messages(payload)
    if len(decoded.log) != len(decoded.messages) or (decoded.log and decoded.stored is None):
        raise msgspec.ValidationError("each message needs its entry")
    return decoded


class Seal:
    """Signs payloads with a key that only nodes have."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seal) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def sign(self, subject: str, payload: JSON) -> str:
        """The signature of a payload that is published to the subject."""
        return hmac.digest(self._key, subject.encode() + b"\n" + payload, "sha256").hex()

    def is_valid(self, subject: str, payload: JSON, headers: bytes) -> bool:
        """Whether the headers, as NATS sends them, have the payload's signature."""
        start = headers.find(_HEADER)
        if start < 0:
            return False
        signature = headers[start + len(_HEADER) :].split(b"\r\n", 1)[0].strip()
        return hmac.compare_digest(signature, self.sign(subject, payload).encode())
