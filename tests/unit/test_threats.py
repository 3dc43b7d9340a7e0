"""docs/threats.md names tests: all of them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = [
    line
    for line in (ROOT / "docs" / "threats.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| threat ", "| fault "))
]


@cache
def named_in(path: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("line", LINES, ids=[line[2:40] for line in LINES])
def test_every_threat_names_tests_that_exist(line: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
    assert named
    for path, name in named:
        assert name in named_in(path), f"{path}::{name}"


def test_each_fault_of_access_has_its_line_and_tests_of_its_number() -> None:
    faults = [line for line in LINES if re.match(r"\| C\d+ ", line)]
    assert [line.split()[1] for line in faults] == [f"C{number}" for number in range(1, 18)]
    for line in faults:
        number = line.split()[1].lower()
        assert all(name.startswith(f"test_{number}_") for name in re.findall(r"::(\w+)`", line))
