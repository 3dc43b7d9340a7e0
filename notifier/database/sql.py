"""Loads the files of `sql/`: in the wheel they lie beside the package, in a checkout above it.

`sql/tables/` creates tables, once, from a migration. `sql/functions/` and `sql/views/` hold what
`migrate` replaces whenever the database has another definition. `sql/queries/` are the statements of
the running program. `:name` in a file stands for a number of `notifier.database.constants`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from notifier.database import constants

_CONSTANTS = {name.lower(): value for name, value in vars(constants).items() if name.isupper()}
_PLACEHOLDER = re.compile(r"(?<![:\w]):([a-z_]+)\b")


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


def names(kind: str) -> list[str]:
    """The names of all files in `sql/KIND/`, sorted."""
    return sorted(path.stem for path in (folder("sql") / kind).glob("*.sql"))


@cache
def _text(path: str) -> str:
    file = folder("sql") / f"{path}.sql"
    if not file.is_file():  # not the OSError that a lost connection is
        raise LookupError(f"this installation lacks {file}")
    return _PLACEHOLDER.sub(_value, file.read_text(encoding="utf-8"))


def _value(placeholder: re.Match[str]) -> str:
    """The number that a placeholder stands for; any other word stays as it is."""
    return str(_CONSTANTS.get(placeholder[1], placeholder[0]))
