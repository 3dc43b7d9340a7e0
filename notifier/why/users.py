"""Explains why a user may, or may not, see the messages of a company: now, and at a position."""

from __future__ import annotations

import math
from typing import NamedTuple

from notifier.access.accounts import Accounts
from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.configuration import Stored
from notifier.database.query import Query
from notifier.messages import ALL_USERS
from notifier.settings import Settings
from notifier.why.evidence import Evidence, Logged, escaped
from notifier.why.question import text_of


class Access(NamedTuple):
    """Whether the user may see the company now; None where the database does not decide.

    `lost`: the last message that took the access away from this user. `gained`: the last one that
    may have given it.
    """

    allowed: bool | None
    lost: Logged | None
    gained: Logged | None
    rows_user: str = ""
    """The user as rows name it: the token's, unless USER_QUERY finds another one. Empty: no user."""


async def find_access(settings: Settings, evidence: Evidence, user: str) -> Access:
    """Reads the user's access now, and the messages about it. Raises DatabaseError.

    `user` is the token's; with USER_QUERY the rows have another one.
    """
    if settings.authorization == "claim":
        return Access(None, None, None, user)
    if settings.user_query is not None:
        user = await _rows_user(settings, settings.user_query, user)
        if not user:
            return Access(False, None, None)
    allowed = await _is_allowed(settings, evidence.company, user)
    lost = [
        each
        for each in await evidence.revoking()
        if user in each.revokes and user != ALL_USERS  # which stands for all users
    ]
    watches = [stored for stored in await evidence.watches() if stored.watch.member is not None]
    gained = [
        each
        for each in await evidence.containing(escaped(user))
        if any(_names(stored, each, user) for stored in watches)
    ]
    return Access(allowed, lost[-1] if lost else None, gained[0] if gained else None, user)


async def _rows_user(settings: Settings, query: str, user: str) -> str:
    """The user whom USER_QUERY finds; empty where it finds none."""
    pooled = settings.database != settings.listen_database
    link = Query(settings.database, "why", pooled=pooled, pinned=False, read_only=True)
    try:
        return await Accounts(link, query, lambda _: None).find(user, 0.0)
    finally:
        link.close()


async def _is_allowed(settings: Settings, company: str, user: str) -> bool:
    pooled = settings.database != settings.listen_database
    query = Query(settings.database, "why", pooled=pooled, read_only=True)
    membership = Membership(query, settings.authorization, settings.membership_query)
    try:
        return await membership.may_see(Identity(user, math.inf, None), company)
    finally:
        membership.close()


def _names(stored: Stored, message: Logged, user: str) -> bool:
    """Whether a message is about a member row that names the user."""
    watch = stored.watch
    if watch.member is None or message.type not in (watch.created, watch.updated):
        return False
    value = message.data.get(watch.property(watch.member))
    return value is not None and text_of(value) == user


def describe(access: Access, user: str, tables: list[str]) -> str:
    """One line on the user's access now."""
    match access.allowed:
        case None:
            return f"user {user}: AUTHORIZATION=claim, so the token decides and not the database"
        case True:
            since = f", by a row of position {access.gained.position}" if access.gained else ""
            return f"user {user}: may see the company now{since}"
    if not access.rows_user:
        return f"user {user}: may not see any company: USER_QUERY finds no user of rows for it"
    if access.lost is not None:
        return f"user {user}: may not see the company; access was lost with {access.lost}"
    where = f"no row of {', '.join(tables)} gives" if tables else "MEMBERSHIP_QUERY does not give"
    return f"user {user}: may not see the company: {where} this user access to it"


def verdict(access: Access, user: str, message: Logged) -> str:
    """Whether a message reached the user's clients."""
    position, seen = message.position, message.type_for(access.rows_user)
    if seen is None:
        return f"user {user} did not receive it: visible_to names other users for this row"
    if access.allowed is None:
        return "it was sent to every client whose token names the company"
    if access.allowed:
        if access.gained is not None and access.gained.position > position:
            return (
                f"user {user} got access with position {access.gained.position} only, so clients that"
                f" were connected did not receive it; one that resumes from before {position} does"
            )
        form = "" if seen == message.type else f", as {seen} because of visible_to"
        return f"every client of user {user} that follows the company without a filter received it{form}"
    if access.lost is not None and access.lost.position >= position:
        return (
            f"user {user} lost access with position {access.lost.position}, behind it: clients that"
            " were connected then received it, and later ones do not"
        )
    if access.lost is not None:
        return (
            f"user {user} did not receive it: access was lost with position {access.lost.position}"
        )
    return f"user {user} did not receive it: this user may not see the company"
