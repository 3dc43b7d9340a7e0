"""Reasons for a lost connection, and whether and when to reconnect. Codes: docs/protocol.md."""

from __future__ import annotations

from typing import Any

FINAL = frozenset({1002, 1003, 1007, 1009, 4400, 4403, 4409})
"""The client is at fault, or another attempt cannot help: the application has to act."""

BROKEN_LINK, COMPANY_FORBIDDEN, TOO_MANY = 1006, 4403, 4429
TOKEN_INVALID, TOKEN_EXPIRED = 4401, 4419

TOKEN_REFUSED = frozenset({TOKEN_INVALID, TOKEN_EXPIRED})
"""Another attempt needs another token."""

UNSPECIFIC = frozenset({1000, 1005, BROKEN_LINK})
"""Close codes without a meaning of their own: the code in `Disconnect` counts instead."""

TOO_MANY_SECONDS = 5.0
"""The shortest wait after 4429 when the server did not name one."""


class Disconnected(Exception):
    """There is no connection. Wait at least `floor` seconds, or for ever if it is `final`."""

    def __init__(
        self,
        reason: str,
        *,
        code: int | None = None,
        error: object = None,
        floor: float = 0.0,
        final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.error = error
        self.floor = floor
        self.final = final


def closed(code: int | None, reason: str | None, farewell: dict[str, Any] | None) -> Disconnected:
    """The meaning of a close, together with the `Data` of the `Disconnect` before it, if there was one."""
    code = BROKEN_LINK if code is None else code
    if farewell is not None and code in UNSPECIFIC:
        code = farewell.get("Code", code)
    farewell = farewell or {}
    final = code in FINAL or farewell.get("Reconnect") is False
    wait = farewell.get("RetryAfterMs")
    if isinstance(wait, int | float) and wait >= 0:
        floor = wait / 1000
    else:
        floor = TOO_MANY_SECONDS if code == TOO_MANY else 0.0
    return Disconnected(
        reason or farewell.get("Reason") or "connection lost",
        code=code,
        floor=floor,
        final=final and code not in TOKEN_REFUSED,
    )
