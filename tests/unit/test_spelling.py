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


@pytest.mark.parametrize("rename", [{}, {"id": "number"}])
def test_messages_of_the_table_of_companies_name_the_company_beside_the_key(
    rename: dict[str, str],
) -> None:
    watch = Watch(table="accounts", entity="Account", company="id", rename=rename)
    key = rename.get("id", "AccountId")
    assert (watch.property("id"), watch.company_property) == (key, "CompanyId")
    written = change(1, {"id": 7, "name": "a"}, {"id": 7, "name": "b"}, entity="Account")
    for partial, name in ((False, {"Name": "b"}), (True, {})):
        (draft,) = drafts_of(written._replace(partial=partial), sources={"Account": Source(watch)})
        assert text_of(draft)["Data"] == {"CompanyId": 7, key: 7, **name}
    schema = document([watch])["components"]["schemas"]["AccountUpdated"]
    assert schema["properties"]["Data"]["allOf"][1] == {"required": [key, "CompanyId"]}


def test_the_company_of_a_scope_is_the_id_that_clients_subscribe_with_beside_its_column() -> None:
    watch = Watch(table="rooms", entity="Room", company="team_id", scope="team")
    written = change(1, None, {"id": 1, "team_id": 7, "name": "a"}, entity="Room")
    for partial, name in ((False, {"Name": "a"}), (True, {})):
        (draft,) = drafts_of(written._replace(partial=partial), sources={"Room": Source(watch)})
        assert draft.company == "team:7"
        assert text_of(draft)["Data"] == {"CompanyId": "team:7", "RoomId": 1, "TeamId": 7, **name}


def test_the_company_stands_beside_no_key_that_already_names_it() -> None:
    company = Watch(table="companies", entity="Company", company="id", case="camel")
    column = Watch(table="accounts", entity="Account", company="id", case="column")
    assert (company.adds_company, company.company_property) == (False, "companyId")
    assert (column.adds_company, column.company_property) == (False, "id")


def test_a_rename_keeps_the_name_of_the_company_where_columns_keep_theirs() -> None:
    watch = Watch(table="rooms", entity="Room", case="column", rename={"company_id": "CompanyId"})
    written = change(1, None, {"id": 2, "company_id": 1, "big_one": "a"}, entity="Room")
    (draft,) = drafts_of(written, sources={"Room": Source(watch)})
    assert text_of(draft)["Data"] == {"id": 2, "CompanyId": 1, "big_one": "a"}


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
