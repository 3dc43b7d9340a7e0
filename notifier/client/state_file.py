"""The file in which `notifier listen` keeps its positions between two runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from notifier.client.reports import Position
from notifier.companies import canonical
from notifier.errors import SettingsError

STATE_BYTES = 2048
"""The length of a line: more than the longest company id and epoch need."""


class Saved(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A line of a state file. Files of older versions have no `at`."""

    company_id: str
    after: int
    epoch: str
    at: str | None = None


class StateFile:
    """The position of each company in a file: one line of constant length per company.

    Everything raises SettingsError. A company may be spelled as the command line has it.
    """

    def __init__(self, path: Path, companies: Sequence[str]) -> None:
        self._path = path
        self._companies = {company: canonical(company) for company in companies}
        self._lines: dict[str, int] = {}  # the number of each company's line
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error

    def load(self) -> dict[str, Position]:
        """The saved positions of these companies; none in a new file."""
        found = {}
        try:
            for line in self._path.read_bytes().splitlines():
                saved = msgspec.json.decode(line, type=Saved)
                self._lines[saved.company_id] = len(self._lines)
                found[saved.company_id] = Position(saved.after, saved.epoch, saved.at)
        except (OSError, msgspec.DecodeError) as error:
            raise SettingsError(f"{self._path} is not a state file of `notifier listen`") from error
        for company in found.keys() - set(self._companies.values()):
            raise SettingsError(f"{self._path} belongs to another company, {company}")
        return {given: found[name] for given, name in self._companies.items() if name in found}

    def save(self, company: str, position: Position) -> None:
        """Overwrites a line in one write of constant length, so a crash cannot mix two states."""
        name = self._companies[company]
        text = msgspec.json.encode(Saved(name, *position)).ljust(STATE_BYTES - 1) + b"\n"
        if len(text) > STATE_BYTES:  # it would overwrite the next line
            raise SettingsError(f"{self._path}: a position has more than {STATE_BYTES - 1} bytes")
        line = self._lines.setdefault(name, len(self._lines))
        try:
            os.pwrite(self._file, text, line * STATE_BYTES)
        except OSError as error:
            raise SettingsError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)
