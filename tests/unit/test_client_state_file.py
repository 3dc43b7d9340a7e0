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
        state = StateFile(path, COMPANY)
        state.load()
        state.save(position)
        assert state.load() == position
        state.close()


def test_a_new_file_has_no_position(path: Path) -> None:
    assert StateFile(path, COMPANY).load() is None


def test_a_file_of_an_older_version_has_no_time(path: Path) -> None:
    path.write_text('{"companyId": "a", "after": 1, "epoch": "e"}')
    assert StateFile(path, "a").load() == Position(1, "e", None)


def test_a_uuid_may_be_spelled_differently(path: Path) -> None:
    StateFile(path, COMPANY).save(Position(1, "e"))
    assert StateFile(path, COMPANY.lower()).load() == Position(1, "e")


def test_a_file_of_another_company_is_refused(path: Path) -> None:
    StateFile(path, "b").save(Position(1, "e"))
    with pytest.raises(SettingsError, match="belongs to another company, b"):
        StateFile(path, "a").load()


@pytest.mark.parametrize("text", ["{", "[]", '{"companyId": "a"}'])
def test_a_file_of_another_kind_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError, match="is not a state file of `notifier listen`"):
        StateFile(path, "a").load()
