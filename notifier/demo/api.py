"""The application of `notifier demo`: lists the companies and writes the calendar as any application would.

It sends no messages: the page receives rows, and its own writes, from Notifier. Each response to a write has the
number of its transaction, so that the page can wait for its messages. There is no access
control, because the demo serves one machine only; `notifier serve` does not have these routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeAlias
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import ARRAY, Column, Delete, Insert, MetaData, Update, func, make_url
from sqlalchemy import Text as TextType
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from notifier.database.calendar import Calendar
from notifier.database.connections import Connection, connected
from notifier.errors import DatabaseError
from notifier.watches import property_name

BODY_LIMIT = 64 * 1024
INTEGRITY = "23"
"""The SQLSTATE class of a violated constraint."""

Line: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]
Users: TypeAlias = Annotated[list[Line], Meta(max_length=100)]
Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]


class Event(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """The properties of an event that a client may set."""

    company_id: UUID | UnsetType = UNSET
    title: Line | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    location: Text | UnsetType | None = UNSET
    starts_at: Moment | UnsetType = UNSET
    ends_at: Moment | UnsetType = UNSET
    all_day: bool | UnsetType = UNSET
    organizer_id: UUID | UnsetType | None = UNSET
    private_to: Users | UnsetType | None = UNSET
    """The users who see the event; all employees if there is none."""


class Employee(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """The properties of an employee that a client may set."""

    company_id: UUID | UnsetType = UNSET
    name: Line | UnsetType = UNSET
    email: Text | UnsetType | None = UNSET
    job_title: Text | UnsetType | None = UNSET


ENTITIES: dict[str, type[Event | Employee]] = {"events": Event, "employees": Employee}
TABLES = {name: Calendar.metadata.tables[name].to_metadata(MetaData()) for name in ENTITIES}
TABLES["events"].append_column(Column("private_to", ARRAY(TextType)))
DIALECT = make_url("postgresql+asyncpg://").get_dialect()()

Write: TypeAlias = Insert | Update | Delete

COMPANIES = """
    SELECT id AS company_id, name, time_zone,
           (SELECT user_id FROM employees WHERE company_id = companies.id AND user_id IS NOT NULL
            ORDER BY created_at, name LIMIT 1) AS user_id
    FROM companies ORDER BY created_at, name
"""


class Row(Protocol):
    """A row of a query."""

    def items(self) -> Iterable[tuple[str, Any]]: ...


class Refused(Exception):
    """The request cannot be fulfilled; the message goes to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def routes(database_url: str, token: Callable[[str], str]) -> list[BaseRoute]:
    """The routes under `/demo`; `token` makes a token for a user.

    Errors are `{"Error": {"Message": "…"}}` with a status of 400, 404, 409 or 413; 503 without a database.
    """

    def answering(
        answer: Callable[[Connection, Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                async with connected(database_url, "demo app", pinned=False) as connection:
                    return await answer(connection, request)
            except Refused as error:
                return _failed(error.status, str(error))
            except DatabaseError as error:
                cause = error.__cause__
                if getattr(cause, "sqlstate", "").startswith(INTEGRITY):
                    return _failed(409, str(cause))
                return _failed(503, str(error))

        return endpoint

    async def show_token(request: Request) -> Response:
        return PlainTextResponse(token(request.query_params.get("user", "")))

    found: list[BaseRoute] = [
        Route("/demo/companies", answering(_companies)),
        Route("/demo/token", show_token),
    ]
    for table in ENTITIES:
        found += [
            Route(f"/demo/{table}", answering(_insert(table)), methods=["POST"]),
            Route(f"/demo/{table}/{{id:uuid}}", answering(_update(table)), methods=["PATCH"]),
            Route(f"/demo/{table}/{{id:uuid}}", answering(_delete(table)), methods=["DELETE"]),
        ]
    return found


async def _companies(connection: Connection, _: Request) -> Response:
    """All companies, each with one of its users. What is in them comes from Notifier."""
    return _answer([_pascal(row) for row in await connection.fetch(COMPANIES)])


def _insert(name: str) -> Callable[[Connection, Request], Awaitable[Response]]:
    table = TABLES[name]
    required = {
        column.name
        for column in table.columns
        if not column.nullable and column.server_default is None
    }

    async def insert(connection: Connection, request: Request) -> Response:
        values = await _values(name, request)
        if missing := required - values.keys():
            raise Refused(400, f"missing: {', '.join(sorted(map(property_name, missing)))}")
        if name == "employees":
            values["user_id"] = _user(str(values["name"]))
        return _answer(await _write(connection, request, table.insert().values(values)), 201)

    return insert


def _update(name: str) -> Callable[[Connection, Request], Awaitable[Response]]:
    table = TABLES[name]

    async def update(connection: Connection, request: Request) -> Response:
        values = await _values(name, request)
        if not values:
            raise Refused(400, "no property to change")
        row = table.update().where(table.c.id == request.path_params["id"])
        statement = row.values(values | {"updated_at": func.now()})
        return _answer(await _write(connection, request, statement))

    return update


def _delete(name: str) -> Callable[[Connection, Request], Awaitable[Response]]:
    table = TABLES[name]

    async def delete(connection: Connection, request: Request) -> Response:
        statement = table.delete().where(table.c.id == request.path_params["id"])
        return _answer(await _write(connection, request, statement))

    return delete


async def _write(connection: Connection, request: Request, statement: Write) -> dict[str, str]:
    """One transaction, with the actor in a setting: all that an application does for `Actor`.

    Returns the row's `Id` and the transaction's number, `Tx`: all that it does for `await`.
    """
    number = func.pg_current_xact_id().cast(TextType)
    compiled = statement.returning(statement.table.c.id, number).compile(dialect=DIALECT)
    parameters = [compiled.params[name] for name in compiled.positiontup or ()]
    async with connection.transaction():
        if actor := request.headers.get("x-actor"):
            await connection.execute("SELECT set_config('notifier.actor', $1, true)", actor)
        row = await connection.fetchrow(str(compiled), *parameters)
    if row is None:
        raise Refused(404, "the row does not exist any more")
    return {"Id": str(row[0]), "Tx": row[1]}


async def _values(table: str, request: Request) -> dict[str, Any]:
    """The columns that the request's body sets."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise Refused(413, "the body is too large")
    try:
        entity_values = msgspec.json.decode(body, type=ENTITIES[table])
    except msgspec.ValidationError as error:
        raise Refused(400, str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    values = {
        name: value
        for name in entity_values.__struct_fields__
        if (value := getattr(entity_values, name)) is not UNSET
    }
    texts = [value for value in values.values() if isinstance(value, str)]
    if any("\0" in text for text in (*texts, *(values.get("private_to") or ()))):
        raise Refused(400, "a text must not contain NUL")
    starts, ends = values.get("starts_at"), values.get("ends_at")
    if starts and ends and starts > ends:
        raise Refused(400, "the event ends before it starts")
    return values


def _user(name: str) -> str:
    """A new user id made from a name, in characters that a header may contain."""
    first = "".join(letter for letter in name.lower().partition(" ")[0] if letter.isascii())
    return f"{first or 'user'}-{uuid4().hex[:6]}"


def _pascal(row: Row) -> dict[str, Any]:
    """`starts_at` → `StartsAt`, as in messages."""
    return {property_name(name): value for name, value in row.items()}


def _answer(content: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(content),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )


def _failed(status: int, message: str) -> Response:
    return JSONResponse({"Error": {"Message": message}}, status)
