"""`notifier listen`: prints a company's messages on a terminal, to a pipe or, as JSON, to a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import AsyncExitStack, closing
from pathlib import Path

from notifier.client.client import connect
from notifier.client.closes import TOKEN_REFUSED
from notifier.client.printing import JsonPrinter, LinePrinter
from notifier.client.reports import Message, Position, Status, position_of
from notifier.client.sockets import describe_url, is_permanent
from notifier.client.state_file import StateFile
from notifier.client.tokens import GetToken
from notifier.errors import NotifierError, SettingsError


class Stopped(NotifierError):
    """The server refused the token or the company, or no connection can ever succeed."""


async def listen(
    url: str,
    company: str,
    get_token: GetToken,
    *,
    position: Position | None = None,
    state: Path | None = None,
    as_json: bool = False,
    types: Collection[str] = (),
    limit: int | None = None,
    renewable: bool = True,
    retry: bool = False,
) -> None:
    """Prints reports until the process is stopped, or `limit` messages were printed.

    The position in a state file wins over `position`. With `types` only messages of these types are
    printed, and each `Resync`. If the token is not `renewable`, it is the only one, and its end
    stops the command. Without `retry`, a first connection that can never succeed stops it.
    Raises Stopped, SettingsError, and BrokenPipeError when the reader of stdout has closed it.
    """
    printer = JsonPrinter() if as_json else LinePrinter()
    printed = 0
    async with AsyncExitStack() as stack:
        file = None if state is None else stack.enter_context(closing(StateFile(state, company)))
        position = (file.load() if file else None) or position
        resume = {} if position is None else position._asdict()
        try:
            client = connect(url, get_token, company, **resume)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        await stack.enter_async_context(client)
        try:
            async for report in client:
                if isinstance(report, Status):
                    retry = retry or report.state in {"live", "idle"}
                    _check(report, company, renewable)
                    if not retry and is_permanent(report.error):
                        raise Stopped(_permanent_failure(url, report))
                    printer.print_status(report)
                    continue
                wanted = not isinstance(report, Message) or not types or report.type in types
                if wanted:
                    printer.print(report)
                if file is not None:
                    file.save(position_of(report))
                printed += wanted and isinstance(report, Message)
                if limit is not None and printed >= limit:
                    return
        except BrokenPipeError:
            # Otherwise Python writes the rest of the buffer at exit and fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def _check(status: Status, company: str, renewable: bool) -> None:
    """Raises Stopped where another attempt would be refused, too."""
    match status:
        case Status(state="stopped"):
            raise Stopped(f"{status.reason} ({status.code})" if status.code else f"{status.reason}")
        case Status(state="waiting", code=code, reason=reason) if (
            code in TOKEN_REFUSED and not renewable
        ):
            raise Stopped(f"{reason} ({code})")
        case Status(state="waiting", reason="no token", error=NotifierError() as error):
            raise error
        case Status(state="idle", reason="company_forbidden"):
            raise Stopped(f"no such company for this user: {company}")
        case Status(state="idle", reason="revoked"):
            raise Stopped(f"access to the company was revoked: {company}")


def _permanent_failure(url: str, status: Status) -> str:
    reason = status.reason if str(status.reason) in str(status.error) else str(status.error)
    return f"cannot connect to {describe_url(url)}: {reason} (--retry keeps trying)"
