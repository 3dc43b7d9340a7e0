"""Names of properties: `case` and `rename`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from notifier.errors import SettingsError
from notifier.relay.changes import Source
from notifier.settings import load
from notifier.watches import Case, Watch
from notifier.web.asyncapi import document
from tests.unit.captured import EVENT, change, drafts_of, row, text_of


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("pascal", ["EventId", "CompanyId", "StartsAt", "CamelCase", "URL"]),
        ("camel", ["eventId", "companyId", "startsAt", "camelCase", "url"]),
        ("column", ["id", "company_id", "starts_at", "camelCase", "URL"]),
    ],
)
def test_case_spells_every_property_those_of_key_and_company_too(
    case: Case, names: list[str]
) -> None:
    watch = replace(EVENT, case=case)
    columns = ["id", "company_id", "starts_at", "camelCase", "URL"]
    assert [watch.property(column) for column in columns] == names


@pytest.mark.parametrize("case", ["pascal", "camel", "column"])
def test_rename_names_single_columns_whatever_the_case_is(case: Case) -> None:
    renamed = {"id": "number", "company_id": "teamId", '"startsAt"': "from"}
    watch = replace(EVENT, case=case, rename=renamed)
    assert [watch.property(column) for column in ("id", "company_id", "startsAt")] == [
        "number",
        "teamId",
        "from",
    ]


def test_data_and_old_have_the_spelling_and_the_envelope_keeps_its_own() -> None:
    watch = replace(EVENT, case="camel", rename={"title": "name"})
    written = change(1, row(title="a", starts_at="x"), row(title="b", starts_at="y"), actor="ann")
    (draft,) = drafts_of(written, sources={"Event": Source(watch)})
    message = text_of(draft)
    assert message["Type"] == "EventUpdated"
    assert message["Data"] == {"eventId": 1, "companyId": "c", "name": "b", "startsAt": "y"}
    assert message["Old"] == {"name": "a", "startsAt": "x"}
    assert message["Actor"] == "ann"


def test_the_description_of_the_protocol_has_the_spelling() -> None:
    watch = Watch(table="rooms", entity="Room", case="camel", rename={"company_id": "teamId"})
    schemas = document([watch])["components"]["schemas"]
    assert list(schemas["RoomRow"]["properties"]) == ["roomId", "teamId"]
    keys = schemas["RoomCreated"]["properties"]["Data"]["allOf"][1]
    assert keys == {"required": ["roomId", "teamId"]}


def test_both_come_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = '[[watch]]\ntable = "t"\nentity = "T"\n'
    file = Path("notifier.toml")
    file.write_text(f"{head}case = 'column'\nrename = {{ tenant_id = 'teamId' }}\n")
    (watch,) = load().watch
    assert (watch.case, watch.rename) == ("column", {"tenant_id": "teamId"})
    for wrong, named in (
        ("case = 'snake'", "1, case: must be"),
        ("rename = { a = '' }", "1, rename.a: empty"),
    ):
        file.write_text(head + wrong)
        with pytest.raises(SettingsError, match=named):
            load()
