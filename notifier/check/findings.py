"""What `notifier check` found: facts, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from notifier import __version__


class Finding(NamedTuple):
    """A fact; `sound` is None where nothing needs to be done. `remedy`: what to do otherwise."""

    sound: bool | None
    fact: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Fact and remedy."""
        return f"{self.fact}; {self.remedy}" if self.remedy else self.fact

    @property
    def status(self) -> str:
        """`ok`, `note` or `failed`."""
        return {True: "ok", None: "note", False: "failed"}[self.sound]

    @property
    def is_actionable(self) -> bool:
        """Whether there is something to do about it."""
        return self.sound is False or (self.sound is None and self.remedy != "")


def as_json(found: Iterable[Finding]) -> str:
    """All findings as one JSON object, for programs; docs/operations.md lists its members."""
    found = list(found)
    answer = {
        "version": __version__,
        "sound": all(finding.sound is not False for finding in found),
        "findings": [
            {"status": each.status, "fact": each.fact, "remedy": each.remedy or None}
            for each in found
        ],
    }
    return msgspec.json.encode(answer).decode()
