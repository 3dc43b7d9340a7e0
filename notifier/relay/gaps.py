"""Gaps of capture: periods during which a watched table could be written to without firing its triggers.

A disabled or dropped trigger records no change. But PostgreSQL writes a new version of the trigger's
row in the catalogue whenever it is disabled, enabled or created. The relay saves these versions; where
they differ, writes may have been missed, and once the table is captured again every company gets a Resync.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

Triggers = dict[str, tuple[int, str]]
"""By oid: the trigger's table, and the version of its row in the catalogue."""


class Capture(msgspec.Struct, frozen=True):
    """The capture triggers of an entity, whose watched table is `root`. No triggers: not captured."""

    root: int | None
    triggers: Triggers


class CaptureState(msgspec.Struct, frozen=True):
    """The triggers of an entity now. `tables`: the watched table (`capture.root`) and its partitions."""

    entity: str
    capture: Capture
    tables: frozenset[int]
    is_captured: bool
    is_dropped: bool = False
    """Whether the schema is gone whose name is the company of all its rows."""


Saved = dict[str, Capture]
"""By entity. Entities that are not watched now are kept: they may be watched again."""


class Gaps(NamedTuple):
    """Entities whose writes may have been missed; those of schemas that were dropped; the state to save."""

    missed: list[str]
    dropped: list[str]
    saved: Saved


def find_gaps(saved: Saved | None, states: Iterable[CaptureState]) -> Gaps:
    """Compares the triggers with those that were saved.

    A gap is reported when the table is captured again. `saved` is None on the first look, which cannot
    find any.
    """
    gaps: list[str] = []
    dropped: list[str] = []
    after = dict(saved or {})
    for state in states:
        before = after.get(state.entity)
        if state.is_dropped:
            if before is not None:
                if before.triggers:
                    dropped.append(state.entity)
                # Not forgotten: one of that name may be restored, with rows that no trigger saw.
                after[state.entity] = Capture(None, {})
            continue
        if not state.is_captured:
            if before is None:
                after[state.entity] = Capture(None, {})
            continue
        if before is not None and _differs(before, state):
            gaps.append(state.entity)
        after[state.entity] = state.capture
    return Gaps(gaps, dropped, after)


def _differs(before: Capture, state: CaptureState) -> bool:
    """Whether a saved trigger is gone or has another version.

    Triggers of partitions that were dropped or detached do not count, and new ones are no gap.
    """
    if not before.triggers:
        return True
    return any(
        state.capture.triggers.get(oid) != (table, version)
        for oid, (table, version) in before.triggers.items()
        if table == before.root or table in state.tables
    )
