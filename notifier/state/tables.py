"""Reads state from the watched tables: the SQL, and the conversion of rows to messages' `Data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.json import encode

from notifier.access.member_rows import as_text, castable
from notifier.companies import capitals, split_scope
from notifier.database import paths, sql, state_bounds
from notifier.relay.changes import Source
from notifier.relay.images import company_named
from notifier.watches import Watch

STATE_BYTES = 32 * 1024 * 1024
"""Images of one company that are read at most."""


class Table(NamedTuple):
    """`statement` returns the images of a company's rows; `arguments` are its parameters.

    `scopes`: all of them, also those without a table: a text that looks like an id of one belongs to none.
    `problem`: why its rows cannot be read now; None where they can. `has_owners`: the watched tables have several.
    `oid`, `numbers`, `names`: the relation and its columns, as the transaction's snapshot shows them.
    """

    source: Source
    statement: str
    company_type: str | None
    scopes: frozenset[str]
    problem: str | None
    has_owners: bool
    oid: int | None
    numbers: list[int]
    names: list[str]

    def has(self, company: str) -> bool:
        """Whether rows of the table may belong to the company, which may be one of a scope."""
        scope, _ = split_scope(company)
        return (scope if scope in self.scopes else "") == (self.source.watch.scope or "")

    def arguments(self, company: str) -> list[Any]:
        """The company, its other spelling, and both as values of the column's type."""
        if self.source.watch.scope is not None:
            _, company = split_scope(company)
        if self.source.tenant is not None:
            return []
        other = capitals(company)
        if (kind := self.company_type) is None:
            return [[company, other]]
        return [[company, other], [castable(company, kind), castable(other, kind)]]


def tables_query() -> str:
    """The query whose rows `tables` takes."""
    return sql.query("state_tables").format(path=paths.joins("t"))


def tables(
    watches: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    company: str,
) -> list[Table]:
    """From the rows of `watches.sql` and of `tables_query`.

    Tables of other tenants than `company` are left out, whatever they are like.
    """
    found = {row["entity"]: row for row in rows}
    made = []
    for given in watches:
        watch = Watch.from_row(given)
        tenant = given["tenant"] and company_named(encode(given["tenant"]), watch.scope)
        if tenant in (None, company):
            made.append(_table(watch, given, found[given["entity"]], tenant))
    return made


def _table(
    watch: Watch, given: Mapping[str, Any], row: Mapping[str, Any], tenant: str | None
) -> Table:
    source = Source(
        watch,
        json_columns=frozenset(given["json_columns"]),
        time_columns=frozenset(given["time_columns"] if watch.naive_timestamps else ()),
        virtual_columns=frozenset(given["virtual_columns"]),
        tenant=tenant,
    )
    scopes = frozenset(row["scopes"])
    columns = row["oid"], row["numbers"], row["names"]
    if (problem := _problem(watch, row)) is not None:
        return Table(source, "", None, scopes, problem, row["has_owners"], *columns)
    kind, column = row["company_type"], row["company"]
    condition = "true"
    if tenant is None:
        condition = f"{as_text(column, kind)} OPERATOR(pg_catalog.=) ANY ($1::text[])"
    if kind is not None:  # so that an index can be used
        condition = f"{column} OPERATOR(pg_catalog.=) ANY ($2::text[]::{kind}[]) AND {condition}"
    if (mark := row["mark"]) is not None:
        condition = f"{condition} AND {_unset(mark, row['mark_type'])}"
    if watch.state_where is not None:
        condition = f"{condition} AND {state_bounds.condition(watch.state_where)}"
    statement = sql.query("state_rows").format(
        columns=row["columns"],
        relation=row["relation"],
        joins=row["joins"],
        condition=condition,
        limit=STATE_BYTES,
    )
    return Table(source, statement, kind, scopes, None, row["has_owners"], *columns)


def _unset(mark: str, kind: str | None) -> str:
    """SQL for a row that `deleted_if` does not mark as deleted, by the rule of `relay/images.py`."""
    if kind == "boolean":
        return f"{mark}::boolean IS NOT TRUE"
    if kind is None:  # `IS NULL` is true of a composite value whose fields are all null
        return f"pg_catalog.num_nulls({mark}) OPERATOR(pg_catalog.=) 1"
    return f"{mark} IS NULL"


def _problem(watch: Watch, row: Mapping[str, Any]) -> str | None:
    """Why a table cannot be read, as it is now."""
    if not row["complete"]:
        along = "" if watch.path is None else ", or a table or column of its path,"
        return f"table {watch.table} or one of its columns{along} is gone"
    if row["hidden"]:
        return f"row-level security hides rows of {watch.table}"
    if not row["bounded"]:
        return f"state_where of {watch.table} cannot be used: {state_bounds.OTHER_TYPE}"
    return None
