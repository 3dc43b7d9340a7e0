"""The functions of the schema `notifier`: `migrate` creates them from `sql/functions/`.

They have no revision of their own. A function that differs from its file, in its body or in an
attribute, is replaced; one whose file is gone is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import asyncpg

from notifier.database import paths, sql
from notifier.database.connections import Connection
from notifier.errors import DatabaseError, SettingsError

MANAGED = "Managed by notifier migrate; changes to it are undone."
"""The comment on each object that `migrate` replaces. What lacks it in our schema is not ours to drop."""

RELEASED = (
    *("capture", "empty", "is_full", "keys", "log_bytes", "mended", "prune", "readable", "reopen"),
    *("system", "turn", "without"),
)
"""The functions of the first release, which made them without that comment."""

RELATIONS = ":relations"
"""Stands in a function's file for the relations that are watched, which differ between databases."""

PATHS = ":paths"
"""Stands there for the statements that follow the paths of watches."""

OWNED = "path_company"
"""The function that belongs to the owner of the tables along paths."""

_LITERALS = re.compile(r"ARRAY\[[\d:', regclass]*\]::regclass\[\]")

_FOLLOWED = re.compile(r"(?<=    -- paths\n).*?(?=\n    -- end\n)", re.DOTALL)

_DEFINITION = re.compile(
    r"CREATE OR REPLACE FUNCTION \w+\.(\w+)\(([^)]*)\)\s+RETURNS (.+?)\n"
    r"LANGUAGE (\w+)([^$]*)\nAS \$\$(.*)\$\$;\s*",
    re.DOTALL,
)
_SETTING = re.compile(r"\bSET (\w+) = (.+?)(?=\s+SET\b|\s*$)", re.MULTILINE)


class Function(NamedTuple):
    """Everything that is compared. `settings` are lower-cased `name=value` pairs, sorted."""

    name: str
    arguments: str
    result: str
    language: str
    volatility: str
    is_strict: bool
    security_definer: bool
    settings: tuple[str, ...]
    body: str
    unusual: bool = False  # has an attribute that no file of ours gives

    @property
    def identity(self) -> tuple[str, ...]:
        """Name and types of arguments, which identify a function in PostgreSQL."""
        arguments = self.arguments.split(", ") if self.arguments else ()
        return self.name, *(argument.partition(" ")[2] for argument in arguments)

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


class Difference(NamedTuple):
    """A function that differs from its file. `present` is None where it is missing,
    `wanted` where it is a former version's."""

    wanted: Function | None
    present: Function | None

    @property
    def remedy(self) -> str:
        """The action of `migrate`."""
        if self.wanted is None:
            return "dropped"
        return "created" if self.present is None else "replaced"

    def __str__(self) -> str:
        if self.present is None:
            return f"function {self.wanted} is missing"
        if self.wanted is None:
            return f"function {self.present} is of another version"
        names = [
            name.replace("_", " ")
            for name in Function._fields
            if getattr(self.wanted, name) != getattr(self.present, name)
        ]
        return f"function {self.wanted} differs from this version's in its {', '.join(names)}"


def parse(text: str) -> Function:
    """A function from the text of its file. Raises ValueError where it is written in another way."""
    match = _DEFINITION.fullmatch(text[text.index("CREATE") :])
    if match is None:
        raise ValueError("the file does not hold exactly one function in the usual form")
    name, arguments, result, language, attributes, body = match.groups()
    volatilities = [word for word in ("immutable", "stable") if word.upper() in attributes]
    return Function(
        name,
        " ".join(arguments.split()),
        " ".join(result.split()),
        language,
        volatilities[0] if volatilities else "volatile",
        "STRICT" in attributes,
        "SECURITY DEFINER" in attributes,
        _settings(
            "=".join((name, value.strip("'"))) for name, value in _SETTING.findall(attributes)
        ),
        body,
    )


def this_version() -> tuple[Function, ...]:
    """The functions of this version, in our schema."""
    return _functions(sql.schema())


@cache
def _functions(_: str) -> tuple[Function, ...]:
    return tuple(parse(sql.function(name)) for name in sql.names("functions"))


async def differences(connection: Connection) -> list[Difference]:
    """Functions that are not this version's. Foreign ones in the schema are passed over.

    The relations in capture's body do not count: after a dump and restore they have other numbers.
    """
    rows = await connection.fetch(sql.query("functions"), MANAGED)
    identities = {function.identity for function in this_version()}
    present = {
        function.identity: function
        for row in rows
        if (function := _from_row(row)).identity in identities or row["managed"]
    }
    found = []
    for function in this_version():
        former = present.pop(function.identity, None)
        if former is not None:
            former = former._replace(body=_empty(former.body))
        if former != function:
            found.append(Difference(function, former))
    return found + [Difference(None, former) for former in present.values()]


async def outdated(connection: Connection) -> list[Difference]:
    """Functions of this version that know other relations than those that are watched, or other paths.

    Rows of a relation that capture does not know are captured all the same, but more slowly.
    """
    local = await _local(connection)
    rows = await connection.fetch(sql.query("functions"), MANAGED)
    present = {(function := _from_row(row)).identity: function for row in rows}
    owners = {row["name"]: row["owner"] for row in rows}
    return [
        Difference(wanted, former)
        for wanted in this_version()
        if (former := present.get(wanted.identity)) is not None
        and (
            former.body != local.fill(wanted.body, wanted.name)
            or (wanted.name == OWNED and owners[OWNED] != local.owner)
        )
        and _empty(former.body) == wanted.body
    ]


async def create(connection: Connection, found: Iterable[Difference]) -> None:
    """Creates and replaces functions; those of former versions stay until `drop`.

    Those in SQL come last: PostgreSQL looks up the functions that they call.
    """
    local = await _local(connection)
    created = [(each.wanted, each.present) for each in found if each.wanted is not None]
    for function, former in sorted(created, key=lambda pair: pair[0].language == "sql"):
        if former is not None and (former.result, former.arguments) != (
            function.result,
            function.arguments,
        ):
            await connection.execute(f"DROP FUNCTION {sql.schema()}.{former}")
        await connection.execute(local.statement(function.name))
        await connection.execute(f"REVOKE ALL ON FUNCTION {sql.schema()}.{function} FROM PUBLIC")
        await connection.execute(f"COMMENT ON FUNCTION {sql.schema()}.{function} IS '{MANAGED}'")
        if function.name == OWNED:
            await _give(connection, function, local.owner)


async def drop(connection: Connection, found: Iterable[Difference]) -> None:
    """Drops functions of former versions. Raises DatabaseError where something still uses one."""
    names = [f"{sql.schema()}.{each.present}" for each in found if each.wanted is None]
    if not names:
        return
    try:
        await connection.execute(f"DROP FUNCTION {', '.join(names)}")  # they may call one another
    except asyncpg.DependentObjectsStillExistError as error:
        raise DatabaseError(f"a function of a former version is in use: {error.detail}") from error


class _Local(NamedTuple):
    """The values that replace words in functions, in this database. `owner`: that of the tables along paths."""

    relations: str
    paths: Mapping[str, str]
    owner: str

    def fill(self, text: str, function: str) -> str:
        return text.replace(RELATIONS, self.relations).replace(PATHS, self.paths.get(function, ""))

    def statement(self, function: str) -> str:
        """The statement that creates a function. No name in its body ends the body, which the files put between `$$`."""
        inserted = self.paths.get(function, "")
        tags = ("$$", *(f"$body{number}$" for number in range(len(inserted))))
        tag = next(tag for tag in tags if tag not in inserted)
        return self.fill(sql.function(function).replace("$$", tag), function)


async def _local(connection: Connection) -> _Local:
    relations = str(await connection.fetchval(sql.query("captured_relations")))
    return _Local(relations, *await paths.statements(connection))


async def _give(connection: Connection, function: Function, owner: str) -> None:
    """Makes a role the owner of a function. Raises SettingsError where the current role may not."""
    is_ours = owner == await connection.fetchval(sql.query("schema_owner"))
    if not await connection.fetchval("SELECT pg_catalog.pg_has_role($1, 'USAGE')", owner):
        raise SettingsError(
            f"paths cross tables of role {owner}, whose rights migrate needs: run it as that role, as a member"
            " of it, or as a superuser"
        )
    text = (
        sql.adapt("ALTER FUNCTION notifier.{function} OWNER TO {owner}")
        if is_ours
        else sql.query("give_function")
    )
    await connection.execute(text.format(function=function, owner=sql.identifier(owner)))


def _empty(body: str) -> str:
    """A function's body with the words again, in place of what this database has."""
    return _FOLLOWED.sub(PATHS, _LITERALS.sub(RELATIONS, body))


def _from_row(row: asyncpg.Record) -> Function:
    return Function(
        row["name"],
        row["arguments"],
        row["result"],
        row["language"],
        row["volatility"],
        row["is_strict"],
        row["security_definer"],
        _settings(row["settings"]),
        row["body"],
        row["unusual"],
    )


def _settings(pairs: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        sorted(
            "=".join((name.lower(), value)) for name, _, value in (p.partition("=") for p in pairs)
        )
    )
