"""Reads the files of `sql/`: in the wheel they lie beside the package, in a checkout above it."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def folder(name: str) -> Path:
    """Where `sql/` or `migrations/` is."""
    package = Path(__file__).parents[1]
    shipped = package / name
    return shipped if shipped.is_dir() else package.parent / name


@cache
def read(name: str) -> str:
    """The text of `sql/NAME.sql`."""
    path = folder("sql") / f"{name}.sql"
    if not path.is_file():  # not the OSError that a lost connection is
        raise LookupError(f"this installation lacks {path}")
    return path.read_text(encoding="utf-8")
