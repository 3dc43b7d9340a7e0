"""What `notifier listen` keeps between two runs, and how it shows a message."""

from __future__ import annotations

from pathlib import Path

from notifier.client.client import Position
from notifier.client.listen import StateFile


def test_a_state_file_holds_the_last_position_whatever_its_length(tmp_path: Path) -> None:
    for place in (Position(10**15, "e" * 300), Position(1, "e")):
        state = StateFile(tmp_path / "state", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")
        state.load()
        state.save(place)
        assert state.load() == place
        state.close()
