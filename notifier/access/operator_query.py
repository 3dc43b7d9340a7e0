"""One query by which the operator decides who may see a company: MEMBERSHIP_QUERY, or that of a scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import asyncpg
import structlog

from notifier.access.member_rows import is_respelled, may_be_respelled
from notifier.database import sql
from notifier.database.batching import Batcher
from notifier.database.connections import VALUE_ERRORS
from notifier.database.query import Query, as_text
from notifier.errors import DatabaseError, Unreachable

Pair = tuple[str, str]
"""A company and a user."""

PIECE, HANGING_PIECE = 20, 1000
"""How many pairs are checked in one go, and while the query of each user misses its deadline: then one of them is tried."""

LATE = (TimeoutError, asyncpg.QueryCanceledError)
"""Errors of a query that has missed its deadline, or that of the role in the database."""

_log = structlog.get_logger("notifier.membership")


class OperatorQuery:
    """Checks pairs one after the other, as the query cannot take several without being rewritten. Users take turns.

    It has a connection of its own, since the types of its parameters are those of the connection. So it delays no other query.
    """

    def __init__(self, database: Query, query: str, scope: str = "") -> None:
        self._database = database
        self._query = query
        self._scope = scope
        self._link = database.for_operator()
        self._late: set[str] = (
            set()
        )  # users whose queries were the last ones, and missed their deadlines
        self._batcher = Batcher(
            self._check,
            limit=lambda: HANGING_PIECE if len(self._late) > 1 else PIECE,
            owner=lambda pair: pair[1],
        )

    async def may_see(self, company: str, user: str) -> bool:
        """Whether the user may see a company, without its scope, now. Raises DatabaseError where that is unknown."""
        return await self._batcher.get((company, user))

    async def require(self) -> None:
        """Raises DatabaseError where it cannot be run."""
        # Nulls are of every type: PostgreSQL would refuse another value before it checks rights.
        with suppress(*VALUE_ERRORS):
            await self._link.fetch(self._query, None, None, prepare=as_text, may_refuse=True)

    async def _check(self, pairs: Sequence[Pair]) -> Mapping[Pair, bool | Exception]:
        """Where a query misses its deadline, the pairs behind it have its error: each of them would wait as long."""
        answers: dict[Pair, bool | Exception] = {}
        for number, (company, user) in enumerate(pairs):
            try:
                answers[company, user] = await self._check_one(company, user)
            except Unreachable as error:
                if isinstance(error.__cause__, LATE):
                    self._late.add(user)
                return answers | dict.fromkeys(pairs[number:], error)
            except DatabaseError as error:
                answers[company, user] = error
            self._late.clear()
        return answers

    async def _check_one(self, company: str, user: str) -> bool:
        try:
            allowed = await self._link.read(
                lambda rows: bool(rows and rows[0][0] is True),
                self._query,
                company,
                user,
                prepare=as_text,
                may_refuse=True,
            )
            return allowed and await self._is_canonical(company)
        except asyncpg.DataError:  # not an id of that type
            return False
        except VALUE_ERRORS as error:  # not a yes either; the other pairs must not wait for it
            _log.warning("MEMBERSHIP_QUERY raised: no access", sqlstate=error.sqlstate)
            return False

    async def _is_canonical(self, company: str) -> bool:
        """Whether messages may name a company like that: not with "01" where ids are integers.

        The query may cast the id, and so accept spellings whose messages would never come.
        """
        if not may_be_respelled(company):
            return True
        types = await self._database.read(
            lambda rows: [row["type"] for row in rows],
            sql.query("company_types"),
            self._scope,
            restoring=False,
        )
        return not is_respelled(company, types)

    def close(self) -> None:
        """Closes its connection."""
        self._link.close()

    def end(self) -> None:
        """Closes it for good."""
        self._link.end()
