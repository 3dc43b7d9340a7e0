"""The file in which `notifier listen` keeps its position between two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.client import Position
from notifier.client.state_file import StateFile
from notifier.errors import SettingsError

COMPANY = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_it_holds_the_last_position_whatever_its_length(path: Path) -> None:
    longest = Position(10**15, "e" * 300, "2026-11-22T18:00:00.123456+00:00")
    for position in (longest, Position(1, "e", "now"), Position(1, "e")):
        state = StateFile(path, [COMPANY])
        state.load()
        state.save(COMPANY, position)
        assert state.load() == {COMPANY: position}
        state.close()


def test_a_new_file_has_no_position(path: Path) -> None:
    assert StateFile(path, [COMPANY]).load() == {}


def test_a_file_of_an_older_version_has_no_time(path: Path) -> None:
    path.write_text('{"companyId": "a", "after": 1, "epoch": "e"}')
    assert StateFile(path, ["a"]).load() == {"a": Position(1, "e", None)}


def test_a_uuid_may_be_spelled_differently(path: Path) -> None:
    StateFile(path, [COMPANY]).save(COMPANY, Position(1, "e"))
    assert StateFile(path, [COMPANY.lower()]).load() == {COMPANY.lower(): Position(1, "e")}


def test_each_company_has_a_position_and_a_new_one_is_added(path: Path) -> None:
    a, b, c = (Position(number, "e") for number in (1, 2, 3))
    first = StateFile(path, ["a", "b"])
    assert first.load() == {}
    first.save("b", a)
    first.save("a", a)
    first.save("b", b)
    second = StateFile(path, ["c", "a", "b"])
    assert second.load() == {"a": a, "b": b}
    second.save("c", c)
    second.save("a", c)
    assert StateFile(path, ["a", "b", "c"]).load() == {"a": c, "b": b, "c": c}


def test_a_file_of_another_company_is_refused(path: Path) -> None:
    StateFile(path, ["b"]).save("b", Position(1, "e"))
    with pytest.raises(SettingsError, match="belongs to another company, b"):
        StateFile(path, ["a"]).load()


@pytest.mark.parametrize("text", ["{", "[]", '{"companyId": "a"}'])
def test_a_file_of_another_kind_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError, match="is not a state file of `notifier listen`"):
        StateFile(path, ["a"]).load()


@pytest.mark.parametrize("odd", [Position(2, "e" * 2048), Position(2, "e", "t" * 2048)])
def test_a_position_that_is_too_long_overwrites_no_other(path: Path, odd: Position) -> None:
    first = StateFile(path, ["a", "b"])
    first.load()
    first.save("a", Position(1, "e"))
    first.save("b", Position(1, "e"))
    with pytest.raises(SettingsError, match="a position has more than 2047 bytes"):
        first.save("a", odd)
    assert StateFile(path, ["a", "b"]).load() == {"a": Position(1, "e"), "b": Position(1, "e")}
