"""`notifier listen`: prints messages of companies on a terminal, to a pipe or, as JSON, to a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import msgspec

from notifier.client.client import Client, connect
from notifier.client.closes import TOKEN_REFUSED
from notifier.client.feed import Where
from notifier.client.printing import JsonPrinter, LinePrinter
from notifier.client.reports import Message, Position, Status, position_of
from notifier.client.sockets import describe_url, is_permanent
from notifier.client.state_file import StateFile
from notifier.client.tokens import GetToken
from notifier.client.transports import Choice
from notifier.errors import NotifierError, SettingsError


class Stopped(NotifierError):
    """The server refused the token or the company, or no connection can ever succeed."""


async def listen(
    url: str,
    companies: Sequence[str],
    get_token: GetToken,
    *,
    position: Position | None = None,
    state: Path | None = None,
    as_json: bool = False,
    types: Collection[str] = (),
    where: Where | None = None,
    limit: int | None = None,
    renewable: bool = True,
    retry: bool = False,
    transport: Choice = "auto",
) -> None:
    """Prints reports until the process is stopped, or `limit` messages were printed.

    The positions in a state file win over `position`, which is that of the only company. With `types`
    only messages of these types are printed, and each `Resync`; `where` is a filter of the server. If
    the token is not `renewable`, it is the only one, and its end stops the command. Without `retry`, a
    first connection that can never succeed stops it. So does a refused company, and the end of access
    to the last one. Raises Stopped, SettingsError, and BrokenPipeError when the reader of stdout has closed it.
    """
    several = len(companies) > 1
    printer = JsonPrinter(several=several) if as_json else LinePrinter(several=several)
    printed, lost = 0, set[str]()
    async with AsyncExitStack() as stack:
        file = None if state is None else stack.enter_context(closing(StateFile(state, companies)))
        saved = file.load() if file else {}
        client = await stack.enter_async_context(
            _follow(
                url,
                companies,
                get_token,
                saved=saved,
                position=position,
                where=where,
                transport=transport,
            )
        )
        try:
            async for report in client:
                if isinstance(report, Status):
                    retry = retry or report.state in {"live", "idle"}
                    _check(report, renewable)
                    if not retry and is_permanent(report.error):
                        raise Stopped(_permanent_failure(url, report))
                    if report.reason == "revoked":
                        lost.add(str(report.company))
                        if len(lost) == len(companies):
                            raise Stopped(f"access to the company was revoked: {report.company}")
                    printer.print_status(report)
                    continue
                wanted = not isinstance(report, Message) or not types or report.type in types
                if wanted:
                    printer.print(report)
                if file is not None:
                    file.save(report.company, position_of(report))
                printed += wanted and isinstance(report, Message)
                if limit is not None and printed >= limit:
                    return
        except BrokenPipeError:
            # Otherwise Python writes the rest of the buffer at exit and fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def _follow(
    url: str,
    companies: Sequence[str],
    get_token: GetToken,
    *,
    saved: Mapping[str, Position],
    position: Position | None,
    where: Where | None,
    transport: Choice,
) -> Client:
    """A client of these companies, which has not connected yet. Raises SettingsError."""
    entities = None if where is None else list(where)
    try:
        client = connect(url, get_token, transport=transport)
        for company in companies:
            resume = saved.get(company, position)
            after = {} if resume is None else resume._asdict()
            if len(companies) > 1 or where is not None:
                client.subscribe(company, entities=entities, where=where, **after)
            else:  # also of a server that knows only `setCompany`
                client.set_company(company, **after)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return client


def parse_where(conditions: Iterable[str]) -> Where | None:
    """`Entity.Property=value`, each; several of one property are alternatives. Raises SettingsError.

    A value is JSON where it can be read as such, else text: `7` is a number, `"7"` and `u7` are text.
    """
    where: dict[str, dict[str, list[object]]] = {}
    for condition in conditions:
        if any("\ud800" <= letter <= "\udfff" for letter in condition):  # bytes that are no text
            raise SettingsError(f"--where {condition!a} is not UTF-8")
        name, equals, text = condition.partition("=")
        entity, _, property_ = name.partition(".")
        if not (entity and property_ and equals):
            raise SettingsError(f"--where {condition}: write Entity.Property=value")
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            value = text
        except RecursionError:
            value = []  # or an object
        if isinstance(value, list | dict):
            raise SettingsError(
                f"--where {condition}: a value is text, a number, true, false or null"
            )
        where.setdefault(entity, {}).setdefault(property_, []).append(value)
    return where or None


def _check(status: Status, renewable: bool) -> None:
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
            raise Stopped(f"no such company for this user: {status.company}")
        case Status(state="idle", reason="bad_filter", error={"Message": message}):
            raise SettingsError(f"--where: {message}")
        case Status(state="idle", reason="too_many_companies", error={"Message": message}):
            raise Stopped(f"{message}")


def _permanent_failure(url: str, status: Status) -> str:
    reason = status.reason if str(status.reason) in str(status.error) else str(status.error)
    return f"cannot connect to {describe_url(url)}: {reason} (--retry keeps trying)"
