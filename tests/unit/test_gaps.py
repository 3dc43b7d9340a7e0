"""Which differences between the saved and the present capture triggers are gaps."""

from __future__ import annotations

import pytest
from msgspec import structs

from notifier.relay.gaps import Capture, CaptureState, Saved, Triggers, find_gaps

ROOT, PART = 100, 200


def state(
    triggers: Triggers, root: int = ROOT, captured: bool = True, tables: tuple[int, ...] = ()
) -> CaptureState:
    return CaptureState("Event", Capture(root, triggers), frozenset({root, *tables}), captured)


def saved(triggers: Triggers, root: int | None = ROOT) -> Saved:
    return {"Event": Capture(root, triggers)}


BOTH: Triggers = {"1": (ROOT, "7O"), "2": (ROOT, "7O")}


def test_the_first_read_finds_no_gap_and_saves_the_triggers() -> None:
    assert find_gaps(None, [state(BOTH)]) == ([], [], saved(BOTH))


@pytest.mark.parametrize(
    ("before", "now", "is_gap"),
    [
        (saved(BOTH), state(BOTH), False),
        (saved(BOTH), state({**BOTH, "2": (ROOT, "9O")}), True),
        (saved(BOTH), state({"1": (ROOT, "7O"), "3": (ROOT, "9O")}), True),
        (saved(BOTH), state({"3": (300, "9O"), "4": (300, "9O")}, root=300), True),
        (saved({}, None), state(BOTH), True),
        (saved(BOTH), state({**BOTH, "5": (PART, "9O")}, tables=(PART,)), False),
        (saved({**BOTH, "5": (PART, "8O")}), state(BOTH), False),
        (saved({**BOTH, "5": (PART, "8O")}), state(BOTH, tables=(PART,)), True),
        (
            saved({**BOTH, "5": (PART, "8O")}),
            state({**BOTH, "5": (PART, "9O")}, tables=(PART,)),
            True,
        ),
    ],
    ids=[
        "unchanged",
        "another version",
        "another trigger",
        "another table",
        "uncaptured before",
        "a new partition",
        "a dropped partition",
        "a partition without its trigger",
        "a partition whose trigger has another version",
    ],
)
def test_a_saved_trigger_that_is_gone_or_has_another_version_is_a_gap(
    before: Saved, now: CaptureState, is_gap: bool
) -> None:
    gaps, _, after = find_gaps(before, [now])
    assert gaps == (["Event"] if is_gap else [])
    assert after == {"Event": now.capture}


def test_a_gap_is_reported_once_the_table_is_captured_again() -> None:
    gaps, _, after = find_gaps(saved(BOTH), [state({"1": (ROOT, "9D")}, captured=False)])
    assert (gaps, after) == ([], saved(BOTH))
    now = state({"1": (ROOT, "11O"), "2": (ROOT, "7O")})
    assert find_gaps(after, [now]) == (["Event"], [], {"Event": now.capture})


def test_a_table_that_is_uncaptured_at_the_first_read_is_a_gap_later() -> None:
    gaps, _, after = find_gaps(None, [state({}, captured=False)])
    assert gaps == []
    assert find_gaps(after, [state(BOTH)])[0] == ["Event"]


def test_an_entity_that_is_watched_again_has_a_gap() -> None:
    gaps, _, after = find_gaps(saved(BOTH), [])
    assert (gaps, after) == ([], saved(BOTH))
    assert find_gaps(after, [state({"8": (ROOT, "20O"), "9": (ROOT, "20O")})])[0] == ["Event"]


def test_a_dropped_schema_is_reported_once_and_one_of_that_name_has_a_gap() -> None:
    """Its rows may come from a dump, and were not captured then."""
    dropped = structs.replace(state({}, captured=False), is_dropped=True)
    assert find_gaps(saved(BOTH), [dropped]) == ([], ["Event"], saved({}, None))
    assert find_gaps(saved({}, None), [dropped]) == ([], [], saved({}, None))
    assert find_gaps({}, [dropped]) == ([], [], {})
    assert find_gaps(saved({}, None), [state(BOTH)]) == (["Event"], [], saved(BOTH))
    assert find_gaps({}, [state(BOTH)]) == ([], [], saved(BOTH))
