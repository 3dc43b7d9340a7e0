"""Decides which users may see a company: by rows of watched tables, by MEMBERSHIP_QUERY, or by the token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Literal, NamedTuple

import asyncpg

from notifier.access.accounts import Accounts
from notifier.access.member_rows import MemberRowsQuery, tables_query
from notifier.access.operator_query import PIECE, OperatorQuery, Pair
from notifier.access.tokens import Identity
from notifier.database import sql
from notifier.database.answers import expected, typed
from notifier.database.batching import Batcher
from notifier.database.connections import VALUE_ERRORS, first_line
from notifier.database.query import Query, Record
from notifier.errors import DatabaseError, SchemaMissing, Unreachable

ROWS_PIECE = 1000
"""How many pairs are checked in one query of the rows of members."""

COMPILE_LIMIT = 3
"""How often a query is compiled for one check while the tables keep changing."""

TENANTS = 1000
"""How many compiled queries for schemas of tenants are kept."""

LOCK_MILLISECONDS = 300
"""How long a check waits for a tenant's table that is locked. Checks of other tenants wait for it."""

LINKS = 20
"""How many connections of operator queries are kept; beyond, those of former configurations are closed."""

Answers = Mapping[Pair, bool | Exception]
"""Whether each user may see the company, or why that is unknown."""


class _Left(NamedTuple):
    """What an operator query decides: access to a company, without its scope."""

    query: str
    scope: str
    company: str


class _Answer(NamedTuple):
    allowed: tuple[bool, ...] | None
    signature: str | None
    remains: list[str]


def _answer_of(signature: str, pairs: int, rows: Sequence[Record]) -> _Answer:
    """The answers for so many pairs; `allowed` is None where the tables have another signature."""
    (answer,) = typed(rows, _Answer)
    if answer.signature != signature:
        return answer._replace(allowed=None)
    if answer.allowed is None or len(answer.allowed) != pairs:
        raise ValueError("not an answer for each pair")
    return answer


def was_made_before(made: datetime, moment: float) -> bool:
    """Whether a change was made before a time of time.monotonic(), by the clocks of this node and of PostgreSQL."""
    return (datetime.now(UTC) - made).total_seconds() >= time.monotonic() - moment


class Membership:
    """Checks access; nothing is cached. Checks at the same time share a query.

    `database` reads the rows of members; each operator query has a connection of its own.
    Both must be read-only: application code that PostgreSQL's planner runs could write otherwise.
    """

    def __init__(
        self,
        database: Query,
        authorization: Literal["employees", "claim"],
        query: str | None,
        accounts: Accounts | None = None,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._claim = authorization == "claim"
        self._query = query
        self._operators: dict[tuple[str, str], OperatorQuery] = {}  # by query and scope
        self._rows: Batcher[Pair, bool | _Left] = Batcher(
            self._check_rows, ROWS_PIECE, owner=lambda pair: pair[1]
        )
        self._compiled: MemberRowsQuery | None = None
        self._of_tenants: dict[str, MemberRowsQuery] = {}  # by the schema's name

    @property
    def follows_rows(self) -> bool:
        """Whether the database decides, and not the token."""
        return not self._claim

    @property
    def maps_users(self) -> bool:
        """Whether USER_QUERY finds the rows' user for the token's."""
        return self._accounts is not None

    @property
    def may_change(self) -> bool:
        """Whether the database decides who the user is, or what the user may see: then both are re-checked."""
        return self.follows_rows or self.maps_users

    @property
    def conclusive(self) -> bool:
        """Whether a user who loses a row has lost the company: no check is needed."""
        if self.maps_users or not self.follows_rows:  # the user may be another one by now
            return False
        return (
            self._query is None and self._compiled is not None and self._compiled.one_row_per_pair
        )

    async def require(self) -> None:
        """Raises DatabaseError where access cannot be checked, as for a client that arrives now."""
        if self.follows_rows:
            if self._query is None:
                await self._rows.get(("", ""))
            else:
                await self._operator(self._query).require()
            if self._query or self._compiled is None or self._compiled.has_queries:
                await self._require_scopes()
        if self._accounts is not None:
            await self._accounts.require()

    async def _require_scopes(self) -> None:
        for name, query in await self._database.read(
            lambda rows: typed(rows, tuple[str, str]), sql.query("scope_queries"), restoring=False
        ):
            try:
                await self._operator(query, name).require()
            except DatabaseError as error:
                reason = first_line(error.__cause__ or error)
                raise DatabaseError(f"the membership query of scope {name}: {reason}") from None

    @property
    def piece(self) -> int:
        """How many pairs can be checked at once without delaying other checks for long."""
        has_queries = self._query or (self._compiled is not None and self._compiled.has_queries)
        return PIECE if has_queries else ROWS_PIECE

    async def user_of(self, identity: Identity, max_age: float) -> str:
        """The user as rows name it; empty where rows have no such user.

        With USER_QUERY it was looked up at most `max_age` seconds ago. Raises DatabaseError.
        """
        if self._accounts is None:
            return identity.user
        return await self._accounts.find(identity.user, max_age)

    def has_become_another(self, identity: Identity, made: datetime | None, since: float) -> bool:
        """Whether the token's user was found to be another of the rows' users after a message was made, and after `since`, a time of time.monotonic().

        Then the message may have been sent to the former user.
        """
        changed = None if self._accounts is None else self._accounts.changed_at(identity.user)
        if changed is None or changed < since:
            return False
        return made is None or was_made_before(made, changed)

    async def may_see(self, identity: Identity, company: str) -> bool:
        """Whether the user may see the company now. Raises DatabaseError where that is unknown.

        With USER_QUERY, `user_of` has looked up the user.
        """
        if self._claim:
            return identity.companies is not None and company in identity.companies
        user = identity.user if self._accounts is None else self._accounts.known(identity.user)
        return bool(user) and await self._check(company, user)

    async def _check(self, company: str, user: str) -> bool:
        """By MEMBERSHIP_QUERY, but for a company of a scope, which has rows or a query of its own; or else by rows."""
        if self._query and ":" not in company:
            return await self._operator(self._query).may_see(company, user)
        answer = await self._rows.get((company, user))
        if isinstance(answer, bool):
            return answer
        return await self._operator(answer.query, answer.scope).may_see(answer.company, user)

    async def _check_rows(self, pairs: Sequence[Pair]) -> Mapping[Pair, bool | _Left | Exception]:
        """By rows, but for the pairs on which an operator query decides."""
        answers: dict[Pair, bool | _Left | Exception] = {**await self._read_rows(pairs)}
        compiled = self._compiled
        assert compiled is not None
        if self._query or compiled.has_queries:
            for pair in pairs:
                scope, rest = compiled.split(pair[0])
                query = compiled.scopes.get(scope) if scope else self._query
                if query is not None:
                    answers[pair] = _Left(query, scope, rest)
        return answers

    async def _read_rows(self, pairs: Sequence[Pair]) -> Answers:
        """By one query; where tenants have members of their own, by one for each: none disturbs another."""
        for _ in range(COMPILE_LIMIT):
            query = self._compiled or await self._compile()
            groups = query.by_tenant(pairs)
            answers: dict[Pair, bool | Exception] = {}
            for tenant, own in groups.items():
                found = (
                    await self._read_tenant(tenant, own)
                    if tenant
                    else await self._read(query, None, own)
                )
                if found is None:
                    break
                answers.update(found)
            else:
                return answers
        raise SchemaMissing("the tables that name members keep changing")

    async def _read_tenant(self, tenant: str, pairs: Sequence[Pair]) -> Answers | None:
        try:
            query = self._of_tenants.get(tenant) or await self._compile(tenant)
            return await self._read(query, tenant, pairs)
        except Unreachable:
            raise
        except DatabaseError as error:
            return dict.fromkeys(pairs, error)

    async def _read(
        self, query: MemberRowsQuery, tenant: str | None, pairs: Sequence[Pair]
    ) -> Answers | None:
        """The answers of a query; None where its tables have changed, and it must be compiled again."""
        limit = None if tenant is None else LOCK_MILLISECONDS
        try:
            answer = await self._database.read(
                partial(_answer_of, query.signature, len(pairs)),
                query.statement,
                *query.arguments(pairs),
                lock_milliseconds=limit,
                restoring=False,
                may_refuse=True,
            )
        except VALUE_ERRORS:  # a character or a value that the database cannot represent
            if (await self._compile(tenant)).signature == query.signature:
                return await self._check_singly(query, pairs)
        except DatabaseError as error:
            if not isinstance(error.__cause__, asyncpg.SyntaxOrAccessError):
                raise
            if (await self._compile(tenant)).signature == query.signature:
                raise
        else:
            self._database.require_unchanged(answer.remains)
            if answer.allowed is not None:
                return dict(zip(pairs, answer.allowed, strict=True))
            self._compiled = None
        return None

    async def _check_singly(
        self, query: MemberRowsQuery, pairs: Sequence[Pair]
    ) -> Mapping[Pair, bool]:
        """One by one, because a pair cannot be represented in the database: that one is refused."""
        answers = dict.fromkeys(pairs, False)
        for pair in pairs if len(pairs) > 1 else ():
            with suppress(*VALUE_ERRORS):
                answer = await self._database.read(
                    partial(_answer_of, query.signature, 1),
                    query.statement,
                    *query.arguments([pair]),
                    may_refuse=True,
                )
                answers[pair] = bool(
                    answer.allowed and answer.allowed[0]
                )  # null: a table was altered
        return answers

    async def _compile(self, tenant: str | None = None) -> MemberRowsQuery:
        """Compiles a query from the present catalogue. Raises DatabaseError."""
        if tenant is None:
            self._compiled = None
            self._of_tenants.clear()
        rows = await self._database.fetch(tables_query(tenant), restoring=False)
        with expected():
            query = MemberRowsQuery.compile(
                [dict(row) for row in rows], required=self._query is None, tenant=tenant
            )
        if tenant is not None:
            if len(self._of_tenants) >= TENANTS:
                self._of_tenants.clear()
            self._of_tenants[tenant] = query
        else:
            self._compiled = query
        return query

    def _operator(self, query: str, scope: str = "") -> OperatorQuery:
        operator = self._operators.get((query, scope))
        if operator is None:
            for each in self._operators.values() if len(self._operators) > LINKS else ():
                each.close()
            operator = self._operators[query, scope] = OperatorQuery(self._database, query, scope)
        return operator

    def close(self) -> None:
        """Closes its connections."""
        self._database.close()
        for each in self._operators.values():
            each.close()

    def end(self) -> None:
        """Closes them for good."""
        self._database.end()
        for each in self._operators.values():
            each.end()
