"""Decides which users may see a company: by rows of watched tables, by MEMBERSHIP_QUERY, or by the token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple

import asyncpg
import structlog

from notifier.access.accounts import Accounts
from notifier.access.member_rows import (
    MemberRowsQuery,
    is_respelled,
    may_be_respelled,
    tables_query,
)
from notifier.access.tokens import Identity
from notifier.database import sql
from notifier.database.answers import expected, typed
from notifier.database.batching import Batcher
from notifier.database.connections import VALUE_ERRORS, first_line
from notifier.database.query import Query, Record, as_text
from notifier.errors import DatabaseError, SchemaMissing, Unreachable

Pair = tuple[str, str]
"""A company and a user."""

ROWS_PIECE, QUERY_PIECE = 1000, 20
"""How many pairs a periodic re-check checks in one go, by rows and by MEMBERSHIP_QUERY."""

COMPILE_LIMIT = 3
"""How often a query is compiled for one check while the tables keep changing."""

TENANTS = 1000
"""How many compiled queries for schemas of tenants are kept."""

LOCK_MILLISECONDS = 300
"""How long a check waits for a tenant's table that is locked. Checks of other tenants wait for it."""

LINKS = 20
"""How many connections for operator queries are kept; beyond, those of former configurations are closed."""

Answers = Mapping[Pair, bool | Exception]
"""Whether each user may see the company, or why that is unknown."""

_log = structlog.get_logger("notifier.membership")


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
        self._links: dict[str, Query] = {}  # by the operator's query
        self._batcher = Batcher(
            self._check_by_query if query else self._check_rows,
            limit=lambda: self.piece,
            owner=lambda pair: pair[1],
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
                await self._batcher.get(("", ""))
            else:
                await self._require_query(self._query)
            if self._query or self._compiled is None or self._compiled.has_queries:
                await self._require_scopes()
        if self._accounts is not None:
            await self._accounts.require()

    async def _require_scopes(self) -> None:
        for name, query in await self._database.read(
            lambda rows: typed(rows, tuple[str, str]), sql.query("scope_queries"), restoring=False
        ):
            try:
                await self._require_query(query)
            except DatabaseError as error:
                reason = first_line(error.__cause__ or error)
                raise DatabaseError(f"the membership query of scope {name}: {reason}") from None

    async def _require_query(self, query: str) -> None:
        # Nulls are of every type: PostgreSQL would refuse another value before it checks rights.
        with suppress(*VALUE_ERRORS):
            await self._link(query).fetch(query, None, None, prepare=as_text, may_refuse=True)

    @property
    def piece(self) -> int:
        """How many pairs can be checked at once without delaying other checks for long."""
        has_queries = self._query or (self._compiled is not None and self._compiled.has_queries)
        return QUERY_PIECE if has_queries else ROWS_PIECE

    async def user_of(self, identity: Identity, max_age: float) -> str:
        """The user as rows name it; empty where rows have no such user.

        With USER_QUERY it was looked up at most `max_age` seconds ago. Raises DatabaseError.
        """
        if self._accounts is None:
            return identity.user
        return await self._accounts.find(identity.user, max_age)

    async def may_see(self, identity: Identity, company: str) -> bool:
        """Whether the user may see the company now. Raises DatabaseError where that is unknown.

        With USER_QUERY, `user_of` has looked up the user.
        """
        if self._claim:
            return identity.companies is not None and company in identity.companies
        user = identity.user if self._accounts is None else self._accounts.known(identity.user)
        return bool(user) and await self._batcher.get((company, user))

    async def _check_by_query(self, pairs: Sequence[Pair]) -> Answers:
        """By MEMBERSHIP_QUERY, but for companies of a scope, which have rows or a query of their own."""
        answers: dict[Pair, bool | Exception] = {}
        if scoped := [pair for pair in pairs if ":" in pair[0]]:
            rows = await self._check_rows(scoped)
            assert self._compiled is not None
            split = self._compiled.split
            answers = {pair: allowed for pair, allowed in rows.items() if split(pair[0])[0]}
        assert self._query is not None
        others = [pair for pair in pairs if pair not in answers]
        return answers | await self._check_each(self._query, "", others)

    async def _check_rows(self, pairs: Sequence[Pair]) -> Answers:
        """All pairs, in one query of the tables that name members; those of scopes with a query by it."""
        answers = await self._read_rows(pairs)
        compiled = self._compiled
        if compiled is None or not compiled.has_queries:
            return answers
        found = dict(answers)
        of_scopes: dict[str, list[Pair]] = {}
        for pair in pairs:
            of_scopes.setdefault(compiled.split(pair[0])[0], []).append(pair)
        for scope, own in of_scopes.items():
            if (query := compiled.scopes.get(scope)) is not None:
                found |= await self._check_each(query, scope, own)
        return found

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

    async def _check_each(
        self, query: str, scope: str, pairs: Sequence[Pair]
    ) -> dict[Pair, bool | Exception]:
        """By an operator query, one after the other. Where it fails, the pairs of other queries keep their answers."""
        answers: dict[Pair, bool | Exception] = {}
        for number, (company, user) in enumerate(pairs):
            rest = company.removeprefix(f"{scope}:") if scope else company
            try:
                answers[company, user] = await self._check_one(query, scope, rest, user)
            except Unreachable as error:  # another one would wait for its deadline too
                return answers | dict.fromkeys(pairs[number:], error)
            except DatabaseError as error:
                answers[company, user] = error
        return answers

    async def _check_one(self, query: str, scope: str, company: str, user: str) -> bool:
        """By an operator query; it cannot take several pairs without being rewritten."""
        try:
            allowed = await self._link(query).read(
                lambda rows: bool(rows and rows[0][0] is True),
                query,
                company,
                user,
                prepare=as_text,
                may_refuse=True,
            )
            return allowed and await self._is_canonical(company, scope)
        except asyncpg.DataError:  # not an id of that type
            return False
        except VALUE_ERRORS as error:  # not a yes either; the other pairs must not wait for it
            _log.warning("MEMBERSHIP_QUERY raised: no access", sqlstate=error.sqlstate)
            return False

    async def _is_canonical(self, company: str, scope: str) -> bool:
        """Whether messages may name a company like that: not with "01" where ids are integers.

        The operator's query may cast the id, and so accept spellings whose messages would never come.
        """
        if not may_be_respelled(company):
            return True
        types = await self._database.read(
            lambda rows: [row["type"] for row in rows],
            sql.query("company_types"),
            scope,
            restoring=False,
        )
        return not is_respelled(company, types)

    def _link(self, query: str) -> Query:
        """The connection for an operator query: the types of its parameters are those of the connection."""
        link = self._links.get(query)
        if link is None:
            for each in self._links.values() if len(self._links) > LINKS else ():
                each.close()
            link = self._links[query] = self._database.for_operator()
        return link

    def close(self) -> None:
        """Closes its connections."""
        for link in (self._database, *self._links.values()):
            link.close()

    def end(self) -> None:
        """Closes them for good."""
        for link in (self._database, *self._links.values()):
            link.end()
