"""Builds the HTTP requests of a client, and interprets the responses: docs/http.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from notifier.client.closes import TOKEN_EXPIRED, TOKEN_INVALID, TOO_MANY
from notifier.client.http import Response
from notifier.client.reports import Row

PROBLEM_BYTES = 64 * 1024

RETRY_AFTER_DIGITS = 9
"""A `Retry-After` with more of them is not a time."""

REFUSALS = frozenset({"company_forbidden", "bad_filter", "state_too_large", "state_unavailable"})
"""Problems of one company."""

MALFORMED, NOT_READY = 4400, 4503

CLOSES = {
    "token_invalid": TOKEN_INVALID,
    "not_authenticated": TOKEN_INVALID,
    "token_expired": TOKEN_EXPIRED,
    "malformed": MALFORMED,
    "too_many": TOO_MANY,
    "unavailable": NOT_READY,
}
"""Problems that end the connection, with the close code that a WebSocket would have."""


class Failure(Exception):
    """A request was refused, or its response cannot go on. `code` is the problem's; empty: the link is broken."""

    def __init__(self, code: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @property
    def farewell(self) -> Row | None:
        """The `Data` of the `Disconnect` that a WebSocket would get."""
        if self.code not in CLOSES:
            return None
        code = CLOSES[self.code]
        data: Row = {"Code": code, "Reason": self.reason, "Reconnect": code != MALFORMED}
        if self.retry_after is not None:
            data["RetryAfterMs"] = int(self.retry_after * 1000)
        return data


def http_url(url: str) -> str:
    """The base of HTTP requests to the server of a ws:// or wss:// URL."""
    parts = urlsplit(url)
    return urlunsplit(
        ("https" if parts.scheme == "wss" else "http", parts.netloc, parts.path, "", "")
    )


def path_of(request: Row, place: Row, more: Mapping[str, Any]) -> str:
    """The path of a company's messages after a place, below the base. `request` is the `data` of a command."""
    values: Row = {**place, **more}
    if (entities := request.get("entities")) is not None:
        values["entities"] = ",".join(entities)
    if (where := request.get("where")) is not None:
        values["where"] = json.dumps(where)
    given = {name: value for name, value in values.items() if value is not None}
    company = quote(str(request["companyId"]), safe="")
    return f"companies/{company}/messages?{urlencode(given)}"


async def check(response: Response) -> None:
    """Raises Failure where the request was refused."""
    if response.status == HTTPStatus.OK:
        return
    try:
        problem = json.loads(await response.read(PROBLEM_BYTES))
    except (ValueError, RecursionError):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    after = response.headers.get("retry-after", "")
    is_time = after.isascii() and after.isdigit() and len(after) <= RETRY_AFTER_DIGITS
    raise Failure(
        str(problem.get("code", "")),
        str(problem.get("detail") or problem.get("title") or f"HTTP {response.status}"),
        float(after) if is_time else None,
    )
