"""Writes the settings reference: every variable and every option of `[[watch]]`, from the code.

Types, limits and defaults are those of `notifier.settings` and `notifier.watches`; the meanings stand in the README's
tables. `make docs` puts the page into the site.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from notifier.settings import PREFIX, Settings
from notifier.watches import Watch

README = Path(__file__).parents[1] / "README.md"


class Meaning(NamedTuple):
    """A row of a table in the README."""

    text: str
    default: str


class Setting(NamedTuple):
    """A row of the reference."""

    name: str
    values: str
    default: str
    meaning: str


@cache
def meanings(header: str) -> dict[str, Meaning]:
    """The rows of the README's table with that header, by each name in the first column."""
    table = README.read_text().split(f"\n{header}\n", 1)[1].split("\n\n", 1)[0]
    columns = [each.strip() for each in header.strip("|").split("|")]
    found = {}
    for line in table.splitlines()[1:]:
        cells = [each.strip() for each in re.split(r"(?<!\\) \| ", line.strip().strip("|"))]
        row = dict(zip(columns, cells, strict=True))
        names = re.findall(r"`(\w+)`", cells[0])
        defaults = row["default"].split(", ")
        for number, name in enumerate(names):
            default = defaults[number] if len(defaults) == len(names) else row["default"]
            found[name] = Meaning(row["meaning"].replace("](docs/", "]("), default)
    return found


def _meaning(known: dict[str, Meaning], header: str, name: str) -> Meaning:
    if name not in known:
        raise KeyError(f"README.md: the table {header} has no row `{name}`")
    return known[name]


def variables() -> Iterator[Setting]:
    """Every environment variable. Raises KeyError for one that the README leaves out."""
    known = meanings("| variable | meaning | default |")
    for name, field in Settings.model_fields.items():
        if name in ("watch", "scope"):
            continue
        meaning = _meaning(known, "| variable | meaning | default |", name.upper())
        default = meaning.default if field.default in (None, "") else _default(field.default)
        yield Setting(f"{PREFIX}{name.upper()}", _values(field), default, meaning.text)
    config = known["CONFIG"]
    yield Setting(f"{PREFIX}CONFIG", "file", config.default, config.text)


def options() -> Iterator[Setting]:
    """Every option of `[[watch]]`. Raises KeyError for one that the README leaves out."""
    known = meanings("| option | default | meaning |")
    for field in dataclasses.fields(Watch):
        if not field.init:
            continue
        meaning = _meaning(known, "| option | default | meaning |", field.name)
        text = meaning.text.replace("](docs/", "](")
        yield Setting(field.name, "", meaning.default, text)


def page() -> str:
    """The reference in Markdown."""
    lines = [
        "# Settings",
        "",
        "Generated from the code. A wrong value is reported in one line, with exit status 2; an unknown variable is a warning.",
        "",
        "## Environment variables",
        "",
        "Lists are separated by commas. A switch is `on` or `off`.",
        "",
    ]
    for each in variables():
        lines += [
            f"### `{each.name}`",
            "",
            f"{_sentence(each.meaning)}.",
            "",
            f"Values: {each.values}. Default: {each.default}.",
            "",
        ]
    lines += [
        "## `[[watch]]` in `notifier.toml`",
        "",
        "Written into the database by `notifier migrate`.",
        "",
    ]
    for each in options():
        lines += [
            f"### `{each.name}`",
            "",
            f"{_sentence(each.meaning)}.",
            "",
            f"Default: {each.default}.",
            "",
        ]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    return f"`{value}`"


def _values(field: FieldInfo) -> str:
    return _kind(field.annotation, field.metadata)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """What values a type takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = [
            each
            for given in arguments[1:]
            for each in (given.metadata if isinstance(given, FieldInfo) else [given])
        ]
        return _kind(arguments[0], [*metadata, *inner])
    if origin in (typing.Union, UnionType):
        (present,) = [each for each in arguments if each is not type(None)]
        return _kind(present, metadata)
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin is tuple:
        return "a list"
    names = {
        bool: "`on` or `off`",
        int: "a whole number",
        float: "a number",
        Path: "a file",
        SecretStr: "a text",
    }
    return names.get(annotation, "a text") + _limits(metadata)


def _limits(metadata: list[Any]) -> str:
    """`from 0 to 65535`, as far as there are limits."""
    limits = {}
    for each in metadata:
        for name in ("ge", "gt", "le", "lt"):
            if (value := getattr(each, name, None)) is not None:
                limits[name] = value
    words = [
        f"{word} {limits[name]:,}"
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        if name in limits
    ]
    return f" {' '.join(words)}" if words else ""
