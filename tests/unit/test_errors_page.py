"""docs/errors.md explains every code that a client, a proxy or a shell can see."""

from __future__ import annotations

import re
from pathlib import Path

from notifier.errors import Closure, Code
from notifier.transport.problems import HttpCode
from notifier.transport.refusals import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text()

OF_WEBSOCKETS = {"1001", "1002", "1006", "1007"}
"""Close codes that the protocol, the library or nothing at all sends."""


def explained(title: str) -> list[list[str]]:
    """The cells of each row of the table under a heading."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows]
    assert all(all(row) and len(row) == len(cells[0]) for row in cells), title
    return cells


def codes(title: str) -> list[str]:
    found = [row[0].strip("`") for row in explained(title)]
    assert len(set(found)) == len(found)
    return found


def test_every_error_code_has_a_cause_and_a_remedy() -> None:
    assert set(codes("Error codes")) == set(Code)
    assert set(codes("Codes of HTTP")) == set(HttpCode) - set(Code)


def test_every_close_code_has_a_cause_and_a_remedy() -> None:
    sent = {str(closure.code) for closure in Closure.__subclasses__()}
    assert set(codes("Close codes")) == sent | OF_WEBSOCKETS


def test_every_reason_of_a_refused_handshake_has_a_cause_and_a_remedy() -> None:
    assert set(codes("Refused handshakes")) == set(Reason)


def test_every_exit_status_of_the_command_line_is_explained() -> None:
    code = (ROOT / "notifier" / "cli.py").read_text()
    statuses = set(re.findall(r"(?:_fail\(error, |sys\.exit\(|typer\.Exit\()(\d+)\)", code))
    assert {"1", "2"} <= statuses
    assert set(codes("Exit statuses")) == statuses | {"0"}
