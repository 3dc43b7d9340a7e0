"""The blocks of commands, configuration and code in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

_MARK = re.compile(r"^\s*<!-- (not run|run by): (.+?) -->\s*$")
_FENCE = re.compile(r"^( *)(`{3,})(\w*)")


class Block(NamedTuple):
    """A block of a page. `language`: of a fenced one; `commands` for one that is indented by four.

    `mark`: of the comment in the line before, `not run` or `run by`, and its text.
    """

    page: str
    heading: str
    line: int
    language: str
    text: str
    mark: tuple[str, str] | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README, CONTRIBUTING and the pages of docs/, without those that are records."""
    return sorted(
        [
            *ROOT.glob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            ROOT / "bench" / "README.md",
            ROOT / "clients" / "js" / "README.md",
        ]
    )


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page."""
    name, heading, mark = str(page.relative_to(ROOT)), "", None
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        begun = number + 1
        if found := _MARK.match(line):
            mark = found[1], found[2]
            number += 1
            continue
        if fence := _FENCE.match(line):
            body = []
            number += 1
            while not lines[number].strip().startswith(fence[2]):
                body.append(lines[number].removeprefix(fence[1]))
                number += 1
            number += 1
            yield Block(name, heading, begun, fence[3] or "text", "\n".join(body), mark)
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip() or mark):
            body = []
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number]):
                body.append(lines[number].removeprefix("    "))
                number += 1
            if not _is_list(lines, begun - 1):
                yield Block(name, heading, begun, "commands", "\n".join(body).strip(), mark)
        else:
            if line.startswith("#"):
                heading = line.lstrip("# ")
            number += 1
        if line.strip():
            mark = None


def _is_list(lines: list[str], number: int) -> bool:
    """Whether the indented line continues an item of a list."""
    for line in reversed(lines[:number]):
        if line.strip():
            return bool(re.match(r"\s*([-*]|\d+\.) ", line)) or (
                line.startswith("   ") and not line.startswith("    ")
            )
    return False
