"""docs/threats.md and docs/faults.md name tests: all of them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NUMBERS = {
    "A": {*range(1, 13), 15, 18, 19, 23, *range(25, 31)},
    "B": {*range(1, 11), 13, 14, 16, 17, 18},
    "C": {*range(1, 18)},
    "D": {*range(1, 12), 16, 17},
    "E": {*range(1, 5), 8, 10},
}
"""The faults that are made."""


def rows(document: str) -> list[str]:
    """The lines of its tables, without their heads."""
    return [
        line
        for line in (ROOT / "docs" / document).read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| threat ", "| | "))
    ]


THREATS, FAULTS = rows("threats.md"), rows("faults.md")


@cache
def named_in(path: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def cited(line: str) -> list[tuple[str, str]]:
    """Files and names of the tests in a line."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)


@pytest.mark.parametrize("line", [*THREATS, *FAULTS], ids=lambda line: line[2:40])
def test_every_line_names_tests_that_exist(line: str) -> None:
    assert cited(line)
    for path, name in cited(line):
        assert name in named_in(path), f"{path}::{name}"


@pytest.mark.parametrize("line", FAULTS, ids=lambda line: line[2:40])
def test_a_fault_is_shown_by_tests_of_its_number(line: str) -> None:
    number = line.split()[1].lower()
    assert all(name.startswith(f"test_{number}_") for _, name in cited(line))


def test_every_fault_is_in_the_table_once() -> None:
    assert [line.split()[1] for line in FAULTS] == [
        f"{letter}{number}" for letter, numbers in NUMBERS.items() for number in sorted(numbers)
    ]


def test_every_test_that_is_named_after_a_fault_is_in_the_table() -> None:
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in named_in(str(path.relative_to(ROOT)))
        if re.match(r"test_[abde]\d+_", name)  # of each C, many hold one part
    }
    assert named == {each for line in FAULTS if line[2] != "C" for each in cited(line)}
