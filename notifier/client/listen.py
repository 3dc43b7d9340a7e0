"""`notifier listen`: a company's messages on a terminal, a pipe or, as JSON, for a program.

Messages go to stdout, how the connection is to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from notifier.client.client import (
    GetToken,
    Message,
    Position,
    Recovered,
    Resync,
    Said,
    Status,
    connect,
)
from notifier.companies import canonical
from notifier.errors import NotifierError, SettingsError

COLOURS = (
    (("Created", "Added"), "green"),
    (("Updated",), "yellow"),
    (("Deleted", "Removed"), "red"),
)
CLIENT_CODES = {4401, 4419}
LONGEST_VALUE = 60

STATE_BYTES = 2048
"""More than the longest company and epoch need."""


class Refused(NotifierError):
    """The server will not have this token or this company."""


class Saved(msgspec.Struct, frozen=True, rename="camel"):
    """What a state file holds."""

    company_id: str
    after: int
    epoch: str


class StateFile:
    """Where to resume, kept in a file. Raises SettingsError where it cannot be used."""

    def __init__(self, path: Path, company: str) -> None:
        self._path = path
        self._company = canonical(company)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error

    def load(self) -> Position | None:
        """The position that was kept; None in a new file."""
        try:
            text = self._path.read_bytes()
            if not text:
                return None
            saved = msgspec.json.decode(text, type=Saved)
        except (OSError, msgspec.DecodeError) as error:
            raise SettingsError(f"{self._path} is no state of `notifier listen`") from error
        if saved.company_id != self._company:
            raise SettingsError(f"{self._path} is of another company, {saved.company_id}")
        return Position(saved.after, saved.epoch)

    def save(self, position: Position) -> None:
        """Keeps it: one write of always the same length, so that a kill leaves the old or the new."""
        saved = Saved(self._company, position.after, position.epoch)
        line = msgspec.json.encode(saved).ljust(STATE_BYTES - 1) + b"\n"
        try:
            os.pwrite(self._file, line, 0)
        except OSError as error:
            raise SettingsError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """No more is kept."""
        os.close(self._file)


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
    """Prints what is said until the process is stopped.

    A state file, once there is one, says better than `position` where to resume. Without
    `renewable` the token is the only one there is, and its end is the end. Raises Refused,
    SettingsError, and BrokenPipeError when nobody reads any more.
    """
    out = Json() if as_json else Lines()
    async with AsyncExitStack() as stack:
        file = None if state is None else stack.enter_context(closing(StateFile(state, company)))
        position = (file.load() if file else None) or position
        after, epoch = position or (None, None)
        try:
            client = connect(url, get_token, company, after=after, epoch=epoch)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        await stack.enter_async_context(client)
        try:
            async for said in client:
                if isinstance(said, Status):
                    _check(said, company, renewable)
                    out.status(said)
                    continue
                out.say(said)
                if file is not None:
                    file.save(Position(said.position, said.epoch))
        except BrokenPipeError:
            # What is left in the buffer must not be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def _check(status: Status, company: str, renewable: bool) -> None:
    """Raises Refused where waiting is of no use."""
    match status:
        case Status(state="stopped"):
            raise Refused(f"{status.reason} ({status.code})" if status.code else f"{status.reason}")
        case Status(state="waiting", code=code, reason=reason) if (
            code in CLIENT_CODES and not renewable
        ):
            raise Refused(f"{reason} ({code})")
        case Status(state="waiting", reason="no token", error=NotifierError() as error):
            raise error
        case Status(state="idle", reason="company_forbidden"):
            raise Refused(f"no such company for this user: {company}")
        case Status(state="idle", reason="revoked"):
            raise Refused(f"access to the company was lost: {company}")


class Json:
    """A message a line, as it was received."""

    def __init__(self) -> None:
        self._status = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, said: Said) -> None:
        """Prints it. What a client's own resync means is said in the server's words."""
        match said:
            case Message():
                # A line's end can stand only between two tokens, where a space means the same.
                line = said.text.replace("\n", " ").replace("\r", " ")
            case Resync() if said.reason != "start":
                data = {"CompanyId": said.company, "Reason": said.reason, "Epoch": said.epoch}
                line = json.dumps({"Type": "Resync", "Data": data, "Position": said.position})
            case _:
                return
        sys.stdout.buffer.write(line.encode(errors="replace") + b"\n")
        sys.stdout.buffer.flush()

    def status(self, status: Status) -> None:
        """Says on stderr how the connection is."""
        if status.state != "connecting" or status.reason is not None:
            self._status.print(_status(status), markup=False, style="dim")


class Lines(Json):
    """A message a line, for people."""

    def __init__(self) -> None:
        super().__init__()
        self._out = Console(highlight=False, soft_wrap=True)

    def say(self, said: Said) -> None:
        """Prints it."""
        match said:
            case Message():
                self._out.print(_line(said))
            case Resync(reason="start"):
                self._out.print(Text(f"listening after {_place(said)}", style="dim"))
            case Resync():
                told = f"resync ({said.reason}): what came before {_place(said)} may be incomplete"
                self._out.print(Text(told, style="bold magenta"))
            case Recovered():
                self._out.print(Text(f"resumed after {_place(said)}", style="dim"))


def _place(said: Recovered | Resync) -> str:
    return f"position {said.position} of epoch {said.epoch}"


def _status(status: Status) -> str:
    told: str = status.state
    if status.retry_in is not None:
        told += f" {status.retry_in:.1f} s"
    if status.reason is not None:
        told += f": {status.reason}"
    if status.code is not None:
        told += f" ({status.code})"
    if isinstance(status.error, Exception):
        told += f", {status.error}"
    return _printable(told)


def _line(message: Message) -> Text:
    """Time, position, type, what it is about, what changed, by whom."""
    colour = next((c for ends, c in COLOURS if message.type.endswith(ends)), "blue")
    line = Text.assemble(
        (_clock(message.at), "dim"),
        (f" {message.position:>6}  ", "dim"),
        (f"{_printable(message.type):<16}", f"bold {colour}"),
        f" {_subject(message.data)}",
    )
    for name, old in (message.old or {}).items():
        new = _value(message.data.get(name))
        line.append(f"  {_printable(name)} ", "dim")
        line.append(_value(old), "strike dim")
        line.append(" → ", "dim")
        line.append(new, colour)
    if message.partial:
        line.append("  too big to be sent", "dim italic")
    if message.actor is not None:
        line.append(f"  by {_printable(message.actor)}", "cyan")
    return line


def _clock(at: str) -> str:
    """The time of day here."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        return "--:--:--"


def _subject(data: Mapping[str, Any]) -> str:
    """What a person would call the row, else its key."""
    for name in ("Title", "Name"):
        if isinstance(data.get(name), str):
            return _value(data[name])
    return _value(next(iter(data.values()), ""))


def _value(value: object) -> str:
    """Short, on one line, and nothing that a terminal would obey."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _printable(text)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _printable(text: str) -> str:
    return "".join(map(_letter, text))


def _letter(letter: str) -> str:
    if letter.isprintable() or letter == "\N{ZERO WIDTH JOINER}":
        return letter
    return " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
