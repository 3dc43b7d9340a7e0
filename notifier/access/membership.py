"""Who may see a company: the `employees` row decides, a query of the operator's, or the token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import asyncpg
import structlog

from notifier.access.tokens import Identity
from notifier.companies import is_uuid
from notifier.database import sql
from notifier.database.batching import Loader
from notifier.database.connections import REFUSALS, Connection
from notifier.database.query import Query
from notifier.errors import SchemaMissing

Pair = tuple[str, str]
"""A company and a user."""

_NIL = "00000000-0000-0000-0000-000000000000"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_BITS = {"bigint": 64, "integer": 32, "smallint": 16}


TABLE_PIECE, QUERY_PIECE = 1000, 20
"""How many pairs are asked about in one go, where nobody waits for the answer."""


_log = structlog.get_logger("notifier.membership")


class Membership:
    """Asks anew each time; who asks at the same time shares a query."""

    def __init__(
        self, asker: Query, authorization: Literal["employees", "claim"], query: str | None
    ) -> None:
        self._asker = asker
        self._claim = authorization == "claim"
        self._query = query
        self._loader = Loader(self._load_each if query else self._load)
        self._default: tuple[str, str, str] | None = None
        self._single = False

    @property
    def follows_rows(self) -> bool:
        """Whether rows decide at all."""
        return not self._claim

    @property
    def definite(self) -> bool:
        """Whether the loss of a row is the loss of the company, without asking again.

        So it is where nobody can have a second row: one table, unique in company and user.
        """
        return not self._claim and self._query is None and self._single

    @property
    def piece(self) -> int:
        """How many pairs can be asked about without keeping others waiting for long."""
        return QUERY_PIECE if self._query else TABLE_PIECE

    async def may(self, identity: Identity, company: str) -> bool:
        """Whether the user may see the company now. Raises DatabaseError where it cannot be asked."""
        if self._claim:
            return identity.companies is not None and company in identity.companies
        return await self._loader.get((company, identity.user))

    async def _load(self, pairs: Sequence[Pair]) -> Mapping[Pair, bool]:
        """All pairs in one query of the table that was watched for members."""
        if self._default is None:
            self._default = await self._compile()
        query, company_type, member_type = self._default
        try:
            rows = await self._asker.fetch(
                query,
                [_castable(company, company_type) for company, _ in pairs],
                [_castable(user, member_type) for _, user in pairs],
                [company for company, _ in pairs],
                [user for _, user in pairs],
                [_castable(_capitals(company), company_type) for company, _ in pairs],
                [_capitals(company) for company, _ in pairs],
            )
        except REFUSALS:  # a letter that the database cannot write, an id of another type
            if len(pairs) == 1:
                return {pairs[0]: False}
            answers: dict[Pair, bool] = {}
            for pair in pairs:
                answers |= await self._load([pair])
            return answers
        except SchemaMissing:
            self._default = None
            raise
        return dict(zip(pairs, rows[0][0], strict=True))

    async def _compile(self) -> tuple[str, str, str]:
        rows = await self._asker.fetch(sql.query("membership_table"))
        if not rows:
            raise SchemaMissing(
                "no watched table names members; set member in [[watch]], or MEMBERSHIP_QUERY"
            )
        names = dict(rows[0])
        # A text column may hold one uuid in two spellings, and so a second row.
        self._single = names["single"] and names["company_type"] in ("uuid", *_BITS)
        return (
            sql.query("membership_check").format(**names),
            names["company_type"],
            names["member_type"],
        )

    async def _load_each(self, pairs: Sequence[Pair]) -> Mapping[Pair, bool]:
        """The operator's query, pair by pair: it cannot be asked for many without rewriting it."""
        assert self._query is not None
        answers: dict[Pair, bool] = {}
        for company, user in pairs:
            try:
                rows = await self._asker.fetch(self._query, company, user, prepare=as_text)
                answers[company, user] = bool(rows and rows[0][0] is True)
            except asyncpg.DataError:  # not an id of that type
                answers[company, user] = False
            except REFUSALS as error:  # nor is this a yes; others must not wait for it
                answers[company, user] = False
                _log.warning("MEMBERSHIP_QUERY raised: no access", sqlstate=error.sqlstate)
        return answers


async def as_text(connection: Connection, query: str) -> None:
    """Lets the query's parameters be given as text, whatever their types are."""
    statement = await connection.prepare(query)
    for kind in statement.get_parameters():
        if kind.schema == "pg_catalog":
            await connection.set_type_codec(
                kind.name, schema=kind.schema, encoder=str, decoder=str, format="text"
            )


def _capitals(company: str) -> str:
    """A uuid's other spelling, which a column of text may hold; of anything else its only one."""
    return company.upper() if is_uuid(company) else company


def _castable(value: str, kind: str) -> str:
    """The value, or another one of the type where the type cannot hold it."""
    if kind == "uuid":
        return value if is_uuid(value) else _NIL
    if kind in _BITS:
        held = _INTEGER.fullmatch(value) and abs(int(value)) < 1 << (_BITS[kind] - 1)
        return value if held else "0"
    return value
