"""The HTTP document: checked in, complete, and in agreement with what is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from notifier.transport.company_messages import NO_STORE
from notifier.transport.cors import PREFLIGHT
from notifier.transport.events import HEADERS
from notifier.transport.problems import HttpCode
from notifier.watches import Watch
from notifier.web import openapi

ROOT = Path(__file__).parents[2]
OWN = Watch(table="rooms", entity="Room", deleted="RoomClosed")


def test_the_document_that_is_checked_in_is_the_generated_one() -> None:
    checked_in = (ROOT / "docs" / "openapi.json").read_text()
    assert checked_in == openapi.text(), "python -m notifier.web.openapi > docs/openapi.json"


def test_every_reference_leads_somewhere() -> None:
    document = openapi.document()
    references = openapi.references(document)
    assert len(references) > 10
    for reference in references:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_schema_is_a_json_schema() -> None:
    for schema in openapi.document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_tables_of_ones_own_have_their_own_messages() -> None:
    schemas = openapi.document([OWN])["components"]["schemas"]
    assert {"RoomCreated", "RoomClosed", "RoomRow"} <= schemas.keys()
    assert "EventCreated" not in schemas


def test_answers_to_commands_are_not_in_it() -> None:
    schemas = openapi.document()["components"]["schemas"]
    assert not openapi.COMMANDS_ONLY & schemas.keys()
    assert {"Disconnect", "CompanyRevoked", "TokenExpiring", "Resync"} <= schemas.keys()


def test_the_cache_control_of_both_forms_is_in_it() -> None:
    responses = openapi.document()["paths"]["/companies/{companyId}/messages"]["get"]["responses"]
    schema = responses["200"]["headers"]["Cache-Control"]["schema"]
    assert schema["enum"] == [NO_STORE["Cache-Control"], HEADERS["cache-control"]]


def test_the_answer_to_a_preflight_is_in_it() -> None:
    assert openapi.PREFLIGHT == PREFLIGHT


@pytest.mark.parametrize("code", HttpCode)
def test_each_code_of_http_is_documented(code: str) -> None:
    assert f"| `{code}` |" in (ROOT / "docs" / "http.md").read_text()


@pytest.mark.parametrize("status", openapi.PROBLEMS)
def test_each_problem_is_documented(status: int) -> None:
    assert f"| {status} |" in (ROOT / "docs" / "http.md").read_text()


def test_the_example_of_a_page_is_a_page() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    page = json.loads(text.split("```json\n")[1].split("```")[0])
    document = openapi.document()
    schema = {"$ref": "#/components/schemas/Page", "components": document["components"]}
    assert [error.message for error in Draft202012Validator(schema).iter_errors(page)] == []
