"""`notifier listen`: prints a company's messages on a terminal, to a pipe or, as JSON, to a program."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack, closing
from pathlib import Path

from notifier.client.client import connect
from notifier.client.closes import TOKEN_REFUSED
from notifier.client.printing import JsonPrinter, LinePrinter
from notifier.client.reports import Position, Status, position_of
from notifier.client.state_file import StateFile
from notifier.client.tokens import GetToken
from notifier.errors import NotifierError, SettingsError


class Refused(NotifierError):
    """The server refused the token or the company."""


async def listen(
    url: str,
    company: str,
    get_token: GetToken,
    *,
    position: Position | None = None,
    state: Path | None = None,
    as_json: bool = False,
    renewable: bool = True,
) -> None:
    """Prints reports until the process is stopped.

    The position in a state file wins over `position`. If the token is not `renewable`, it is the
    only one, and its end stops the command. Raises Refused, SettingsError, and BrokenPipeError when
    the reader of stdout has closed it.
    """
    printer = JsonPrinter() if as_json else LinePrinter()
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
                    _check(report, company, renewable)
                    printer.print_status(report)
                    continue
                printer.print(report)
                if file is not None:
                    file.save(position_of(report))
        except BrokenPipeError:
            # Otherwise Python writes the rest of the buffer at exit and fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def _check(status: Status, company: str, renewable: bool) -> None:
    """Raises Refused where another attempt would be refused, too."""
    match status:
        case Status(state="stopped"):
            raise Refused(f"{status.reason} ({status.code})" if status.code else f"{status.reason}")
        case Status(state="waiting", code=code, reason=reason) if (
            code in TOKEN_REFUSED and not renewable
        ):
            raise Refused(f"{reason} ({code})")
        case Status(state="waiting", reason="no token", error=NotifierError() as error):
            raise error
        case Status(state="idle", reason="company_forbidden"):
            raise Refused(f"no such company for this user: {company}")
        case Status(state="idle", reason="revoked"):
            raise Refused(f"access to the company was revoked: {company}")
