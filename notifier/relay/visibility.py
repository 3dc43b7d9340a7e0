"""Which users of a company see a row, and what an update means for them, as determined by the row's images.

`visible_to` of a watch names columns that hold users, or arrays of users. If all are empty, every
user of the company sees the row. Users are compared by PostgreSQL's text form of their ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec

from notifier.relay.changes import Source
from notifier.relay.images import Row

Users: TypeAlias = frozenset[str] | None
"""The users who see a row; None: every user of its company."""

HIDDEN: Users = frozenset()
"""No user sees the row."""


class Audience(NamedTuple):
    """Users of a company: `users`, or with `others` all but them."""

    users: frozenset[str]
    others: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether no user belongs to it."""
        return not self.others and not self.users


EVERY_USER = Audience(frozenset(), others=True)
NO_USER = Audience(frozenset())


class Audiences(NamedTuple):
    """The users who see a row before and after an update, only after it, and only before it."""

    kept: Audience
    gained: Audience
    lost: Audience


def users_of(row: Row, source: Source) -> Users:
    """The users who see a row. A column that is missing hides it from all, as does one without ids."""
    users: set[str] = set()
    restricted = False
    for column in source.watch.visible_to:
        value = row.get(column)
        if value is None or column in source.virtual_columns:  # renamed, dropped or replaced
            return HIDDEN
        for user in _users_in(bytes(value)):
            restricted = True
            if user is not None:
                users.add(user)
    return frozenset(users) if restricted else None


def readers_of(row: Row, source: Source) -> Users:
    """The users who see a row, but for `''`, which an array may contain: it is the id of each user whom USER_QUERY does not find."""
    users = users_of(row, source)
    return users and users - {""}


def audience_of(users: Users) -> Audience:
    """The users who see a row."""
    return EVERY_USER if users is None else Audience(users)


def audiences(before: Users, after: Users) -> Audiences:
    """The users of the company who keep, gain and lose sight of a row by an update."""
    if before is None:
        lost = NO_USER if after is None else Audience(after, others=True)
        return Audiences(audience_of(after), NO_USER, lost)
    if after is None:
        return Audiences(Audience(before), Audience(before, others=True), NO_USER)
    return Audiences(Audience(before & after), Audience(after - before), Audience(before - after))


def _users_in(value: bytes) -> Iterator[str | None]:
    """The users in a column's JSON value; None for what is neither empty nor the id of a user."""
    if value in (b"null", b'""', b"[]", b"{}"):
        return
    if value[:1] != b"[":
        yield _user(value)
        return
    try:
        items = msgspec.json.decode(value, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        yield None
        return
    for item in items:
        element = bytes(item)
        if element[:1] == b"[":  # an array of several dimensions
            try:
                yield from _users_in(element)
            except RecursionError:
                yield None
        elif element != b"null":
            yield _user(element)


def _user(value: bytes) -> str | None:
    """The text of an id."""
    if value[:1] == b"{":
        return None
    if value[:1] != b'"':
        return value.decode()
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return None
