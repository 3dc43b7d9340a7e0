"""`state_where`: the condition that bounds which rows of a table are part of a state.

It is evaluated with the rights of the service, over rows that an application has written. So it may use
nothing that an application could give code to: only PostgreSQL's own functions, operators and types. And it
has to be the same for all readers of one snapshot: no volatile functions, and no other tables.
"""

from __future__ import annotations

import re

import asyncpg

from notifier.database import sql
from notifier.database.connections import Connection, first_line
from notifier.errors import SettingsError
from notifier.watches import Watch

REMEDY = (
    "it takes columns of the table that are not excluded, PostgreSQL's own functions, operators and types,"
    " and enums of columns; no volatile functions, and no subqueries"
)

OTHER_TYPE = "a column that it names has a type of the application's"

_LITERAL = re.compile(r"'[^']*'")
_QUALIFIED = re.compile(r'([A-Za-z_"][\w$"]*)\s*\.')


def condition(expression: str) -> str:
    """The expression for a WHERE clause.

    Two pairs of parentheses: `(a) OR (b)` stays one expression, and `a) OR (b` is an error. On a line of its own, so that
    a comment at its end ends there.
    """
    return f"((\n{expression}\n))"


async def require(connection: Connection, watch: Watch, relation: str) -> None:
    """Raises SettingsError, in one line, where `state_where` cannot be used. Names must be those of pg_catalog only."""
    if watch.state_where is None:
        return
    # The value of a literal is made when it is parsed, so its type must not be the application's.
    for name in _QUALIFIED.findall(_LITERAL.sub("''", watch.state_where)):
        if name.lower() != "pg_catalog":
            raise _refusal(watch, f"{name} is not PostgreSQL's own schema")
    # A savepoint where there is a transaction: after an error, the next table follows.
    transaction = connection.transaction()
    await transaction.start()
    try:
        problem = await _problem(connection, watch, relation, watch.state_where)
    finally:
        await transaction.rollback()
    if problem is not None:
        raise _refusal(watch, problem)


async def _problem(
    connection: Connection, watch: Watch, relation: str, expression: str
) -> str | None:
    """Why the expression cannot be used. Leaves tables behind.

    The expression becomes the check constraint of a table without rows, in which PostgreSQL allows no
    subqueries; it is parsed, never evaluated.
    """
    columns = await connection.fetch(
        sql.query("state_bound_columns"), relation, list(watch.exclude)
    )
    bound = f"{sql.schema()}.state_bound"
    try:
        await connection.execute(
            f"CREATE TABLE {bound}_columns ({', '.join(row[0] for row in columns)})"
        )
        # Types are found by name, and the owner of one can give its name to another at any moment. A column keeps its type.
        if await connection.fetchval(sql.query("state_bound_replaced")):
            return "a type of its columns was replaced meanwhile"
        # Not `execute`, which takes several statements.
        await connection.fetch(
            f"CREATE TABLE {bound} (LIKE {bound}_columns, CHECK {condition(expression)})"
        )
    except (
        asyncpg.SyntaxOrAccessError,
        asyncpg.DataError,
        asyncpg.FeatureNotSupportedError,
    ) as error:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise
        return first_line(error)
    problems = await connection.fetch(sql.query("state_bound_problems"))
    return problems[0]["problem"] if problems else None


def _refusal(watch: Watch, problem: str) -> SettingsError:
    return SettingsError(f"table {watch.table}: state_where: {problem}; {REMEDY}")
