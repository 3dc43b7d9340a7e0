"""Writes the JSON Schema of `notifier.toml`, for editors: `python -m docs.toml_schema`.

Types and limits are those of `notifier.settings` and `notifier.watches`, the descriptions those of the README's tables.
The package has a copy: `python -c "import notifier; print(notifier.__path__[0] + '/notifier.schema.json')"`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docs import settings
from notifier.settings import Settings

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "docs" / "notifier.schema.json", ROOT / "notifier" / "notifier.schema.json")

SCOPE = {
    "name": "The name of the kind of company: its companies are written name:id.",
    "membership": "The query that decides on access: $1 is the id without the scope, $2 the user.",
}


def schema() -> dict[str, Any]:
    """The schema, in the draft that editors know best."""
    whole: dict[str, Any] = Settings.model_json_schema(mode="validation")
    definitions = whole.pop("$defs")
    meanings = {each.name.removeprefix("NOTIFIER_").lower(): each for each in settings.variables()}
    for name, given in whole["properties"].items():
        _plain(given, meanings[name].meaning if name in meanings else None)
        if given.get("type") == "array" and name not in ("watch", "scope"):
            whole["properties"][name] = _listed(given)
    options = {each.name: each.meaning for each in settings.options()}
    for kind, texts in (("Watch", options), ("Scope", SCOPE)):
        definitions[kind].pop("description", None)
        for name, given in definitions[kind]["properties"].items():
            _plain(given, texts[name])
    whole["properties"]["watch"].pop("default", None)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "notifier.toml",
        "type": "object",
        "properties": whole["properties"],
        "additionalProperties": False,
        "definitions": definitions,
    }


def _plain(given: dict[str, Any], description: str | None) -> None:
    """Drops what TOML does not have (null), and describes the value."""
    given.pop("title", None)
    if given.get("default", 0) is None:
        del given["default"]
    kinds = [each for each in given.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) == 1:
        del given["anyOf"]
        given.update(kinds[0])
    elif kinds:
        given["anyOf"] = kinds
    given.pop("writeOnly", None)
    if given.get("format") in ("password", "path"):
        del given["format"]
    if description is not None:
        given["description"] = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", description)


def _listed(given: dict[str, Any]) -> dict[str, Any]:
    """A list of texts may be one text as well, with commas."""
    described: dict[str, Any] = {
        key: given.pop(key) for key in ("description", "default") if key in given
    }
    return {"anyOf": [given, {"type": "string"}], **described}


def text() -> str:
    """The schema as it is written into the files."""
    found = json.dumps(schema(), ensure_ascii=False, indent=2)
    return found.replace("#/$defs/", "#/definitions/") + "\n"


if __name__ == "__main__":
    for file in FILES:
        file.write_text(text(), encoding="utf-8")
