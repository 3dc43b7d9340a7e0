"""Makes the texts of `State` messages from row images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter

import msgspec

from notifier.delivery.filter import Change, Filter
from notifier.errors import StateUnavailable
from notifier.messages import JSON
from notifier.relay.changes import Change as Captured
from notifier.relay.changes import Source
from notifier.relay.images import Row, Unattributable, company_of, read_images
from notifier.relay.rendering import MESSAGE_LIMIT, data_of
from notifier.relay.visibility import readers_of

_encode = msgspec.json.Encoder().encode
_NEVER = datetime.min.replace(tzinfo=UTC)


def pages(company: str, source: Source, images: Iterable[JSON], user: str) -> Iterator[JSON]:
    """Messages of at most MESSAGE_LIMIT bytes with the rows that `user` sees; no message if there are no rows.

    Rows with keys only are in messages of their own, which are marked as partial.
    """
    data = b'"Data":{"CompanyId":%b,"Entity":%b,"Rows":[' % (
        _encode(company),
        _encode(source.watch.entity),
    )
    heads = b'{"Type":"State",%b' % data, b'{"Type":"State","Partial":true,%b' % data
    room = MESSAGE_LIMIT - len(heads[False]) - len(b"]}}")
    given = _rows(company, source, images, user, room=room)
    for is_partial, group in groupby(given, key=itemgetter(0)):
        head = heads[is_partial]
        rows: list[bytes] = []
        room = MESSAGE_LIMIT - len(head) - len(b"]}}")
        size = 0  # with a comma after each row but the last
        for _, row in group:
            if rows and size + len(row) > room:
                yield b"%b%b]}}" % (head, b",".join(rows))
                rows, size = [], 0
            rows.append(row)
            size += len(row) + 1
        yield b"%b%b]}}" % (head, b",".join(rows))


def _rows(
    company: str, source: Source, images: Iterable[JSON], user: str, *, room: int
) -> Iterator[tuple[bool, bytes]]:
    """Each row as in `Data`, and whether it has its keys only: it is larger than `room` bytes, or cannot be read."""
    watch = source.watch
    for image in images:
        if (found := _read(company, source, image)) is None:
            continue
        row, keys_only = found
        if watch.visible_to and not _sees(user, row, source):
            continue
        data = data_of(_keys(row, source) if keys_only else row, source, company)
        if len(data) > room:
            data, keys_only = data_of(_keys(row, source), source, company), True
        yield keys_only, data


def is_compared_later(source: Source, wanted: Filter | None) -> bool:
    """Whether rows are compared with the values of a filter only once it is known that the user sees them.

    Otherwise the answer and its time would reveal which values the other rows have.
    """
    return bool(
        source.watch.visible_to and wanted is not None and wanted.conditions(source.watch.entity)
    )


def passing(
    company: str, source: Source, images: Iterable[JSON], wanted: Filter, user: str | None = None
) -> list[JSON]:
    """The images of the rows that pass; with `user`, of those that this user sees, and no other is compared."""
    found: list[JSON] = []
    for image in images:
        if (read := _read(company, source, image)) is None:
            continue
        row, keys_only = read
        if user is not None and source.watch.visible_to and not _sees(user, row, source):
            continue
        data = data_of(_keys(row, source) if keys_only else row, source, company)
        body = b'{"Type":"State","Data":%b}' % data
        if wanted.passes(Change(body, {"State": source.watch.entity})):
            found.append(image)
    return found


def _read(company: str, source: Source, image: JSON) -> tuple[Row, bool] | None:
    """The row of an image, and whether only its keys could be read.

    None where it is deleted softly, or has another spelling of the company's id.
    """
    watch = source.watch
    change = Captured(0, 0, watch.entity, None, image, False, None, _NEVER)
    try:
        _, row, keys_only = read_images(change, watch)
    except Unattributable as error:
        raise StateUnavailable(f"a row of {watch.table} cannot be read") from error
    if row is None or company_of(row, watch, source.tenant) != company:
        return None
    return row, keys_only


def _keys(row: Row, source: Source) -> Row:
    """The columns of key and company."""
    return {column: row[column] for column in source.watch.identity}


def _sees(user: str, row: Row, source: Source) -> bool:
    """Whether the user sees the row."""
    users = readers_of(row, source)
    return users is None or user in users
