"""The query that decides on access by the rows of watched tables, compiled from the catalogue."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from notifier.companies import canonical, capitals, is_uuid, split_scope
from notifier.database import paths, sql
from notifier.database.query import REMAINS
from notifier.errors import SchemaMissing

_NIL = "00000000-0000-0000-0000-000000000000"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INTEGER_INPUT = re.compile(
    r"\s*[-+]?(?:[0-9][0-9_]*|0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+)\s*", re.IGNORECASE
)
_UUID_INPUT = re.compile(r"\{?(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}\}?", re.IGNORECASE)
"""What PostgreSQL reads as a value of the type: `01`, ` 1`, `+1`, `0x1`, `1_000`; `{…}`."""
_BITS = {"bigint": 64, "integer": 32, "smallint": 16}
_EXACT = ("uuid", *_BITS)
"""Types of which a value has one spelling. A text may hold one uuid in two, so in two rows."""


@dataclass(frozen=True, slots=True)
class MemberRowsQuery:
    """`statement` takes `arguments`, and returns an array of booleans, the present signature and the rows of REMAINS.

    Another signature than `signature` means that the tables have changed; then the answer is null.
    `one_row_per_pair`: a pair of company and user has at most one row, so losing it is losing the company.
    """

    statement: str
    signature: str
    one_row_per_pair: bool
    types: tuple[tuple[str | None, str | None], ...]
    scopes: Mapping[str, str | None]
    """The scopes, each with the query that decides instead of member rows, if it has one."""
    tenants: Mapping[str, str]
    """The schemas that have members of their own, by the id of their company: each has a query."""

    @classmethod
    def compile(
        cls,
        rows_of_tables: Sequence[Mapping[str, Any]],
        *,
        required: bool = True,
        tenant: str | None = None,
    ) -> MemberRowsQuery:
        """Compiles the query from the rows of `tables_query`. Raises SchemaMissing.

        `required`: rows or queries of scopes must decide, as nothing else does. `tenant`: the schema
        whose tables are among the rows.
        """
        scopes: dict[str, str | None] = msgspec.json.decode(rows_of_tables[0]["scopes"])
        tenants = {canonical(name): name for name in rows_of_tables[0]["tenants"]}
        tables = [
            table
            for table in rows_of_tables
            if table["watched"] is not None
            and not scopes.get(table["scope"] or "")
            # of a tenant that is dropped, there are no members any more
            and (table["tenant"] is None or table["there"])
        ]
        if required and not tables and not tenants and not any(scopes.values()):
            raise SchemaMissing(
                "no watched table names members; set member in [[watch]], or MEMBERSHIP_QUERY"
            )
        if missing := [table["watched"] for table in tables if not table["present"]]:
            raise SchemaMissing(
                f"{missing[0]} or its column for companies or members is gone or was renamed;"
                " change [[watch]] and run: notifier migrate"
            )
        signature = rows_of_tables[0]["signature"]
        types = tuple((table["company_type"], table["member_type"]) for table in tables)
        arrays, names, rows = "", "", []
        parameter = 4
        for number, table in enumerate(tables):
            typed = ""
            member = f"member.{table['member']}"
            if table["tenant"] is None:
                column = table["company"]
                company = as_text(column, table["company_type"])
            else:
                company = _literal(canonical(table["tenant"]))
            if (kind := table["company_type"]) is not None:
                arrays += f", pg_catalog.unnest(${parameter + 1}::text[]::{kind}[])"
                arrays += f", pg_catalog.unnest(${parameter + 2}::text[]::{kind}[])"
                names += f", c{number}, k{number}"
                parameter += 2
                typed += (
                    f" AND {column} OPERATOR(pg_catalog.=)"
                    f" ANY (ARRAY[pair.c{number}, pair.k{number}])"
                )
            if (kind := table["member_type"]) is not None:
                arrays += f", pg_catalog.unnest(${parameter + 1}::text[]::{kind}[])"
                names += f", u{number}"
                parameter += 1
                typed += f" AND {member} OPERATOR(pg_catalog.=) pair.u{number}"
            rows.append(
                sql.query("membership_rows").format(
                    relation=table["relation"],
                    joins=table["joins"] or "",
                    company=company,
                    member=as_text(member, table["member_type"]),
                    typed=typed,
                    scope=f" AND pair.scope OPERATOR(pg_catalog.=) {_literal(table['scope'] or '')}",
                    conditions="".join(map(_condition, _decode_conditions(table["conditions"]))),
                )
            )
        statement = sql.query("membership_check").format(
            rows=" OR ".join(rows) or "false",
            arrays=arrays,
            names=names,
            signature=_signature(tenant),
            expected=_literal(signature),
            remains=REMAINS,
        )
        one_row_per_pair = (
            not scopes
            and not tenants
            and len(tables) == 1
            and tables[0]["unique"]
            and types[0][0] in _EXACT
        )
        return cls(statement, signature, one_row_per_pair, types, scopes, tenants)

    @property
    def has_queries(self) -> bool:
        """Whether a query decides on a scope."""
        return any(self.scopes.values())

    def by_tenant(self, pairs: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
        """The pairs by the schema whose own members decide on them; "" for none."""
        if not self.tenants:
            return {"": list(pairs)}
        found: dict[str, list[tuple[str, str]]] = {}
        for pair in pairs:
            found.setdefault(self.tenants.get(self.split(pair[0])[1], ""), []).append(pair)
        return found

    def split(self, company: str) -> tuple[str, str]:
        """The scope of a company, empty for none, and its id without it."""
        scope, rest = split_scope(company) if self.scopes else ("", company)
        return (scope, rest) if scope in self.scopes else ("", company)

    def arguments(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
        """The statement's parameters for pairs of company and user."""
        split = [self.split(company) for company, _ in pairs]
        companies, users = [company for _, company in split], [user for _, user in pairs]
        others = [capitals(company) for company in companies]
        yield companies
        yield others
        yield users
        yield [scope for scope, _ in split]
        for company_type, member_type in self.types:
            if company_type is not None:
                yield [castable(company, company_type) for company in companies]
                yield [castable(company, company_type) for company in others]
            if member_type is not None:
                yield [castable(user, member_type) for user in users]


def may_be_respelled(company: str) -> bool:
    """Whether `is_respelled` depends on the types."""
    return is_respelled(company, ("uuid", "bigint"))


def is_respelled(company: str, types: Collection[str]) -> bool:
    """Whether an id is another spelling of a value that a column of one of the types may have.

    "01" where ids are integers, but not where they are texts.
    """
    return any(_reads(company, kind) for kind in types) and not any(
        _has(company, kind) for kind in types
    )


def _reads(company: str, kind: str) -> bool:
    """Whether a cast of the text to the type may succeed: to integers and uuids."""
    if kind == "uuid":
        return _UUID_INPUT.fullmatch(company) is not None
    return kind in _BITS and _INTEGER_INPUT.fullmatch(company) is not None


def _has(company: str, kind: str) -> bool:
    """Whether a column of the type can have this text as its value in messages."""
    if kind == "uuid":
        return is_uuid(company)
    return kind not in _BITS or _INTEGER.fullmatch(company) is not None


def tables_query(tenant: str | None = None) -> str:
    """The query whose rows `MemberRowsQuery.compile` takes; with the tables of a schema per tenant."""
    return sql.query("membership_tables").format(
        signature=_signature(tenant), tenant=_name(tenant), path=paths.joins("member")
    )


def _signature(tenant: str | None) -> str:
    return sql.query("membership_signature").format(tenant=_name(tenant))


def _name(tenant: str | None) -> str:
    return "NULL::pg_catalog.text" if tenant is None else _literal(tenant)


def as_text(column: str, kind: str | None) -> str:
    """The text of a column's value as in messages. No application code runs for it.

    The output function of a type that is not PostgreSQL's own was made by a superuser; a cast to
    json or an operator may be any role's (CREATE CAST, CREATE OPERATOR).
    """
    if kind is None:
        return f"pg_catalog.format('%s', {column})"
    return f"(pg_catalog.to_json({column}::{kind}) OPERATOR(pg_catalog.#>>) '{{}}')"


class _Condition(msgspec.Struct):
    """A column, quoted, with its type where that is PostgreSQL's own, and the value that it must have."""

    column: str
    type: str | None
    value: bool | int | str


_decode_conditions = msgspec.json.Decoder(list[_Condition]).decode


def _condition(given: _Condition) -> str:
    """SQL for a condition of `member_if` or `deleted_if`, by the rule of `relay/images.py`."""
    column, kind, value = f"member.{given.column}", given.type, given.value
    if not isinstance(value, bool):
        return f" AND {as_text(column, kind)} OPERATOR(pg_catalog.=) {_literal(str(value))}"
    if kind == "boolean":
        return f" AND {column}::boolean IS {'TRUE' if value else 'NOT TRUE'}"
    nulls = 0 if value else 1
    return f" AND pg_catalog.num_nulls({column}) OPERATOR(pg_catalog.=) {nulls}"


def _literal(text: str) -> str:
    """A constant of type text, whatever `standard_conforming_strings` is."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'::pg_catalog.text"


def castable(value: str, kind: str) -> str:
    """The value, or another one of the type where the type cannot hold it."""
    if kind == "uuid":
        return value if is_uuid(value) else _NIL
    if kind in _BITS:
        held = _INTEGER.fullmatch(value) and abs(int(value)) < 1 << (_BITS[kind] - 1)
        return value if held else "0"
    return value
