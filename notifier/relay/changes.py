"""Changes of rows in, drafts of messages out: what a transaction did, in the end, to each company.

No I/O. Values of columns travel as the bytes that PostgreSQL wrote and are never decoded, so that no
value can break a message: a number keeps its digits, a json column its escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

import msgspec

from notifier.companies import canonical
from notifier.messages import COMPANY_LIMIT, JSON

MESSAGE_LIMIT = 256 * 1024
"""Bytes of a message; a larger one is sent with keys only."""

POSITION_BYTES = len(',"Position":') + len(str(2**63))
RUNS = 32
"""Triggers in triggers leave fewer steps open. Images that do not fit one another may be any number."""

SAFE_INTEGER = 2**53
SAFE_DIGITS = 15
"""A number of so many digits is below 2^53."""

EVERY_COMPANY = ""
"""No company is called so, see `company_named`."""
ANYBODY = ("*",)

Row = dict[str, msgspec.Raw]
"""A row's columns and their values in JSON, which stay where they were read."""

Ends = tuple[Row | None, Row | None]
"""A row before and after; None where there was none, or is none."""


class Watched(msgspec.Struct, frozen=True, eq=False):
    """How one entity's rows become messages. Names are None where nothing is sent."""

    entity: str
    key: str
    company: str
    member: str | None
    created: str | None
    updated: str | None
    deleted: str | None
    untouched: frozenset[str] = frozenset()  # json columns: their values travel as they are
    virtual: frozenset[str] = frozenset()  # generated when they are read: a trigger sees nulls

    @property
    def grants(self) -> bool:
        """Whether somebody may see a company by one of its rows."""
        return self.member is not None or self.key == self.company

    def property(self, column: str) -> str:
        """The name of a column on the wire: `starts_at` → `StartsAt`, the key → `EventId`."""
        if column == self.key:
            return f"{self.entity}Id"
        if column == self.company:
            return "CompanyId"
        return "".join(word[:1].upper() + word[1:] for word in column.split("_"))


class Change(NamedTuple):
    """A row of `notifier.changes`: the images before and after it.

    There is none before an insertion, none after a deletion, and neither for a TRUNCATE. `partial`:
    they hold key and company only, or are lacking though there was a row.
    """

    id: int
    xid: int
    entity: str
    old: JSON | None
    new: JSON | None
    partial: bool
    actor: str | None
    at: datetime

    @property
    def is_truncate(self) -> bool:
        """Whether it is of the whole table."""
        return self.old is None and self.new is None and not self.partial


class Draft(NamedTuple):
    """A message that has no number yet: `head`, then the position, then `tail`.

    Company "" is for every company that the log knows. A Resync has a `reason`, and its head has gaps
    for company and epoch, which `fill` closes. `partial`: of the row it says key and company only.
    """

    company: str
    head: bytes
    tail: bytes
    at: datetime
    revokes: tuple[str, ...] = ()
    reason: str = ""
    partial: bool = False


class _Entry:
    """What a transaction did to one row, as one company sees it.

    What a trigger of the app's writes is captured before the write that fired it, if its name comes
    first or its row had yet to be captured. So the steps are no queue: each is put where it fits.
    """

    __slots__ = ("_runs", "actor", "at", "first", "last", "partial")

    def __init__(self, change: Change) -> None:
        self._runs: list[Ends] = []
        self.first = self.last = change.id
        self.at = change.at
        self.actor = change.actor
        self.partial = False

    def step(self, old: Row | None, new: Row | None) -> None:
        """From one image to the next: goes on from the run that ends so, into the one that begins so."""
        runs = self._runs
        for number in reversed(range(len(runs))):
            if runs[number][1] == old:
                old = runs.pop(number)[0]
                break
        for number in range(len(runs)):
            if runs[number][0] == new:
                new = runs.pop(number)[1]
                break
        runs.append((old, new))
        if len(runs) > RUNS:
            runs[:] = [(runs[0][0], new)]

    def ends(self) -> Ends:
        """The row before and after; a run that came back to where it began was somewhere in between."""
        runs = [(old, new) for old, new in self._runs if old != new] or self._runs[-1:]
        return runs[0][0], runs[-1][1]


_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Broken(Exception):
    """A change cannot be ascribed to a company: the row has no such column, or is no JSON."""


def translate(
    changes: Sequence[Change], watched: dict[str, Watched], bulk_limit: int
) -> tuple[list[Draft], int]:
    """The messages of whole transactions, in the order of `changes`, and how many were broken.

    `changes` must hold each transaction's changes side by side, in the order of their ids.
    """
    drafts: list[Draft] = []
    broken = 0
    for _, group in groupby(changes, key=attrgetter("xid")):
        transaction = Transaction(watched)
        for change in group:
            transaction.add(change)
        drafts += transaction.drafts(bulk_limit)
        broken += transaction.broken
    return drafts, broken


class Transaction:
    """Collects the changes of one transaction and nets them per company and row."""

    def __init__(self, watched: dict[str, Watched], only: str | None = None) -> None:
        self._watched = watched
        self._only = only  # the one company that is looked at; None: each
        self._entries: dict[tuple[str, str, bytes], _Entry] = {}
        self._resync: tuple[int, Draft] | None = None
        self.broken = 0

    def add(self, change: Change) -> None:
        """Takes the next change, in the order of ids."""
        watch = self._watched.get(change.entity)
        if watch is None:  # no longer watched
            return
        if change.is_truncate:
            self.barrier(change)
            self._read_afresh(change, "truncate", watch.grants)
            return
        try:
            old, new, poisonous = _rows(change, watch)
        except Broken:
            self.broken += 1
            self._read_afresh(change, "overflow", True)
            return
        if poisonous:
            change = change._replace(partial=True)
        if old is not None and new is not None and old[watch.key] != new[watch.key]:
            self._apply(change, watch, old, None)
            self._apply(change, watch, None, new)
        else:
            self._apply(change, watch, old, new)

    def barrier(self, change: Change) -> None:
        """A TRUNCATE: what was done to the entity's rows before it is nothing any more."""
        for name in [name for name in self._entries if name[1] == change.entity]:
            del self._entries[name]

    def _read_afresh(self, change: Change, reason: str, grants: bool) -> None:
        """Every company is told, once a transaction; the last time counts for all."""
        told = grants or (self._resync is not None and bool(self._resync[1].revokes))
        revokes = ANYBODY if told else ()
        self._resync = change.id, resync(EVERY_COMPANY, reason, change.at, revokes)

    def _apply(self, change: Change, watch: Watched, old: Row | None, new: Row | None) -> None:
        """One side, or both, of one row; each company sees only the images that are its own."""
        old_company = _company(old, watch)
        new_company = _company(new, watch)
        if old_company is not None:
            self._net(change, old_company, watch, old, new if old_company == new_company else None)
        if new_company is not None and new_company != old_company:
            self._net(change, new_company, watch, None, new)

    def _net(
        self, change: Change, company: str, watch: Watched, old: Row | None, new: Row | None
    ) -> None:
        row = old if old is not None else new
        if row is None or (self._only is not None and company != self._only):
            return
        name = (company, watch.entity, bytes(row[watch.key]))
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(change)
        entry.step(old, new)
        entry.last = change.id
        entry.at = change.at
        entry.actor = change.actor
        entry.partial = entry.partial or change.partial

    def drafts(self, bulk_limit: int) -> list[Draft]:
        """The net messages; a company with more than `bulk_limit` of them gets one Resync."""
        by_company: dict[str, list[tuple[int, Draft]]] = {}
        lost: dict[str, set[str]] = {}
        kept: dict[str, set[str]] = {}
        for (company, entity, _), entry in self._entries.items():
            watch = self._watched[entity]
            ends = entry.ends()
            order, draft = _draft(company, watch, entry, ends)
            if watch.grants:
                losers, keepers = lost.setdefault(company, set()), kept.setdefault(company, set())
                _members(watch, entry.partial, ends, losers, keepers)
            if draft is not None:
                by_company.setdefault(company, []).append((order, draft))
        drafts: list[tuple[int, Draft]] = []
        for company, unordered in by_company.items():
            ordered = sorted(unordered, key=_order)
            if len(ordered) > bulk_limit:
                last, draft = ordered[-1]
                ordered = [(last, resync(company, "bulk", draft.at))]
            if company in lost and (revoked := lost[company] - kept[company]):
                order, draft = ordered[-1]
                ordered[-1] = (order, draft._replace(revokes=tuple(sorted(revoked))))
            drafts += ordered
        if self._resync is not None:
            drafts.append(self._resync)
        if len(drafts) > 1:
            drafts.sort(key=_order)
        return [draft for _, draft in drafts]


_order = itemgetter(0)


def resync(company: str, reason: str, at: datetime, revokes: tuple[str, ...] = ()) -> Draft:
    """A Resync for one company or for every one."""
    head = b'{"Type":"Resync","Data":{"CompanyId":%%(company)s,"Reason":%s,"Epoch":%%(epoch)s}'
    return Draft(company, head % _encode(reason), _tail(at, None), at, revokes, reason)


def fill(draft: Draft, company: str, epoch: str) -> Draft:
    """Closes the gaps of an open draft."""
    head = draft.head % {b"company": _encode(company), b"epoch": _encode(epoch)}
    return draft._replace(company=company, head=head)


def _rows(change: Change, watch: Watched) -> tuple[Row | None, Row | None, bool]:
    """The rows before and after, and whether only their keys could be read.

    Raises Broken where key or company are not among the columns.
    """
    try:
        old, new, poisonous = _row(change.old), _row(change.new), False
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        old, new, poisonous = _keys(change.old, watch), _keys(change.new, watch), True
    if old is None and new is None:  # capture could not even read its keys
        raise Broken(watch.entity)
    for row in (old, new):
        if row is not None and (watch.key not in row or watch.company not in row):
            raise Broken(watch.entity)
    return old, new, poisonous


def _row(image: JSON | None) -> Row | None:
    if image is None:
        return None
    image.decode()  # the reader below does not look into strings
    return _decode_row(image)


_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"\s]+', re.DOTALL)


def _keys(image: JSON | None, watch: Watched) -> Row | None:
    """Key and company of a row that JSON's readers refuse.

    It holds half a surrogate, bytes that are no text, or a thousand brackets in brackets.
    """
    if image is None:
        return None
    image = image.decode(errors="replace").encode()
    row: Row = {}
    column, start, depth = "", 0, 0
    for token in _TOKEN.finditer(image):
        mark = token[0]
        if depth == 1 and mark in (b",", b"}"):
            row[column] = msgspec.Raw(image[start : token.start()].strip())
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and mark == b":":
            column = json.loads(image[start : token.start()])
        if depth == 1 and mark in (b"{", b",", b":"):
            start = token.end()
    return {name: row[name] for name in (watch.key, watch.company) if name in row}


def _company(row: Row | None, watch: Watched) -> str | None:
    """The company of a row; None where there is no row or it belongs to nobody."""
    if row is None:
        return None
    value = bytes(row[watch.company])
    if value == b"null":
        return None
    return company_named(value)


@lru_cache(maxsize=10_000)
def company_named(value: bytes) -> str | None:
    """The id of a company as it stands in JSON; None for one that no client can ask for."""
    try:
        name = msgspec.json.decode(value, type=str) if value[:1] == b'"' else value.decode()
    except msgspec.DecodeError:
        return None
    return canonical(name) if 0 < len(name) <= COMPANY_LIMIT and "\0" not in name else None


def _user(row: Row | None, watch: Watched) -> str | None:
    if row is None or watch.member is None:
        return None
    value = bytes(row.get(watch.member, b"null"))
    if value == b"null":
        return None
    name = msgspec.json.decode(value, type=str) if value[:1] == b'"' else value.decode()
    return None if "\0" in name else name  # of a json column, and no text of the database's


def _members(watch: Watched, partial: bool, ends: Ends, lost: set[str], kept: set[str]) -> None:
    """Who loses the company by this row, and who has it by this row afterwards."""
    old, new = ends
    if watch.key == watch.company:
        if old is not None and new is None:
            lost.add("*")
    elif watch.member is not None:
        if partial and old is not None:
            lost.add("*")
            return
        before, after = _user(old, watch), _user(new, watch)
        if before is not None and before != after:
            lost.add(before)
        if after is not None:
            kept.add(after)


def _draft(company: str, watch: Watched, entry: _Entry, ends: Ends) -> tuple[int, Draft | None]:
    """The net message of a row and the id by which it is ordered; None where nothing changed.

    A creation stands where the row was first written, a deletion where it was deleted.
    """
    old, new = ends
    former: Row = {}
    if new is None:
        if old is None:
            return entry.first, None
        name, row, order = watch.deleted, old, entry.last
    elif old is None:
        name, row, order = watch.created, new, entry.first
    else:
        name, row, order = watch.updated, new, entry.first
        former = {column: value for column, value in old.items() if value != new.get(column)}
        if not former and not entry.partial and len(old) == len(new):
            return order, None
    if name is None:
        return order, None
    tail = _tail(entry.at, entry.actor)
    head = b'{"Type":"%b","Data":%b' % (name.encode(), _object(row, watch))
    if old is not None and new is not None:
        head = b'%b,"Old":%b' % (head, _object(former, watch))
    partial = entry.partial or len(head) + len(tail) + POSITION_BYTES > MESSAGE_LIMIT
    if partial:
        keys = {watch.key: row[watch.key], watch.company: row[watch.company]}
        head = b'{"Type":"%b","Data":%b,"Partial":true' % (name.encode(), _object(keys, watch))
    return order, Draft(company, head, tail, entry.at, partial=partial)


def _object(row: Row, watch: Watched) -> bytes:
    """A JSON object with the row's properties, in the order of its columns."""
    properties = _properties(watch, tuple(row))
    values = dict(zip(properties, row.values(), strict=True))
    values.pop(None, None)
    whole = _encode(values)
    if _NOT_PLAIN(whole) is None:
        return whole
    return _encode(
        {
            name: value if column in watch.untouched else _safe(value)
            for (column, value), name in zip(row.items(), properties, strict=True)
            if name is not None
        }
    )


_NOT_PLAIN = re.compile(rb'":[-0-9{[]').search
"""Finds what may be a number, an array or an object as the value of a column."""


@lru_cache(maxsize=1000)
def _properties(watch: Watched, columns: tuple[str, ...]) -> tuple[str | None, ...]:
    """The name of each column on the wire; None where it is virtual.

    None as well: another column, key or company at best, has it.
    """
    names = [watch.property(column) for column in columns]
    last = {name: number for number, name in enumerate(names)}
    last |= {
        names[number]: number
        for number, column in enumerate(columns)
        if column in (watch.key, watch.company)
    }
    return tuple(
        name if last[name] == number and column not in watch.virtual else None
        for number, (name, column) in enumerate(zip(names, columns, strict=True))
    )


def _safe(value: msgspec.Raw) -> msgspec.Raw:
    """A value that every reader reads alike: its large numbers are texts."""
    text = bytes(value)
    if text[:1] in b"[{":
        return msgspec.Raw(_nested(text))
    if text[:1] in b"-0123456789" and (len(text) > SAFE_DIGITS or b"e" in text):
        return msgspec.Raw(_number(text))
    return value


def _number(value: bytes) -> bytes:
    try:
        large = abs(Decimal(value.decode())) > SAFE_INTEGER
    except DecimalException:  # json in an array has numbers of any size
        large = True
    return b'"%s"' % value if large else value


def _nested(value: bytes) -> bytes:
    """An array or a composite: its numbers are checked one by one."""
    try:
        if value[:1] == b"[":
            items = msgspec.json.decode(value, type=list[msgspec.Raw])
            return b"[%s]" % b",".join(_inner(bytes(item)) for item in items)
        pairs = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        return b"{%s}" % b",".join(
            b"%s:%s" % (_encode(name), _inner(bytes(item))) for name, item in pairs.items()
        )
    except (msgspec.DecodeError, RecursionError):
        return value


def _inner(value: bytes) -> bytes:
    if value[:1] in b"[{":
        return _nested(value)
    if value[:1] in b"-0123456789":
        return _number(value)
    return value


def _tail(at: datetime, actor: str | None) -> bytes:
    moment = _encode(at.astimezone(UTC))  # in a fifth of the time of isoformat(), but with a Z
    if len(moment) == len(_WHOLE_SECOND):
        moment = moment.replace(b"Z", b".000000Z")
    if actor is None:
        return b',"At":%b+00:00"}' % moment[:-2]
    return b',"At":%b+00:00","Actor":%b}' % (moment[:-2], _encode(actor))


_WHOLE_SECOND = b'"2026-11-22T18:00:00Z"'
