"""Loads the files of `sql/`: in the wheel they lie beside the package, in a checkout above it.

`sql/tables/` creates tables, once, from a migration. `sql/functions/` and `sql/views/` hold
definitions that `migrate` replaces whenever the database has another one. `sql/queries/` holds the statements of
the running program. `:name` in a file stands for a number of `notifier.database.constants`.

The files, and statements in Python, name our schema `notifier`. Where NOTIFIER_SCHEMA is another name, `adapt`
inserts that name instead, before any text of the application is inserted (docs/decisions/22-schema-names.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from notifier.database import constants
from notifier.errors import SettingsError
from notifier.schema_names import DEFAULT

_CONSTANTS = {name.lower(): value for name, value in vars(constants).items() if name.isupper()}
_PLACEHOLDER = re.compile(r"(?<![:\w]):([a-z_]+)\b")

_OURS = re.compile(
    r"\bnotifier(?=\.(?!actor\b|traceparent\b))"  # an object of ours, and not a setting of the writer's
    r"|(?<=SCHEMA )notifier\b|(?<=')notifier(?=')"
    r"|(?<=')notifier(?=_(?:changes|messages|capture|capture_truncate|path|path_delete|path_truncate|replaced)')"  # channels, triggers
    r"|(?<=\(\.\*: \)\?)notifier(?= )"  # the name of our sessions
)


class _Names:
    """The name of our schema in this process, and how many nodes run with it."""

    schema = DEFAULT
    nodes = 0


def use_schema(name: str) -> None:
    """Names our schema for this process. Raises SettingsError while a node runs with another one."""
    if name != _Names.schema and _Names.nodes:
        raise SettingsError(
            f"NOTIFIER_SCHEMA is {name}, but a node with {_Names.schema} runs in this process: one process"
            " serves one schema"
        )
    _Names.schema = name


@contextmanager
def serving(name: str) -> Iterator[None]:
    """Keeps the schema for as long as a node runs."""
    use_schema(name)
    _Names.nodes += 1
    try:
        yield
    finally:
        _Names.nodes -= 1


def schema() -> str:
    """The name of our schema: a plain identifier, which needs no quotes."""
    return _Names.schema


def adapt(text: str) -> str:
    """A text of ours, without application text in it, for our schema."""
    return text if _Names.schema == DEFAULT else _adapted(text, _Names.schema)


@cache
def _adapted(text: str, name: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        if text[match.end() : match.end() + 1] == "_":
            return f"notifier_{name}"
        is_session = text[match.start() - 1] == "?"
        return f"notifier/{name}" if is_session else name

    return _OURS.sub(replaced, text)


def identifier(name: str) -> str:
    """A name of the catalogue, quoted, so that no name is a keyword or is folded to lowercase."""
    return '"' + name.replace('"', '""') + '"'


def channel(name: str) -> str:
    """A channel of NOTIFY: `changes` or `messages`."""
    return f"{DEFAULT}_{name}" if _Names.schema == DEFAULT else f"{DEFAULT}_{_Names.schema}_{name}"


def program() -> str:
    """The first word of our sessions' application names."""
    return DEFAULT if _Names.schema == DEFAULT else f"{DEFAULT}/{_Names.schema}"


def lock(key: int) -> int:
    """The key of an advisory lock in our schema; `key` is that in the schema `notifier`."""
    if _Names.schema == DEFAULT:
        return key
    digest = hashlib.sha256(f"{key} {_Names.schema}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 2


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


def _text(path: str) -> str:
    return _read(path, _Names.schema)


@cache
def _read(path: str, _: str) -> str:
    """A file, as it is for the schema of that name, which is the process's."""
    file = folder("sql") / f"{path}.sql"
    if not file.is_file():  # not the OSError that a lost connection is
        raise LookupError(f"this installation lacks {file}")
    return _PLACEHOLDER.sub(_value, adapt(file.read_text(encoding="utf-8")))


def _value(placeholder: re.Match[str]) -> str:
    """The number that a placeholder stands for; any other word stays as it is."""
    name = placeholder[1]
    value = _CONSTANTS.get(name, placeholder[0])
    return str(lock(value) if name.endswith("_lock") else value)
