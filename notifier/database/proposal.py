"""`notifier init`: proposes a `notifier.toml` for the tables of a database, each line with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import msgspec

from notifier.database import catalogue, paths, sql
from notifier.database.connections import QUALIFIED, Connection, connected
from notifier.database.transactions import summarize
from notifier.errors import SettingsError, one_line
from notifier.patterns import quoted
from notifier.watches import SCHEMA, Watch

TENANTS = (
    *("company", "tenant", "organization", "organisation", "org", "workspace", "account", "team"),
    *("customer", "client", "project", "school", "store", "shop", "club", "group"),
)
"""Names of tables that stand for companies, the surest first."""

USERS = ("user", "person", "profile", "account", "employee", "member", "identity")

_SECRET = re.compile(
    r"pass(word|wd|phrase)|secret|token|(^|_)salt|digest|(^|_)hash|api_?key|private_?key|encrypted|(^|_)otp"
    r"|(^|_)ssn|iban|card_?number|recovery",
    re.IGNORECASE,
)
_DELETED = re.compile(r"(is_?)?deleted(_?at|_?on)?|discarded_?at", re.IGNORECASE)
_ACCEPTED = ("accepted", "active", "is_active", "isactive", "enabled", "confirmed", "approved")


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    type: str
    not_null: bool


class Inspected(msgspec.Struct, frozen=True):
    """A table. `references`: the full name of the table that each foreign key of one column refers to."""

    relation: str
    schema: str
    name: str
    is_reachable: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    references: Mapping[str, str]

    @property
    def spelled(self) -> str:
        """As in SQL, without the schema where that is not needed."""
        return self.relation.split(".", 1)[1] if self.is_reachable else self.relation

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


async def propose(url: str, tenant: str | None) -> str:
    """The text of a `notifier.toml`. `tenant`: the table of companies; None: the likeliest one.

    Raises SettingsError where there is none, and DatabaseError.
    """
    async with connected(url, "init", pinned=False, standby=True) as connection:
        await connection.execute(QUALIFIED)
        return await _propose(connection, tenant)


async def _propose(connection: Connection, tenant: str | None) -> str:
    rows = await connection.fetch(sql.query("inspect_tables"), await catalogue.visible(connection))
    every = [msgspec.json.decode(row[0], type=Inspected) for row in rows]
    groups = _schemas_per_tenant(every) if tenant is None else {}
    blocks, left = [], []
    for pattern, schemas in groups.items():
        blocks.append(
            one_line(
                f"# The schemas {summarize(schemas)} have the same tables: one for each tenant."
            )
        )
        for table in (each for each in every if each.schema == schemas[0]):
            spelled = f"{pattern}.{quoted(table.name)}"
            watch, reasons = _watch(table, SCHEMA, every, spelled)
            reasons["company"] = "the name of the schema"
            blocks.append(await _block(connection, watch, reasons, table.relation))
    own = {schema for schemas in groups.values() for schema in schemas}
    tables = [table for table in every if table.schema not in own]
    try:
        companies = _companies(tables, tenant)
    except SettingsError:
        if not groups:
            raise
        return "\n".join([_READ, "", *blocks])
    for table in tables:
        path = ""
        if (company := _company_column(table, companies)) is None:
            if (found := _path(table, companies, tables)) is None:
                left.append(table)
                continue
            company, path = found
        watch, reasons = _watch(table, company, tables)
        if path:  # and no member: who takes part in one row would see the whole company
            watch = replace(watch, company=path, member=None, member_if={})
            reasons["company"] = "along foreign keys to the companies"
        if table is companies:
            reasons["company"] = "its rows are the companies"
        blocks.append(await _block(connection, watch, reasons))
    return "\n".join([*_head(companies), *blocks, *_rest(left, companies)])


def _schemas_per_tenant(tables: Sequence[Inspected]) -> dict[str, list[str]]:
    """Schemas that have the same tables and names that begin alike, by their pattern."""
    names: dict[str, set[str]] = {}
    for table in tables:
        if not table.is_reachable:
            names.setdefault(table.schema, set()).add(table.name)
    groups: dict[frozenset[str], list[str]] = {}
    for schema, found in sorted(names.items()):
        groups.setdefault(frozenset(found), []).append(schema)
    patterns = {}
    for schemas in groups.values():
        prefix = _common(schemas)
        if len(schemas) > 1 and prefix:
            named = quoted(prefix)
            pattern = f"{prefix}*" if named == prefix else f'{named[:-1]}*"'
            patterns[pattern] = schemas
    return patterns


def _common(names: Sequence[str]) -> str:
    """The common prefix of all names."""
    pairs = zip(min(names), max(names), strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _companies(tables: Sequence[Inspected], wanted: str | None) -> Inspected:
    """The table whose rows are the companies."""
    if wanted is not None:
        for table in tables:
            if wanted in (table.relation, table.spelled, table.name):
                return table
        near = catalogue.did_you_mean(wanted, [table.spelled for table in tables])
        raise SettingsError(f"no table {wanted}{near}")
    referred = Counter(target for table in tables for target in set(table.references.values()))
    ranked = sorted(
        (
            (TENANTS.index(name), -referred[table.relation], table.relation, table)
            for table in tables
            if (name := _singular(table.name)) in TENANTS and referred[table.relation]
        ),
        key=lambda each: each[:3],
    )
    if not ranked:
        raise SettingsError(
            "no table looks like one of companies, to which others refer; name it: notifier init --tenant TABLE"
        )
    return ranked[0][3]


def _company_column(table: Inspected, companies: Inspected) -> str | None:
    """The column that names a row's company; None where there is none."""
    if table.relation == companies.relation:
        return table.key[0] if len(table.key) == 1 else None
    found = [name for name, target in table.references.items() if target == companies.relation]
    found.sort(key=lambda name: (not table.column(name).not_null, len(name), name))
    return found[0] if found else None


def _path(
    table: Inspected, companies: Inspected, tables: Sequence[Inspected]
) -> tuple[str, str] | None:
    """The first column of the shortest path along foreign keys to a company, and the path."""
    known = {each.relation: each for each in tables}
    seen = {table.relation}
    ways: list[tuple[Inspected, str, str]] = [(table, "", "")]
    for at, first, path in ways:  # grows
        if at is not table and (column := _company_column(at, companies)):
            return first, f"{path} -> {at.spelled}.{quoted(column)}"
        for name in sorted(at.references, key=lambda name: (not at.column(name).not_null, name)):
            target = known.get(at.references[name])
            if target is not None and target.relation not in (*seen, companies.relation):
                seen.add(target.relation)
                step = f" -> {at.spelled}.{quoted(name)}" if path else quoted(name)
                ways.append((target, first or name, f"{path}{step}"))
    return None


def _watch(
    table: Inspected, company: str, tables: Sequence[Inspected], spelled: str = ""
) -> tuple[Watch, dict[str, str]]:
    """The watch, and the reasons of its options. `spelled`: a pattern, in place of the table's name."""
    reasons = {"company": "a foreign key to the companies"}
    secrets = [
        column.name
        for column in table.columns
        if _SECRET.search(column.name) and column.name not in (*table.key, company)
    ]
    if secrets:
        reasons["exclude"] = "by their names they hold secrets: neither stored nor sent"
    marks = [column.name for column in table.columns if _DELETED.fullmatch(column.name)]
    if marks:
        reasons["deleted_if"] = "a row counts as deleted while it is set"
    member = _member(table, company, tables)
    conditions = {}
    if member is not None:
        reasons["member"] = "the row gives this user access to its company"
        conditions = {
            column.name: True
            for column in table.columns
            if column.type == "boolean" and column.name.lower() in _ACCEPTED
        }
        if conditions:
            reasons["member_if"] = "only while this is so"
    key = table.key or ("id",)
    return Watch(
        table=spelled or table.spelled,
        entity=_entity(table.name),
        key=key if len(key) > 1 else key[0],
        company=company,
        member=member,
        member_if=conditions,
        deleted_if=marks[0] if marks else None,
        exclude=tuple(secrets),
    ), reasons


def _member(table: Inspected, company: str, tables: Sequence[Inspected]) -> str | None:
    """The column of users in a table that looks like one of memberships."""
    if not re.search(
        r"member|employee|user|participant|seat|staff|role|person|people", table.name, re.IGNORECASE
    ):
        return None
    names = {each.relation: _singular(each.name) for each in tables}
    for column, target in table.references.items():
        if column != company and names.get(target, "") in USERS and target != table.relation:
            return column
    for each in table.columns:
        if each.name.lower().replace("_", "") in ("userid", "login", "username", "accountid"):
            return each.name
    return None


async def _block(
    connection: Connection, watch: Watch, reasons: Mapping[str, str], relation: str | None = None
) -> str:
    """A `[[watch]]`; as a comment where `migrate` would refuse it. `relation`: a table that a pattern matches."""
    (table,) = await (
        catalogue.describe(connection, [watch.table])
        if relation is None
        else catalogue.describe_found(connection, [relation])
    )
    problems = catalogue.problems(watch, table, [table.relation]) if table is not None else []
    if watch.path is not None and not problems:
        try:
            await paths.resolve(connection, [watch])
        except SettingsError as error:
            problems = [str(error)]
    lines = ["[[watch]]", *_options(watch, reasons)]
    if problems:
        lines = [f"# {line}" for line in (one_line(f"refused as it is: {problems[0]}"), *lines)]
    return "\n".join(lines) + "\n"


def _options(watch: Watch, reasons: Mapping[str, str]) -> Iterator[str]:
    values: dict[str, object] = {"table": watch.table, "entity": watch.entity}
    default = Watch(table="t", entity="T")
    if watch.key != default.key:
        values["key"] = watch.key
    values["company"] = watch.company
    for name in ("member", "member_if", "deleted_if", "exclude"):
        value = getattr(watch, name)
        if value != getattr(default, name):
            values[name] = value
    for name, value in values.items():
        line = f"{name} = {_toml(value)}"
        yield f"{line}  # {one_line(reasons[name])}" if name in reasons else line


_READ = "# Read it, remove what need not be sent, then run: notifier migrate --dry-run"


def _head(companies: Inspected) -> list[str]:
    return [
        one_line(
            f"# Proposed by notifier init. The companies are the rows of {companies.spelled}."
        ),
        _READ,
        "",
    ]


def _rest(left: Sequence[Inspected], companies: Inspected) -> Iterator[str]:
    """Comments on the tables that are not proposed."""
    for table in left:
        targets = sorted(set(table.references.values()))
        reason = f"it refers to {', '.join(targets)}" if targets else "it refers to no table"
        yield one_line(
            f"# Not proposed: no foreign key leads from {table.spelled} to {companies.spelled}; {reason}."
        )
    if left:
        yield ""


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {_toml(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _entity(name: str) -> str:
    """`booking_guests` → `BookingGuest`."""
    *first, last = re.findall(r"[A-Za-z0-9]+", name) or ["Row"]
    words = [*first, _singular(last, keep_case=True)]
    entity = "".join(word[:1].upper() + word[1:] for word in words)
    return entity[:60] if entity[:1].isalpha() else f"Row{entity}"[:60]


def _singular(name: str, *, keep_case: bool = False) -> str:
    """The English singular, roughly: `companies` → `company`, `users` → `user`, `boxes` → `box`."""
    word = name if keep_case else name.lower()
    if word.lower() == "people":
        return "person"
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("s", "")):
        if word.lower().endswith(plural) and not word.lower().endswith(("ss", "us", "is")):
            return word[: -len(plural)] + singular
    return word
