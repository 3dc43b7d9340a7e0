"""Rows as types, and what is reported where they do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from notifier.database.answers import Moment, Natural, expected, typed
from notifier.database.batching import Batcher
from notifier.errors import UnexpectedAnswer

NOW = datetime.now(UTC)


class Line(NamedTuple):
    """A row."""

    position: Natural
    name: str
    at: Moment | None
    users: tuple[str, ...] | None


def test_rows_become_types_by_position() -> None:
    rows = [(1, "a", NOW, ["u1"]), (2**62, "b", None, None)]
    assert typed(rows, Line) == [Line(1, "a", NOW, ("u1",)), Line(2**62, "b", None, None)]


@pytest.mark.parametrize(
    "row",
    [
        (None, "a", NOW, None),
        (-1, "a", NOW, None),
        (2**63 - 1, "a", NOW, None),
        (True, "a", NOW, None),
        ("1", "a", NOW, None),
        (1, None, NOW, None),
        (1, b"a", NOW, None),
        (1, "a", NOW.replace(tzinfo=None), None),  # as the driver reads infinity
        (1, "a", NOW, [None]),
        (1, "a", NOW, "u1"),
        (1, "a", NOW),
        (1, "a", NOW, None, None),
    ],
)
def test_a_row_that_does_not_fit_is_an_unexpected_answer(row: tuple[object, ...]) -> None:
    with pytest.raises(UnexpectedAnswer, match="an answer that cannot be right"):
        typed([row], Line)


def test_an_error_names_the_place_and_no_value() -> None:
    rows: list[dict[str, str]] = [{"name": "secret"}]

    def convert() -> int:
        return int(rows[0]["name"])

    with pytest.raises(UnexpectedAnswer) as raised, expected():
        convert()
    assert "ValueError in " in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_key_without_an_answer_fails_alone() -> None:
    async def load(keys: Sequence[str]) -> Mapping[str, int | Exception]:
        return {key: 1 for key in keys if key != "missing"}

    batcher: Batcher[str, int] = Batcher(load)
    found = await asyncio.gather(
        batcher.get("there"), batcher.get("missing"), return_exceptions=True
    )
    assert found[0] == 1
    assert isinstance(found[1], UnexpectedAnswer)
