"""Selects the messages after which the accounts of connected users must be looked up again (USER_QUERY)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import msgspec

from notifier.messages import JSON, Message
from notifier.watches import Watch


class _Envelope(msgspec.Struct, rename="pascal"):
    type: str


class _Change(msgspec.Struct, rename="pascal"):
    data: dict[str, msgspec.Raw]
    old: dict[str, msgspec.Raw] = {}
    partial: bool = False


ID_BYTES = 1000
"""Longer values are no ids, and are not remembered."""

_decode = msgspec.json.Decoder(_Envelope).decode
_decode_change = msgspec.json.Decoder(_Change).decode


class AccountRule:
    """Calls `refresh` with the values of each changed row of a table that the query names.

    The token's user and the rows' user are among them, before or after the change. It is called with
    None, for all users, after a Resync, a message with keys only, and a change of a table of which a
    column that the query names is excluded. Tables that the query reads through a view or a function
    are left to the periodic re-check.
    """

    def __init__(
        self,
        query: str,
        refresh: Callable[[Collection[str] | None], None],
        watches: Sequence[Watch],
    ) -> None:
        self._query = query
        self._refresh = refresh
        self.use(watches)

    def use(self, watches: Sequence[Watch]) -> None:
        """Replaces the watches."""
        self._blind: dict[str, bool] = {}
        for watch in watches:
            if self._names(watch.table_name):
                blind = any(map(self._names, watch.exclude))
                self._blind |= {name: blind for name in watch.names if name is not None}

    def _names(self, name: str) -> bool:
        """Whether the query has the name as a word."""
        return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self._query, re.IGNORECASE) is not None

    def __call__(self, message: Message) -> Message:
        """Returns the message as it is; to be called before it is delivered."""
        for text in message.texts:
            self._see(text)
        return message

    def _see(self, text: JSON) -> None:
        kind = _decode(text).type
        blind = self._blind.get(kind)
        if kind == "Resync":  # it stands for many changes
            blind = True
        elif blind is None:
            return
        if blind:
            self._refresh(None)
            return
        change = _decode_change(text)
        if change.partial:
            self._refresh(None)
            return
        values = [*change.data.values(), *change.old.values()]
        self._refresh({name for value in values if (name := _text(bytes(value))) is not None})


def _text(value: bytes) -> str | None:
    """A value as an id is written; None for one that is no id."""
    if len(value) > ID_BYTES:
        return None
    if value[:1] == b'"':
        return msgspec.json.decode(value, type=str)
    return value.decode() if value[:1] in b"-0123456789" else None
