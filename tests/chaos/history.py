"""A file with every event of a chaos run, in order: the evidence for a failure."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

SLOW_SECONDS = 1.0


class History:
    """`violations` must stay empty."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.violations: list[str] = []
        self.longest_write = 0.0
        self._begun = time.monotonic()
        self._file = path.open("w")
        self._outages: list[list[float]] = []
        self._errors: list[tuple[float, float, str]] = []

    def note(self, what: str, **details: Any) -> None:
        """Writes one line."""
        at = round(time.monotonic() - self._begun, 3)
        self._file.write(json.dumps({"at": at, "what": what} | details, default=str) + "\n")
        self._file.flush()

    def violated(self, what: str, **details: Any) -> None:
        """Records something that no fault excuses."""
        self.note("VIOLATION", violation=what, details=details)
        self.violations.append(f"{what} {details}")

    # --- the database's own outages, the only excuse for a failed write

    def down(self) -> None:
        self._outages.append([time.monotonic(), float("inf")])

    def up(self) -> None:
        self._outages[-1][1] = time.monotonic()

    def failed(self, writer: str, error: BaseException, begun: float) -> None:
        """Records a failed write, or a failed attempt to connect, and when it was begun."""
        error_text = f"{writer}: {type(error).__name__}: {error}"
        self.note("write failed", error_text=error_text)
        self._errors.append((begun, time.monotonic(), error_text))

    def waited(self, seconds: float) -> None:
        """Records how long a transaction took."""
        self.longest_write = max(self.longest_write, seconds)
        if seconds > SLOW_SECONDS:
            self.note("a slow write", seconds=round(seconds, 3))

    def inexcusable(self) -> list[str]:
        """Writes that were begun and failed while the database was there; it may take a second to be noticed.

        One that was begun during an outage may fail long after it: a starting server may refuse a connection late.
        """
        return [
            error_text
            for begun, failed, error_text in self._errors
            if not any(down <= failed and begun <= up + 1 for down, up in self._outages)
        ]

    def close(self) -> None:
        self._file.close()
