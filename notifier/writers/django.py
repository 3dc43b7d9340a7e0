"""For Django: sets the actor of the changes that a request writes.

MIDDLEWARE = [
    …
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "notifier.writers.django.ActorMiddleware",
]
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.signals import connection_created

from notifier.writers.actor import CURRENT_TX, SET_ACTOR, acting_as, current_actor

_BLANK = r"(?:\s|--[^\n]*\n|/\*(?>.*?\*/))*+"  # with comments, as middleware that tags statements adds them
_WRITE = re.compile(
    rf"{_BLANK}(?:INSERT|UPDATE|DELETE|MERGE|COPY|WITH\b.*\b(?:INSERT|UPDATE|DELETE|MERGE))\b",
    re.IGNORECASE | re.DOTALL,
)
_ROLLBACK = re.compile(rf"{_BLANK}ROLLBACK\b", re.IGNORECASE | re.DOTALL)
_SET_ACTOR = SET_ACTOR.format("%s")
_IDLE = 0
"""The status of a connection without a transaction, in psycopg 2 and 3: a BEGIN comes before the statement."""


class ActorMiddleware:
    """Makes the request's user the actor, by primary key. List it after AuthenticationMiddleware."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
        record_actor()

    def __call__(self, request: Any) -> Any:
        """Answers the request, in a view that is a coroutine or is not."""

        def user() -> object:
            return getattr(getattr(request, "user", None), "pk", None)

        if iscoroutinefunction(self):
            return self._answer(request, user)
        with acting_as(user):
            return self._get_response(request)

    async def _answer(self, request: Any, user: Callable[[], object]) -> Any:
        response: Awaitable[Any] = self._get_response(request)
        with acting_as(user):
            return await response


def record_actor() -> None:
    """Names `current_actor()` before the first write of each transaction.

    A write outside of `atomic` gets a transaction of its own, as it has in autocommit mode anyway.
    The middleware calls this; commands and tasks that use `acting_as` call it themselves.
    """
    connection_created.connect(_watch, dispatch_uid=_watch.__qualname__)
    for connection in connections.all(initialized_only=True):
        _watch(connection=connection)


def current_tx(using: str = DEFAULT_DB_ALIAS) -> str:
    """The number of the transaction that is open: what a client waits for with `await`.

    Raises TransactionManagementError outside of `atomic`.
    """
    connection = connections[using]
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("current_tx() needs an open transaction")
    with connection.cursor() as cursor:
        cursor.execute(CURRENT_TX)
        return str(cursor.fetchone()[0])


def _watch(*, connection: Any, **_: Any) -> None:
    if connection.vendor == "postgresql":
        connection.notifier_actor = None  # it may be in a transaction already
        if _execute not in connection.execute_wrappers:
            connection.execute_wrappers.append(_execute)


def _execute(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """Runs a statement; names the actor first where it writes and its transaction has not named it.

    A rollback to a savepoint may take the name back, so it is given again.
    """
    connection = context["connection"]
    composed = hasattr(sql, "as_string")  # of psycopg.sql
    text = sql.as_string(connection.connection) if composed else str(sql)
    if connection.connection.info.transaction_status == _IDLE or _ROLLBACK.match(text):
        connection.notifier_actor = None
    if not _WRITE.match(text) or (actor := current_actor()) is None:
        return execute(sql, params, many, context)
    if connection.get_autocommit():
        with transaction.atomic(using=connection.alias):
            return _execute(execute, sql, params, many, context)
    if connection.notifier_actor != actor:
        execute(_SET_ACTOR, (actor,), False, context)
        connection.notifier_actor = actor
    return execute(sql, params, many, context)
