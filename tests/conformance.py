"""Validates every message that a test client receives against the protocol's AsyncAPI document."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.protocols import Validator

from notifier.watches import CALENDAR, Watch
from notifier.web.asyncapi import document

ENTITIES = {name: watch for watch in CALENDAR for name in watch.names if name is not None}
"""The messages about the calendar's rows."""

OTHERS = Watch(table="others", entity="Other", created="OtherCreated")


def conforms(message: Any) -> None:
    """Raises AssertionError for what the service sent, or a client should send, and may not.

    No property may be unknown. Tables that are not the calendar's, whatever their names, have
    messages of which only the frame and the keys are known.
    """
    kind = message["Type"] if "Type" in message else _capital(message["type"])
    errors = [*_validator(_schema(message, kind)).iter_errors(message)]
    assert not errors, f"{errors[0].json_path}: {errors[0].message}: {message}"
    if "Success" in message:
        assert ("Error" in message) != message["Success"]
        if kind in {"AuthenticationResult", "SetCompanyResult"}:  # the others name their company
            assert ("Data" in message) == message["Success"]


def _schema(message: dict[str, Any], kind: str) -> str:
    if kind in ENTITIES:
        known = _schemas()[f"{ENTITIES[kind].entity}Row"]["properties"]
        if message.get("Partial") or known.keys() == message["Data"].keys():
            return kind
    if kind not in ENTITIES and kind in _schemas():
        return kind
    return "Other"


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


@cache
def _validator(name: str) -> Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _schemas()}}
    return Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER)


@cache
def _schemas() -> dict[str, Any]:
    """The document's schemas, closed: what they do not name must not be there."""
    schemas: dict[str, Any] = document()["components"]["schemas"]
    change = document([OTHERS])["components"]["schemas"]["OtherUpdated"]["properties"]
    schemas["Other"] = {
        "type": "object",
        "properties": change
        | {
            "Type": {"type": "string", "pattern": "^[A-Z]"},
            "Data": {"type": "object", "minProperties": 1},
            "Old": {"type": "object"},
        },
        "required": ["Type", "Data", "Position", "At", "Tx"],
    }
    for schema in schemas.values():
        if schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    return schemas
