"""Row images: the JSON that capture stored for a row, read as columns with undecoded values.

Values are kept as the bytes that PostgreSQL wrote: numbers keep their digits, json columns their escapes,
and no value can prevent a message from being rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache
from itertools import accumulate

import msgspec

from notifier.companies import COMPANY_LIMIT, canonical, split_scope
from notifier.messages import JSON
from notifier.paths import ARROW
from notifier.relay.changes import UNMOVED, Change
from notifier.watches import Condition, Watch

Row = dict[str, msgspec.Raw]
"""The columns of a row, each with its value as JSON text."""

Key = tuple[str, ...]
"""The columns of a key; a row in a message has an array of their values beside them."""

Ends = tuple[Row | None, Row | None]
"""A row before and after; None where the row does not exist."""

DEPTH_LIMIT = 400
"""Of an image that is nested deeper only the keys are read. Its message must be readable for each node and client that
receives it, and their decoders have other limits than the relay's: they depend on the stack and on Python's version."""

DEEP_COST = 20
"""How many times as long netting takes for a byte of an image that is nested too deep: its keys are searched for token by token."""

_NULL = b"null"
_UNSET = (_NULL, b"false")
"""Values of `deleted_if` in rows that are not deleted; `member_if` has the same rule."""

_COMPANY_BYTES = 2 + 12 * COMPANY_LIMIT
"""Bytes of the longest JSON text of an id, with an escape of two surrogates for each character. Longer ones are not decoded, nor kept
in the cache.
"""

_decode_row = msgspec.json.Decoder(Row).decode


class Unattributable(Exception):
    """A change cannot be attributed to a company: its image lacks that column, or is not JSON."""


def read_images(
    change: Change,
    watch: Watch,
    hidden: Collection[str] = (),
    foreign: Collection[str] = (),
    columns: Collection[str] = (),
) -> tuple[Row | None, Row | None, bool]:
    """The rows before and after, and whether only their keys could be read.

    They are without the columns `hidden`, which every image should have, and `foreign`, which it may have. `columns`: those
    of the table, where they are known; with `hidden`, another one may be a hidden one under its former name.

    A row that `deleted_if` marks as deleted is None, as if it did not exist. Raises Unattributable
    where key or company are missing, or the key can be part of no message.
    """
    try:
        old, new, keys_only = _row(change.old), _row(change.new), False
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        old, new, keys_only = _keys(change.old, watch), _keys(change.new, watch), True
        keys = [row[name] for row in (old, new) if row for name in watch.key_columns if name in row]
        if not all(map(_is_readable, keys)):
            raise Unattributable(watch.entity) from None
    if old is None and new is None:  # capture could not read the keys either
        raise Unattributable(watch.entity)
    for column in foreign:
        for row in (old, new):
            if row is not None:
                row.pop(column, None)
    if hidden:
        named = {column for row in (old, new) if row is not None for column in row}
        if columns and any(not column.startswith(ARROW) for column in named.difference(columns)):
            keys_only = True
        old, new, keys_only = _without(hidden, old, new, keys_only, watch)
    key, company = watch.key, watch.company_column
    for row in (old, new):
        if row is None:
            continue
        has_key = key in row if isinstance(key, str) else all(column in row for column in key)
        if not has_key or (company is not None and company not in row):
            raise Unattributable(watch.entity)
    if (mark := watch.deleted_if) is not None:
        old, new = _unless_deleted(old, mark), _unless_deleted(new, mark)
    return old, new, keys_only


def _without(
    hidden: Collection[str], old: Row | None, new: Row | None, keys_only: bool, watch: Watch
) -> tuple[Row | None, Row | None, bool]:
    """Without the columns. Only the keys, where one of them has another name now that is not known."""
    rows = [row for row in (old, new) if row is not None]
    if keys_only or any(column not in row for row in rows for column in hidden):
        keys = watch.keys
        return _only(keys, old), _only(keys, new), True
    for row in rows:
        for column in hidden:
            del row[column]
    return old, new, False


def _only(columns: Collection[str], row: Row | None) -> Row | None:
    return row and {column: row[column] for column in columns if column in row}


def _row(image: JSON | None) -> Row | None:
    if image is None:
        return None
    image.decode()  # the JSON decoder does not validate the UTF-8 of values that it skips
    if _may_be_deep(image) and _depth(image) > DEPTH_LIMIT:
        raise RecursionError
    return _decode_row(image)


def cost_of(change: Change) -> int:
    """How many bytes of plain images would take about as long to net as those of a change."""
    return sum(
        len(image) * (DEEP_COST if _may_be_deep(image) else 1)
        for image in (change.old, change.new)
        if image is not None
    )


def _may_be_deep(image: JSON) -> bool:
    """Whether a JSON text has enough brackets to be nested deeper than the limit."""
    return len(image) > 2 * DEPTH_LIMIT and image.count(b"{") + image.count(b"[") > DEPTH_LIMIT


def _depth(image: JSON) -> int:
    """How deep a JSON text is nested. Takes 7 ms for 100,000 arrays."""
    brackets = _STRING.sub(b"", image).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(step - 1 for step in brackets), default=0)


def key_of(row: Row, watch: Watch) -> bytes:
    """The JSON value that names the row: an array for a key of several columns."""
    key = watch.key
    if isinstance(key, str):
        return bytes(row[key])
    return b"[%b]" % b",".join(bytes(row[column]) for column in key)


def _unless_deleted(row: Row | None, mark: str) -> Row | None:
    """The row, or None where the column `mark` is set. A row without that column is not deleted."""
    return row if row is None or bytes(row.get(mark, _NULL)) in _UNSET else None


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = bytes.maketrans(b"{[]}", b"\2\2\0\0")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{[]}"))

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"\s]+', re.DOTALL)


def _keys(image: JSON | None, watch: Watch) -> Row | None:
    """The keys of an image that JSON decoders refuse.

    It may hold half of a surrogate pair, invalid UTF-8, or a thousand nested brackets.
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
    return {name: row[name] for name in watch.keys if name in row}


def _is_readable(value: bytes | msgspec.Raw) -> bool:
    """Whether nodes and clients can decode a message with the value: it is not nested too deep, and has no half of a surrogate."""
    try:
        _row(b'{"":%b}' % value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def company_of(row: Row | None, watch: Watch, tenant: str | None = None) -> str | None:
    """The company that a row belongs to; None where there is no row, or it has no company.

    `tenant`: that of all rows of its table, where no column names it.
    """
    if row is None or watch.company_column is None:
        return None if row is None else tenant
    value = bytes(row[watch.company_column])
    return None if value == _NULL else company_named(value, watch.scope)


def company_named(value: bytes, scope: str | None = None) -> str | None:
    """The company id in a JSON value; None for one that no client can subscribe to."""
    return None if len(value) > _COMPANY_BYTES else _company_named(value, scope)


@lru_cache(maxsize=10_000)
def _company_named(value: bytes, scope: str | None) -> str | None:
    try:
        name = msgspec.json.decode(value, type=str) if value[:1] == b'"' else value.decode()
    except msgspec.DecodeError:
        return None
    if not name or "\0" in name or (value[:1] in b"[{" and not _is_readable(value)):
        return None
    if scope is not None:
        name = f"{scope}:{name}"
    return canonical(name) if len(name) <= COMPANY_LIMIT else None


def company_keyed(key: str, scopes: Collection[str]) -> str | None:
    """The company id in a key of `weigh_transaction.sql`: a JSON value, behind its scope if it has one."""
    if len(key) > 2 * _COMPANY_BYTES:
        return None
    scope, rest = split_scope(key) if key[:1].isalpha() else ("", key)
    if scope:
        return company_named(rest.encode(), scope)
    return unless_scoped(company_named(rest.encode()), scopes)


def unless_scoped(company: str | None, scopes: Collection[str]) -> str | None:
    """A company without a scope; None where its id looks like that of a company in a scope, whose channel it would use."""
    return None if company is not None and split_scope(company)[0] in scopes else company


def path_companies(change: Change, watch: Watch) -> set[str] | None:
    """The companies, before and after, of a row that the path of the watch crosses.

    None for a change of any other row. The images of such rows have nothing but companies.
    """
    try:
        rows = [row for row in (_row(change.old), _row(change.new)) if row is not None]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not rows or any(not column.startswith(ARROW) for row in rows for column in row):
        return None
    found = {company_of(row, watch) for row in rows if watch.company_column in row}
    return {company for company in found if company is not None}


def is_unmoved(change: Change) -> bool:
    """Whether a row on a path leads along another way to the same company, as its writer sees it."""
    return b'"%b":' % UNMOVED.encode() in (change.new or b"")


def user_of(row: Row | None, watch: Watch) -> str | None:
    """The user to whom a row gives access; None where it gives access to no user."""
    if row is None or watch.member is None:
        return None
    value = bytes(row.get(watch.member, _NULL))
    if value == _NULL or not all(_has(row, *condition) for condition in watch.member_if.items()):
        return None
    name = _text(value)
    # Only a json column can hold NUL; PostgreSQL's text cannot.
    return None if "\0" in name else name


def _has(row: Row, column: str, wanted: Condition) -> bool:
    """Whether the column has the value that `member_if` demands."""
    value = bytes(row.get(column, _NULL))
    if isinstance(wanted, bool):
        return (value not in _UNSET) is wanted
    return value != _NULL and _text(value) == str(wanted)


def _text(value: bytes) -> str:
    return msgspec.json.decode(value, type=str) if value[:1] == b'"' else value.decode()
