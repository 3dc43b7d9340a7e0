"""The protocol's document: valid, checked in, complete; and docs/protocol.md beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from notifier import messages
from notifier.commands import COMMANDS, decode
from notifier.errors import Closure, Code
from notifier.watches import Watch
from notifier.web import asyncapi
from tests.conformance import conforms

ROOT = Path(__file__).parents[2]
OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0.json"


@cache
def protocol() -> str:
    return (ROOT / "docs" / "protocol.md").read_text()


def blocks() -> Iterator[str]:
    """The examples of docs/protocol.md."""
    yield from re.findall(r"```json\n(.*?)```", protocol(), re.DOTALL)


def examples() -> list[Any]:
    return [json.loads(block) for block in blocks()]


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(
        rf"^##+ {re.escape(title)}$(.*?)(?=^##|\Z)", protocol(), re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def test_the_document_that_is_checked_in_is_the_generated_one() -> None:
    checked_in = (ROOT / "docs" / "asyncapi.json").read_text()
    assert checked_in == asyncapi.text(), "python -m notifier.web.asyncapi > docs/asyncapi.json"


OWN = Watch(table="rooms", entity="Room", exclude=("secret",), deleted="RoomClosed")


@pytest.mark.parametrize("document", [asyncapi.document(), asyncapi.document([OWN])])
def test_it_is_valid_asyncapi_3(document: Any) -> None:
    official = Draft7Validator(json.loads(OFFICIAL.read_text()))
    assert [error.message for error in official.iter_errors(document)] == []


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi.document()
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_schema_is_a_json_schema() -> None:
    for schema in asyncapi.document()["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


def test_every_message_of_a_session_is_in_the_document() -> None:
    named = {
        kind.__name__
        for kind in vars(messages).values()
        if isinstance(kind, type)
        and issubclass(kind, messages.ServerMessage)
        and kind.__struct_config__.tag is not None
    }
    assert len(named) > 5
    assert named <= asyncapi.document()["components"]["messages"].keys()


def test_every_command_is_in_it() -> None:
    schemas = asyncapi.document()["components"]["schemas"]
    for kind in COMMANDS:
        tag = kind.__struct_config__.tag
        assert schemas[kind.__name__]["properties"]["type"]["enum"] == [tag]


def test_every_close_code_of_ours_is_in_it() -> None:
    closes = {
        close["code"]: close for close in asyncapi.document()["channels"]["socket"]["x-close-codes"]
    }
    for closure in Closure.__subclasses__():
        assert closes[closure.code]["reconnect"] == closure.reconnect


def test_tables_of_ones_own_have_their_own_messages() -> None:
    components = asyncapi.document([OWN])["components"]
    assert {"RoomCreated", "RoomUpdated", "RoomClosed"} <= components["messages"].keys()
    assert "EventCreated" not in components["messages"]
    assert components["schemas"]["RoomRow"]["properties"].keys() == {"RoomId", "CompanyId"}


def test_an_excluded_column_is_not_in_it() -> None:
    watch = Watch(table="events", entity="Event", exclude=("description",))
    row = asyncapi.document([watch])["components"]["schemas"]["EventRow"]
    assert "Title" in row["properties"]
    assert "Description" not in row["properties"]


# --- docs/protocol.md


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.get("Type") or e["type"])
def test_each_example_of_the_documentation_is_a_message(example: Any) -> None:
    conforms(example)
    if "type" in example:
        decode(json.dumps(example))


def test_each_message_has_an_example() -> None:
    shown = {example.get("Type") or example["type"] for example in examples()}
    schemas = asyncapi.document()["components"]["schemas"]
    for name in asyncapi.document()["components"]["messages"]:
        tag = schemas[name]["properties"].get("Type") or schemas[name]["properties"]["type"]
        assert tag.get("const", tag.get("enum", [None])[0]) in shown


def test_each_error_code_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", section("Error codes"), re.MULTILINE)
    assert sorted(explained) == sorted(Code)


def test_each_close_code_is_explained() -> None:
    explained = re.findall(r"^\| (\d+) \| ([^|]+) \|", section("Close codes"), re.MULTILINE)
    document = asyncapi.document()["channels"]["socket"]["x-close-codes"]
    assert [(int(code), reason.strip()) for code, reason in explained] == [
        (close["code"], close["reason"]) for close in document
    ]


# --- the hook itself

GOOD = {"Type": "CompanyRevoked", "Data": {"CompanyId": "a"}}


def test_a_conforming_message_passes() -> None:
    conforms(GOOD)
    conforms(
        {
            "Type": "RoomCreated",
            "Data": {"RoomId": 1, "CompanyId": 2, "Seats": [1]},
            "Position": 1,
            "At": "2026-11-22T18:00:00.123456+00:00",
            "Tx": "771234",
        }
    )


@pytest.mark.parametrize(
    "message",
    [
        {"Type": "CompanyRevoked"},
        GOOD | {"Extra": 1},
        {"Type": "CompanyRevoked", "Data": {"CompanyId": "a", "Extra": 1}},
        {"Type": "RoomCreated", "Data": {"RoomId": 1}, "Position": 0, "At": "now", "Tx": "1"},
        {"Type": "Error", "Error": {"Code": "no_such_code", "Message": "…"}},
        {"Type": "AuthenticationResult", "Success": True},
    ],
)
def test_a_message_that_does_not_conform_is_found(message: Any) -> None:
    with pytest.raises(AssertionError):
        conforms(message)
