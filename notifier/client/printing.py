"""How `notifier listen` prints reports: messages to stdout, the connection's state to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from notifier.client.reports import Message, Recovered, Report, Resync, Status

COLOURS = (
    (("Created", "Added"), "green"),
    (("Updated",), "yellow"),
    (("Deleted", "Removed"), "red"),
)
MAX_VALUE_LENGTH = 60


class JsonPrinter:
    """One message per line, as it was received. With `several` companies statuses name theirs."""

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._stderr = Console(stderr=True, highlight=False, soft_wrap=True)

    def print(self, report: Report) -> None:
        """Prints a message, and a resync that the client found necessary in the server's form."""
        match report:
            case Message():
                # A line break can only stand between two tokens, where a space means the same.
                line = report.text.replace("\n", " ").replace("\r", " ")
            case Resync() if report.reason != "start":
                data = {
                    "CompanyId": report.company,
                    "Reason": report.reason,
                    "Epoch": report.epoch,
                }
                line = json.dumps({"Type": "Resync", "Data": data, "Position": report.position})
            case _:
                return
        sys.stdout.buffer.write(line.encode(errors="replace") + b"\n")
        sys.stdout.buffer.flush()

    def print_status(self, status: Status) -> None:
        """Prints the connection's state to stderr."""
        if status.state != "connecting" or status.reason is not None:
            named = self._several and status.company is not None
            company = f"{_printable(str(status.company))}: " if named else ""
            self._stderr.print(company + _status(status), markup=False, style="dim")


class LinePrinter(JsonPrinter):
    """One line per message, for people. With `several` companies each line names its own."""

    def __init__(self, *, several: bool = False) -> None:
        super().__init__(several=several)
        self._stdout = Console(highlight=False, soft_wrap=True)

    def print(self, report: Report) -> None:
        """Prints a report; a colour for each kind of change on a terminal."""
        match report:
            case Message():
                line = _line(report)
            case Resync(reason="start"):
                line = Text(f"listening after {_position(report)}", style="dim")
            case Resync():
                where = _position(report)
                reason = _printable(report.reason)
                text = f"resync ({reason}): messages before {where} may be incomplete"
                line = Text(text, style="bold magenta")
            case Recovered():
                line = Text(f"resumed after {_position(report)}", style="dim")
            case _:
                return
        if self._several:
            line = Text.assemble((_printable(str(report.company)), "bold dim"), " ", line)
        self._stdout.print(line)


def _position(report: Recovered | Resync) -> str:
    return f"position {report.position} of epoch {_printable(report.epoch)}"


def _status(status: Status) -> str:
    line: str = status.state
    if status.retry_in is not None:
        line += f" {status.retry_in:.1f} s"
    if status.reason is not None:
        line += f": {status.reason}"
    if status.code is not None:
        line += f" ({status.code})"
    if isinstance(status.error, Exception) and str(status.reason) not in str(status.error):
        line += f", {status.error}"
    return _printable(line)


def _line(message: Message) -> Text:
    """Time, position, type, the row, what changed, the actor."""
    colour = next((c for ends, c in COLOURS if message.type.endswith(ends)), "blue")
    line = Text.assemble(
        (_clock(message.at), "dim"),
        (f" {message.position:>6}  ", "dim"),
        (f"{_printable(message.type):<16}", f"bold {colour}"),
        f" {_title(message.data)}",
    )
    for name, old in (message.old or {}).items():
        new = _value(message.data.get(name))
        line.append(f"  {_printable(name)} ", "dim")
        line.append(_value(old), "strike dim")
        line.append(" → ", "dim")
        line.append(new, colour)
    if message.partial:
        line.append("  too large to be sent", "dim italic")
    if message.actor is not None:
        line.append(f"  by {_printable(message.actor)}", "cyan")
    return line


def _clock(at: str) -> str:
    """The local time of day."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        return "--:--:--"


def _title(data: Mapping[str, Any]) -> str:
    """The row's title or name, however `notifier.toml` spells it, otherwise its key."""
    spelled = {name.lower(): value for name, value in data.items()}
    for name in ("title", "name"):
        if isinstance(spelled.get(name), str):
            return _value(spelled[name])
    return _value(next(iter(data.values()), ""))


def _value(value: object) -> str:
    """A short value on one line, without characters that control a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _printable(text)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 1]}…"


def _printable(text: str) -> str:
    return "".join(map(_printable_letter, text))


def _printable_letter(letter: str) -> str:
    if letter.isprintable() or letter == "\N{ZERO WIDTH JOINER}":
        return letter
    return " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
