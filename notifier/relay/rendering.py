"""Renders the net change of a row as the text of a message, complete except for its position.

Modules that build or read such messages, and must be changed with this one: `state/pages.py` (rows of a state),
`delivery/account_rule.py`, `recheck_rule.py` and `filter.py`, `web/asyncapi.py` and `types/` (their schema), and
`why/evidence.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from functools import lru_cache
from typing import NamedTuple

import msgspec

from notifier.messages import JSON, View, bytes_of
from notifier.relay.changes import REVOKE_ALL, Source
from notifier.relay.images import Ends, Key, Row, key_of
from notifier.relay.visibility import (
    EVERY_USER,
    NO_USER,
    Audience,
    audience_of,
    audiences,
    readers_of,
)

MESSAGE_LIMIT = 256 * 1024
"""Bytes of a message; a larger one is sent with keys only."""

POSITION_BYTES = len(',"Position":') + len(str(2**63))

SAFE_INTEGER = 2**53
SAFE_DIGITS = 15
"""A number with this many digits is below 2^53."""

_encode = msgspec.json.Encoder().encode


class DraftView(NamedTuple):
    """A text that some users get instead of the draft's own: `head`, the position, `tail`."""

    audience: Audience
    head: bytes
    tail: bytes


class Draft(NamedTuple):
    """A message without a position: its text is `head`, the position, `tail`.

    `views`: the texts for single users. Then its own, which all others get, is a `Skipped`.
    """

    company: str
    head: bytes
    tail: bytes
    at: datetime
    revokes: tuple[str, ...] = ()
    partial: bool = False
    views: tuple[DraftView, ...] = ()
    traceparent: str | None = None

    def body(self, position: int) -> JSON:
        """The text of the message at `position`."""
        return b'%s,"Position":%d%s' % (self.head, position, self.tail)

    def views_at(self, position: int) -> tuple[View, ...]:
        """The texts for single users at `position`."""
        return tuple(
            View(*audience, b'%s,"Position":%d%s' % (head, position, tail))
            for audience, head, tail in self.views
        )

    @property
    def size(self) -> int:
        """About the bytes of its texts, and of the users who get them."""
        return len(self.head) + sum(
            len(view.head) + bytes_of(view.audience.users) for view in self.views
        )


class ResyncDraft(NamedTuple):
    """A Resync without company, epoch and position. Company "" stands for every known company."""

    company: str
    reason: str
    at: datetime
    revokes: tuple[str, ...] = ()
    traceparent: str | None = None

    def body(self, company: str, epoch: str, position: int) -> JSON:
        """The text of the Resync for `company` at `position` of `epoch`."""
        return (
            b'{"Type":"Resync","Data":{"CompanyId":%b,"Reason":%b,"Epoch":%b},"Position":%d%b'
            % (
                _encode(company),
                _encode(self.reason),
                _encode(epoch),
                position,
                _tail(self.at),
            )
        )


def company_deleted(company: str, at: datetime, xid: int) -> Draft:
    """The CompanyDeleted of a company whose schema was dropped, which no captured change reports.

    `xid`: the transaction that noticed it.
    """
    head = b'{"Type":"CompanyDeleted","Data":{"CompanyId":%b}' % _encode(company)
    return Draft(company, head, _tail(at, xid), at, REVOKE_ALL)


def render(
    source: Source,
    ends: Ends,
    *,
    company: str,
    at: datetime,
    xid: int,
    actor: str | None,
    partial: bool,
) -> Draft | None:
    """The message for a row's net change; None where nothing changed, or the watch sends no such message.

    `xid`: the writer's transaction. `partial`: the images hold key and company only, so the message
    does too.
    """
    tail = _tail(at, xid, actor)
    if source.watch.visible_to:
        return _restricted(source, ends, tail, company=company, at=at, partial=partial)
    head, partial = _before_position(source, ends, company, tail, partial)
    return None if head is None else Draft(company, head, tail, at, partial=partial)


def _restricted(
    source: Source, ends: Ends, tail: bytes, *, company: str, at: datetime, partial: bool
) -> Draft | None:
    """The message where `visible_to` decides which users get it, and in which form.

    A user who sees the row only after the change gets a creation, one who saw it only before gets a
    deletion. Each form is rendered from the images that its readers see, and from no other.
    """
    old, new = ends
    if old is not None and new is not None:
        if old == new and not partial:
            return None
        kept, gained, lost = audiences(readers_of(old, source), readers_of(new, source))
        forms: list[tuple[Audience, Ends]] = [
            (kept, ends),
            (gained, (None, new)),
            (lost, (old, None)),
        ]
    else:
        row = old if new is None else new
        if row is None:
            return None
        forms = [(audience_of(readers_of(row, source)), ends)]
    views, partials = [], False
    for audience, form in forms:
        if not audience.is_empty:
            head, is_partial = _before_position(source, form, company, tail, partial)
            partials = partials or is_partial
            if head is not None:
                views.append(DraftView(audience, head, tail))
    if views and views[0].audience == EVERY_USER:
        return Draft(company, views[0].head, tail, at, partial=partials)
    if not views:  # its position may still end the access of users
        head, partials = _before_position(source, ends, company, tail, partial)
        if head is None:
            return None
        views.append(DraftView(NO_USER, head, tail))
    skipped = b'{"Type":"Skipped","Data":{"CompanyId":%b}' % _encode(company)
    return Draft(company, skipped, _tail(at), at, partial=partials, views=tuple(views))


def _before_position(
    source: Source, ends: Ends, company: str, tail: bytes, partial: bool
) -> tuple[bytes | None, bool]:
    """The text of a message up to its position, and whether it has the keys only.

    None where nothing changed, or the watch sends no such message.
    """
    old, new = ends
    watch = source.watch
    former: Row = {}
    if new is None:
        if old is None:
            return None, partial
        name, row = watch.deleted, old
    elif old is None:
        name, row = watch.created, new
    else:
        name, row = watch.updated, new
        former = {column: value for column, value in old.items() if value != new.get(column)}
        if not former and not partial and len(old) == len(new):
            return None, partial
    if name is None:
        return None, partial
    head = b'{"Type":"%b","Data":%b' % (name.encode(), data_of(row, source, company))
    if old is not None and new is not None:
        head = b'%b,"Old":%b' % (head, _object(former, source))
    partial = partial or len(head) + len(tail) + POSITION_BYTES > MESSAGE_LIMIT
    if partial:
        keys = {column: row[column] for column in watch.identity}
        head = b'{"Type":"%b","Data":%b,"Partial":true' % (
            name.encode(),
            data_of(keys, source, company),
        )
    return head, partial


def data_of(row: Row, source: Source, company: str) -> bytes:
    """`Data`: the key where it has several columns, the company where no column is its id, then the row."""
    watch = source.watch
    key, adds_company = watch.key, watch.adds_company
    if isinstance(key, str) and not adds_company:
        return _object(row, source)
    columns: dict[str | Key, msgspec.Raw] = {}
    if not isinstance(key, str):
        columns[key] = msgspec.Raw(key_of(row, watch))
    if adds_company:
        value = None if watch.scope is not None else row.get(watch.company_column or "")
        columns[()] = msgspec.Raw(_encode(company)) if value is None else value
    columns.update(row)
    return _object(columns, source)


def _object(
    row: Mapping[str, msgspec.Raw] | Mapping[str | Key, msgspec.Raw], source: Source
) -> bytes:
    """A JSON object with the row's properties, in the order of its columns."""
    if source.time_columns:
        row = {
            column: _in_utc(value) if column in source.time_columns else value
            for column, value in row.items()
        }
    columns = tuple(row)
    template = _template(source, columns)
    whole = template % tuple(row.values()) if template is not None else None
    if whole is not None and _NOT_PLAIN(whole) is None:
        return whole
    properties = _properties(source, columns)
    return _encode(
        {
            name: value if column in source.json_columns else _safe(value)
            for (column, value), name in zip(row.items(), properties, strict=True)
            if name is not None
        }
    )


def _in_utc(value: msgspec.Raw) -> msgspec.Raw:
    """The timestamp, or the array of them, with the offset of UTC; infinity and BC have none."""
    return msgspec.Raw(_TIME.sub(rb"\g<0>+00:00", bytes(value)))


_TIME = re.compile(rb'[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?=")')

_NOT_PLAIN = re.compile(rb'":[-0-9{[]').search
"""Finds a column whose value may be a number, an array or an object."""


@lru_cache(maxsize=1000)
def _template(source: Source, columns: tuple[str | Key, ...]) -> bytes | None:
    """The object with `%b` for each value; None where a column is not sent."""
    names = [name for name in _properties(source, columns) if name is not None]
    if len(names) < len(columns):
        return None
    return b"{%b}" % b",".join(_encode(name).replace(b"%", b"%%") + b":%b" for name in names)


@lru_cache(maxsize=1000)
def _properties(source: Source, columns: tuple[str | Key, ...]) -> tuple[str | None, ...]:
    """The property that each column is sent as; None for a column that is not sent.

    Virtual columns are not sent, nor is a column whose property another one has: key and company go
    first, then the last column.
    """
    watch = source.watch
    names = [watch.property(column) for column in columns]
    last = {name: number for number, name in enumerate(names)}
    last |= {
        names[number]: number
        for number, column in enumerate(columns)
        if column in (watch.key, () if watch.adds_company else watch.company_column)
    }
    return tuple(
        name if last[name] == number and column not in source.virtual_columns else None
        for number, (name, column) in enumerate(zip(names, columns, strict=True))
    )


def _safe(value: msgspec.Raw) -> msgspec.Raw:
    """The value with numbers beyond 2^53 as strings, so that every JSON reader gets them exactly."""
    text = bytes(value)
    if text[:1] in b"[{":
        return value if _MAY_BE_LARGE(text) is None else msgspec.Raw(_nested(text))
    if text[:1] in b"-0123456789" and (len(text) > SAFE_DIGITS or b"e" in text):
        return msgspec.Raw(_number(text))
    return value


def _number(value: bytes) -> bytes:
    try:
        large = abs(Decimal(value.decode())) > SAFE_INTEGER
    except DecimalException:  # numbers of a json array can have any size
        large = True
    return b'"%s"' % value if large else value


_MAY_BE_LARGE = re.compile(rb"[0-9](?:[0-9]{15}|[eE])").search
"""Finds what may be a number beyond 2^53. Without it, a million elements took a second."""


def _nested(value: bytes) -> bytes:
    """An array or a composite value: each number in it is checked."""
    try:
        if value[:1] == b"[":
            items = msgspec.json.decode(value, type=list[msgspec.Raw])
            return b"[%s]" % b",".join(_inner(bytes(item)) for item in items)
        pairs = msgspec.json.decode(value, type=Row)
        return b"{%s}" % b",".join(
            b"%s:%s" % (_encode(name), _inner(bytes(item))) for name, item in pairs.items()
        )
    except (msgspec.DecodeError, RecursionError):
        return value


def _inner(value: bytes) -> bytes:
    if value[:1] in b"[{":
        return _nested(value)
    if value[:1] in b"-0123456789" and (len(value) > SAFE_DIGITS or b"e" in value):
        return _number(value)
    return value


def _tail(at: datetime, xid: int | None = None, actor: str | None = None) -> bytes:
    moment = _encode(at.astimezone(UTC))  # five times faster than isoformat(), but ends with Z
    if len(moment) == len(_WHOLE_SECOND):
        moment = moment.replace(b"Z", b".000000Z")
    if xid is None:
        return b',"At":%b+00:00"}' % moment[:-2]
    if actor is None:
        return b',"At":%b+00:00","Tx":"%d"}' % (moment[:-2], xid)
    return b',"At":%b+00:00","Tx":"%d","Actor":%b}' % (moment[:-2], xid, _encode(actor))


_WHOLE_SECOND = b'"2026-11-22T18:00:00Z"'
