"""Accounts: the users that rows name, found by USER_QUERY for the users of tokens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf

import asyncpg
import structlog

from notifier.database.batching import Batcher
from notifier.database.connections import VALUE_ERRORS, Connection, backoff
from notifier.database.query import Query, as_text
from notifier.errors import DatabaseError

PIECE = 20
"""How many users are looked up in one go; a new one waits for these at most."""

KEPT_SECONDS = 180.0
"""How long an account is kept after it was last looked up. Those in use are looked up every minute."""

TRIES = 3
"""How often a look-up is repeated because rows that it reads have changed meanwhile."""

_log = structlog.get_logger("notifier.accounts")


class _Account:
    """`user` is empty where rows have no such user. `checked`: when that was looked up last. `since`: when another user was found to have become this one."""

    __slots__ = ("checked", "since", "user")

    def __init__(self, user: str, checked: float) -> None:
        self.user = user
        self.checked = checked
        self.since = -inf


class Accounts:
    """Finds the rows' user for a token's user, and remembers it while it is in use.

    `query` takes the token's user as its only parameter and returns the rows' user, or no row. Several
    different users count as no user. `changed` is called with a rows' user to whom a token's user no longer maps.
    """

    def __init__(self, database: Query, query: str, changed: Callable[[str], None]) -> None:
        self._database = database
        self._query = query
        self._changed = changed
        self._batcher: Batcher[str, str] = Batcher(self._load, PIECE)
        self._accounts: dict[str, _Account] = {}
        self._subjects: dict[str, set[str]] = {}  # the tokens' users of each user
        self._serial = 0
        self._recent: deque[tuple[int, Collection[str] | None]] = deque(maxlen=1000)
        self._due: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._swept = time.monotonic()

    async def require(self) -> None:
        """Raises DatabaseError where users cannot be looked up now, or the query does not have that form."""
        with suppress(*VALUE_ERRORS):
            await self._fetch(None)

    def known(self, subject: str) -> str:
        """The rows' user as last looked up, empty where there is none."""
        account = self._accounts.get(subject)
        return account.user if account is not None else ""

    def changed_at(self, subject: str) -> float | None:
        """When the rows' user was found to be another one than before, by time.monotonic(), in the last KEPT_SECONDS."""
        account = self._accounts.get(subject)
        if account is None or account.since < time.monotonic() - KEPT_SECONDS:
            return None
        return account.since

    async def find(self, subject: str, max_age: float) -> str:
        """The rows' user, looked up at most `max_age` seconds ago. Raises DatabaseError."""
        account = self._accounts.get(subject)
        if account is not None and account.user and account.checked >= time.monotonic() - max_age:
            return account.user
        return await self._look_up(subject)

    def refresh(self, values: Collection[str] | None) -> None:
        """Refreshes the accounts that a changed row with these values names; None: all of them."""
        self._serial += 1
        self._recent.append((self._serial, values))
        if values is None:
            self._due.update(self._accounts)
        else:
            for value in values:
                if value in self._accounts:
                    self._due.add(value)
                self._due.update(self._subjects.get(value, ()))
        self._begin()

    def _begin(self) -> None:
        if self._due and self._task is None:
            self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """Refreshes nothing any more, and closes the connection for good."""
        if self._task is not None:
            self._task.cancel()
        self._database.end()

    async def _run(self) -> None:
        attempt = 0
        try:
            while self._due:
                batch = list(self._due)
                self._due.clear()
                found = await asyncio.gather(*map(self._refresh, batch), return_exceptions=True)
                failed = [
                    subject
                    for subject, answer in zip(batch, found, strict=True)
                    if isinstance(answer, BaseException)
                ]
                if failed:
                    self._due.update(failed)
                    await backoff(attempt)
                    attempt += 1
        finally:
            self._task = None

    async def _refresh(self, subject: str) -> None:
        """Looks an account up. Where that fails, access of its user is re-checked at once, which looks it up, or ends the access."""
        try:
            await self._look_up(subject)
        except DatabaseError:
            account = self._accounts.get(subject)
            if account is not None and account.checked > -inf:
                account.checked = -inf
                self._changed(account.user)
            raise

    async def _look_up(self, subject: str) -> str:
        for _ in range(TRIES):
            serial, begun = self._serial, time.monotonic()
            user = await self._batcher.get(subject)
            if not self._has_changed(serial, subject, user):
                break
        else:  # the answer is not kept waiting any longer
            self._due.add(subject)
            self._begin()
        self._remember(subject, user, begun)
        return user

    def _has_changed(self, serial: int, subject: str, user: str) -> bool:
        """Whether a row that concerns the user has changed after `serial`, or may have: only the last changes are kept."""
        if self._recent and self._recent[0][0] > serial + 1:
            return True
        for number, values in reversed(self._recent):
            if number <= serial:
                return False
            if values is None or subject in values or user in values:
                return True
        return False

    def _remember(self, subject: str, user: str, begun: float) -> None:
        account = self._accounts.get(subject)
        if account is None:
            self._sweep()
            self._accounts[subject] = _Account(user, begun)
            self._subjects.setdefault(user, set()).add(subject)
            return
        account.checked = max(begun, account.checked)
        former, account.user = account.user, user
        if former != user:
            account.since = time.monotonic()
            self._drop_subject(former, subject)
            self._subjects.setdefault(user, set()).add(subject)
            self._changed(former)

    def _sweep(self) -> None:
        """Forgets the accounts that were not looked up for KEPT_SECONDS."""
        oldest = time.monotonic() - KEPT_SECONDS
        if self._swept > oldest:
            return
        self._swept = time.monotonic()
        for subject, account in list(self._accounts.items()):
            if account.checked < oldest:
                del self._accounts[subject]
                self._drop_subject(account.user, subject)

    def _drop_subject(self, user: str, subject: str) -> None:
        if (subjects := self._subjects.get(user)) is not None:
            subjects.discard(subject)
            if not subjects:
                del self._subjects[user]

    async def _load(self, subjects: Sequence[str]) -> Mapping[str, str]:
        """One by one: the operator's query cannot take several without being rewritten."""
        found: dict[str, str] = {}
        for subject in subjects:
            found[subject] = ""
            try:
                users = await self._fetch(subject)
            except asyncpg.DataError:  # not a user of that type
                continue
            except VALUE_ERRORS as error:
                _log.warning("USER_QUERY raised: no user", sqlstate=error.sqlstate)
                continue
            if len(users) == 1:
                (found[subject],) = users
            elif users:
                _log.warning("USER_QUERY returned several users for one: no user")
        return found

    async def _fetch(self, subject: str | None) -> set[str]:
        return await self._database.read(
            lambda rows: {str(row[0]) for row in rows if row[0] is not None},
            self._query,
            subject,
            prepare=_prepare,
            may_refuse=True,
        )


async def _prepare(connection: Connection, query: str) -> None:
    """Lets the parameter be given as text. Raises DatabaseError for a query of another form."""
    statement = await connection.prepare(query)
    taken, returned = len(statement.get_parameters()), len(statement.get_attributes())
    if taken != 1:
        raise DatabaseError(
            f"NOTIFIER_USER_QUERY must take one parameter, $1, the token's user; this one takes {taken}"
        )
    if returned != 1:
        raise DatabaseError(
            "NOTIFIER_USER_QUERY must return one column, the user as rows name it;"
            f" this one returns {returned}"
        )
    await as_text(connection, query)
