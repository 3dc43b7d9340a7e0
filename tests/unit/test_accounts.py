"""Accounts whose rows cannot be read after they have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from notifier.access.accounts import Accounts
from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.query import Query
from notifier.errors import DatabaseError
from tests.unit.worlds import settle


class Rows:
    """The rows' users of the tokens' users, while they can be read."""

    def __init__(self, **users: str) -> None:
        self.users = users
        self.is_lost = False
        self.reads = 0

    async def read(
        self, convert: Callable[[list[Any]], Any], _query: str, subject: str, **_options: Any
    ) -> Any:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_lost:
            raise DatabaseError("no answer in time")
        return convert([(self.users[subject],)] if subject in self.users else [])

    def end(self) -> None:
        """There is no connection."""


async def test_users_whose_changed_rows_cannot_be_read_are_checked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else they would go on as those who they were, until the rows can be read."""
    waits = asyncio.Event()

    async def backoff(_attempt: int) -> None:
        await waits.wait()

    monkeypatch.setattr("notifier.access.accounts.backoff", backoff)
    rows, changed = Rows(ada="1", bob="2"), list[str]()
    accounts = Accounts(cast("Query", rows), "SELECT", changed.append)
    assert [await accounts.find(name, 5) for name in ("ada", "bob")] == ["1", "2"]
    rows.is_lost = True
    del rows.users["ada"]
    accounts.refresh({"ada"})
    await settle()
    assert changed == ["1"]
    with pytest.raises(DatabaseError):
        await accounts.find("ada", 60)
    assert await accounts.find("bob", 60) == "2"
    accounts.refresh({"ada"})
    await settle()
    assert changed == ["1"]
    rows.is_lost = False
    waits.set()
    await settle()
    assert accounts.known("ada") == ""
    assert changed == ["1", "1"]
    accounts.end()


async def test_a_user_who_has_become_another_one_may_have_had_messages_from_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = Rows(ada="1", bob="2")
    accounts = Accounts(cast("Query", rows), "SELECT", lambda _: None)
    membership = Membership(cast("Query", rows), "employees", None, accounts)
    ada, bob = (Identity(name, 1e12, None) for name in ("ada", "bob"))
    earlier, later = (datetime.now(UTC) + timedelta(minutes=by) for by in (-1, 1))

    def have_become(made: datetime | None, since: float = 0) -> list[bool]:
        return [membership.has_become_another(each, made, since) for each in (ada, bob)]

    for identity in (ada, bob):
        await membership.user_of(identity, 0)
    assert have_become(earlier) == [False, False], "the first users that were found"
    rows.users["ada"] = "3"
    before = time.monotonic()
    for identity in (ada, bob):
        await membership.user_of(identity, 0)
    assert have_become(earlier) == have_become(None) == [True, False]
    assert have_become(later) == [False, False]
    assert have_become(earlier, before) == [True, False]
    assert have_become(earlier, time.monotonic() + 1) == [False, False]
    monkeypatch.setattr("notifier.access.accounts.KEPT_SECONDS", -1.0)
    assert have_become(earlier) == [False, False]
