"""Loads the files of `sql/`: in the wheel they lie beside the package, in a checkout above it.

`sql/tables/` creates tables, once, from a migration. `sql/functions/` and `sql/views/` hold what
`migrate` replaces whenever the database has another definition. `sql/queries/` are the statements of
the running program.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


def folder(name: str) -> Path:
    """The directory `sql/` or `migrations/`."""
    package = Path(__file__).parents[1]
    shipped = package / name
    return shipped if shipped.is_dir() else package.parent / name


def query(name: str) -> str:
    """A statement of the running program: `sql/queries/NAME.sql`."""
    return _text(f"queries/{name}")


def function(name: str) -> str:
    """The definition of the function `notifier.NAME`: `sql/functions/NAME.sql`."""
    return _text(f"functions/{name}")


def view(name: str) -> str:
    """The definition of the view `notifier.NAME`: `sql/views/NAME.sql`."""
    return _text(f"views/{name}")


def tables(name: str) -> str:
    """A script that creates tables: `sql/tables/NAME.sql`."""
    return _text(f"tables/{name}")


def grants() -> str:
    """The rights of a role that runs `notifier serve`, with `:role` in place of its name."""
    return _text("grant")


@cache
def _text(path: str) -> str:
    file = folder("sql") / f"{path}.sql"
    if not file.is_file():  # not the OSError that a lost connection is
        raise LookupError(f"this installation lacks {file}")
    return file.read_text(encoding="utf-8")
