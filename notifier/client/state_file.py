"""The file in which `notifier listen` keeps its position between two runs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from notifier.client.reports import Position
from notifier.companies import canonical
from notifier.errors import SettingsError

STATE_BYTES = 2048
"""The length of the file: more than the longest company id and epoch need."""


class Saved(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The content of a state file. Files of older versions have no `at`."""

    company_id: str
    after: int
    epoch: str
    at: str | None = None


class StateFile:
    """The position of one company in a file. Everything raises SettingsError."""

    def __init__(self, path: Path, company: str) -> None:
        self._path = path
        self._company = canonical(company)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error

    def load(self) -> Position | None:
        """The saved position; None in a new file."""
        try:
            text = self._path.read_bytes()
            if not text:
                return None
            saved = msgspec.json.decode(text, type=Saved)
        except (OSError, msgspec.DecodeError) as error:
            raise SettingsError(f"{self._path} is not a state file of `notifier listen`") from error
        if saved.company_id != self._company:
            raise SettingsError(f"{self._path} belongs to another company, {saved.company_id}")
        return Position(saved.after, saved.epoch, saved.at)

    def save(self, position: Position) -> None:
        """Overwrites the file in one write of constant length, so a crash cannot mix two states."""
        saved = Saved(self._company, *position)
        line = msgspec.json.encode(saved).ljust(STATE_BYTES - 1) + b"\n"
        try:
            os.pwrite(self._file, line, 0)
        except OSError as error:
            raise SettingsError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
