"""The application's tokens: fetched in time, and not presented again once the server refused them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

GetToken: TypeAlias = Callable[[], str | Awaitable[str]]
"""Called for each connection and shortly before the token expires."""


class TokenUnavailable(Exception):
    """`get_token` raised, returned no token, or did not answer in time; its cause is the reason."""


class TokenSource:
    """Calls `get_token`, and remembers the token that the server refused last."""

    def __init__(self, get_token: GetToken, timeout: float) -> None:
        self._get_token = get_token
        self._timeout = timeout
        self._refused: tuple[str, int] | None = None

    async def fetch(self) -> str:
        """A token. Raises TokenUnavailable, at the latest after the timeout."""
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                result = self._get_token()
                token: object = await result if inspect.isawaitable(result) else result
        except Exception as error:
            late = TimeoutError("get_token() did not answer") if deadline.expired() else None
            raise TokenUnavailable from late or error
        if not isinstance(token, str) or not token:
            raise TokenUnavailable from TypeError("get_token() returned no token")
        return token

    def refuse(self, token: str, code: int) -> None:
        """The server refused this token and closed with `code`."""
        self._refused = (token, code)

    def forget_refusal(self) -> None:
        """The server accepted a token, or the application requested another attempt."""
        self._refused = None

    def refusal(self, token: str) -> int | None:
        """The close code with which the server refused this token, if it did."""
        if self._refused is None or self._refused[0] != token:
            return None
        return self._refused[1]
