"""The line that describes an invalid setting: where it was written, what is wrong with it, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError

Location: TypeAlias = Sequence[str | int]
"""As in pydantic's errors: `("watch", 1, "key")` is `key` of the second `[[watch]]`."""

Schema: TypeAlias = Mapping[str, Any]
"""A JSON Schema, as pydantic generates it."""

SECTIONS = ("watch", "scope")
"""Settings that are lists of tables, which only the file can have."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""The types of pydantic's errors for an option that does not exist."""

_FAULTS = {
    "missing": "missing",
    "int_type": "not a whole number",
    "int_parsing": "not a whole number",
    "int_parsing_size": "out of range",
    "int_from_float": "not a whole number",
    "float_type": "not a number",
    "float_parsing": "not a number",
    "finite_number": "out of range",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "string_too_short": "empty",
    "string_too_long": "too long",
    "too_short": "empty",
}
"""The fault, by the type of pydantic's error. For other types, what is allowed explains the fault."""

PATTERNS = {
    "^[A-Za-z][A-Za-z0-9]*$": "a letter, then letters and digits",
    "^[A-Za-z][A-Za-z0-9_-]*$": "a letter, then letters, digits, _ and -",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$": "letters, digits and any of !#$%&'*+-.^_`|~",
}
"""What texts of a pattern consist of."""


class Disagreement(ValueError):
    """Settings that are valid by themselves, but not together.

    `location`: the one to correct. `other`: the setting whose name ends the text.
    """

    def __init__(self, location: Location, text: str, other: str | None = None) -> None:
        super().__init__(" ".join(filter(None, (_option(location), text, other))))
        self.location = location
        self.text = text
        self.other = other


class Origin(NamedTuple):
    """Where the settings come from.

    `variables`: those that the environment has. `arguments`: those that were passed, as options of the
    command line where `are_options`.
    """

    prefix: str
    arguments: Collection[str]
    variables: Collection[str]
    file: Path
    are_options: bool = False

    def place(self, location: Location) -> str:
        """The variable, or the line of the file and the option there."""
        name = self.name(location)
        if name == self._variable(location) or location[0] in self.arguments:
            return name
        line = self._line(location)
        return f"{self.file}: {name}" if line is None else f"{self.file}, line {line}: {name}"

    def name(self, location: Location, beside: Location = ()) -> str:
        """The setting as it was written. One that was not is named like the one `beside`, else as a variable."""
        setting = location[0]
        if setting in self.arguments:
            return self._argument(location)
        if setting in SECTIONS:
            return _option(location)
        if setting in self.variables:
            return self._variable(location)
        if self._line(location) is not None:
            return _option(location)
        if beside and beside[0] in self.arguments:
            return self._argument(location)
        if beside and self.name(beside) == _option(beside):
            return _option(location)
        return self._variable(location)

    def _argument(self, location: Location) -> str:
        return f"--{location[0]}".replace("_", "-") if self.are_options else _option(location)

    def _variable(self, location: Location) -> str:
        return f"{self.prefix}{str(location[0]).upper()}"

    def _line(self, location: Location) -> int | None:
        written = self.file.read_text(encoding="utf-8-sig") if self.file.is_file() else ""
        return _line_of(written, location)


def describe(error: ValidationError, model: type[BaseModel], origin: Origin) -> str:
    """The first error, in one line without the value, which may be a secret."""
    wrong = error.errors(include_input=False, include_url=False)[0]
    location: Location = wrong["loc"]
    cause = wrong.get("ctx", {}).get("error")
    if isinstance(cause, Disagreement):
        words = (cause.text, cause.other and origin.name((cause.other,), beside=cause.location))
        return f"{origin.place(cause.location)}: {' '.join(filter(None, words))}"
    if isinstance(cause, ValueError):
        return f"{origin.place(location)}: {cause}"
    whole = _schema(model)
    found = list(_descend(whole, location))
    if wrong["type"] in _UNKNOWN:
        known = found[-1].get("properties", ())
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.7)
        near = f"; did you mean {close[0]}?" if close else ""
        return f"{origin.place(location)}: there is no such option{near}"
    # What is deeper are the alternatives of a type, or an item of a list.
    location = location[: len(found) - 1]
    is_variable = origin.name(location) != _option(location)
    allowed = _allowed(whole, found[-1], is_variable=is_variable)
    fault = _FAULTS.get(wrong["type"])
    must = f"must be {allowed}"
    return f"{origin.place(location)}: {must if fault is None else f'{fault}; {must}'}"


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _descend(whole: Schema, location: Location) -> Iterator[Schema]:
    """The schemas of the whole, of the setting, and so on as far as options of the file have names."""
    node = whole
    yield node
    for index, part in enumerate(location):
        if index == 1 and location[0] in SECTIONS:
            node = _resolved(whole, node["items"])
        elif part in node.get("properties", ()):
            node = _resolved(whole, node["properties"][part])
        elif isinstance(node.get("additionalProperties"), dict):
            node = _resolved(whole, node["additionalProperties"])
        else:
            return
        yield node


def _resolved(whole: Schema, node: Schema) -> Schema:
    """A schema without references, and without null, which TOML does not have."""
    if "$ref" in node:
        return _resolved(whole, whole["$defs"][node["$ref"].rpartition("/")[2]])
    kinds = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(whole, kinds[0]) if len(kinds) == 1 else node


def _allowed(whole: Schema, node: Schema, *, is_variable: bool) -> str:
    """The values that a schema allows: as text of a variable, or in TOML."""
    node = _resolved(whole, node)
    kinds = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    if kinds:
        return ", or ".join(_allowed(whole, each, is_variable=is_variable) for each in kinds)
    if words := node.get("enum") or [node[key] for key in ("const",) if key in node]:
        words = words if is_variable else [f'"{word}"' for word in words]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    kind = node.get("type")
    if kind == "boolean":
        return "on or off" if is_variable else "true or false"
    if kind in ("integer", "number"):
        return f"a {'whole number' if kind == 'integer' else 'number'}{_range(node)}"
    if kind == "array":
        if isinstance(reference := node["items"].get("$ref"), str):
            return f"written as [[{reference.rpartition('/')[2].lower()}]], once for each"
        return f"a list of {'one or more ' if node.get('minItems') else ''}texts in quotes"
    if kind == "object":
        if isinstance(value := node.get("additionalProperties"), dict):
            example = "true" if "anyOf" in value else '"text"'
            return f"a table such as {{ column = {example} }}"
        return "a table of options"
    text = PATTERNS.get(node.get("pattern", ""), "text" if is_variable else "text in quotes")
    limit = node.get("maxLength")
    return text if limit is None else f"{text}, at most {limit} characters"


def _range(node: Schema) -> str:
    """The bounds of a number, to follow a noun."""
    low, above, high = (node.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None:
        return f" of at least {low}" if high is None else f" from {low} to {high}"
    if above is not None:
        return f" greater than {above}" + ("" if high is None else f" and at most {high}")
    return ""


def _option(location: Location) -> str:
    """An option as the file names it: `port`, or `[[watch]] 2, rename.a`."""
    setting, *rest = map(str, location)
    if setting not in SECTIONS or not rest:
        return ".".join((setting, *rest))
    number, *names = rest
    table = f"[[{setting}]] {int(number) + 1}"
    return f"{table}, {'.'.join(names)}" if names else table


_HEADER = re.compile(r"""\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$""")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*(?:=|\.)""")


def _line_of(text: str, location: Location) -> int | None:
    """The number of the line where a value is, or the table that lacks it; None: not found.

    What is deeper than an option of a table is in the option's line, or after it.
    """
    tables = [str(part) for part in location if isinstance(part, str)]
    number = next((part for part in location if isinstance(part, int)), 0)
    name, options = tables[0] if tables else "", tables[1:]
    count, found, section = -1, None, ""
    for index, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = header[1].replace('"', "").replace(" ", "")
            if section == name:
                count += 1
                if count == number:
                    found = index
                    if not options:
                        return index
            elif count == number and options and section == f"{name}.{options[0]}":
                return index
        elif key := _KEY.match(line):
            word = key[1].strip("\"'")
            if not section and word == name and found is None:
                found = index
                if not options:
                    return index
            elif section == name and count == number and options and word == options[0]:
                return index
    return found
