"""The code that `notifier types` generates, for names that are hard to make types of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from notifier.errors import NotifierError
from notifier.types import csharp, json_schema, python, typescript
from notifier.types.values import (
    Composite,
    Enum,
    Field,
    Property,
    Scalar,
    Table,
    merged,
    one_line,
)
from notifier.watches import Watch

TEXT = Scalar("string", "text")


def table(entity: str = "Event", *properties: Property, **options: Any) -> Table:
    watch = Watch(table=entity.lower(), entity=entity, **options)
    keys = (
        Property(f"{entity}Id", TEXT, False, "text"),
        Property("CompanyId", TEXT, False, "text"),
    )
    return Table(watch, keys + properties)


def run(text: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(text, names)
    return names


def test_a_message_that_is_named_like_another_type_gets_a_name_of_its_own() -> None:
    tables = [
        table("Event", created="Event", updated="Event", deleted="Change"),
        table("Other", created="EventRow", updated="class", deleted="2nd-gone"),
    ]
    names = run(python.render(tables))
    assert {"EventRow", "EventRow_", "Event", "Change_", "Class", "_2ndGone"} <= names.keys()
    text = typescript.render(tables)
    for name, type_ in (("EventRow_", "EventRow"), ("Change_", "Change"), ("Class", "class")):
        assert f'export type {name} = Changed<"{type_}", ' in text
    assert text.count("export type Event =") == 1
    assert "public sealed class EventRow_ : Change" in csharp.render(tables)


def test_watches_of_one_entity_in_two_scopes_have_one_type_or_are_refused() -> None:
    def booking(company: str, *properties: Property, **options: Any) -> Table:
        watch = Watch(table="b", entity="Booking", scope=company, company=company, **options)
        given = {"BookingId": f"id of {company}", "CompanyId": "the company"}
        given |= {"Team": "integer", "User": "integer"}
        columns = [
            Property(each, TEXT, each.lower() not in (company, "bookingid"), sql)
            for each, sql in given.items()
        ]
        return Table(watch, (*columns, *properties))

    [table] = merged([booking("team"), booking("user")])
    assert [(each.name, each.is_nullable) for each in table.properties] == [
        ("BookingId", False),
        ("CompanyId", True),
        ("Team", True),
        ("User", True),
    ]
    assert table.properties[0].sql == "id of team or id of user"
    assert [each.name for each in table.keys] == ["BookingId", "CompanyId"]
    assert typescript.render([table]).count("interface BookingRow ") == 1
    note = Property("Note", TEXT, True, "text")
    for other in (booking("user", note), booking("user", created="Booked")):
        with pytest.raises(NotifierError, match="choose another entity for one"):
            merged([booking("team"), other])


def test_no_property_hides_a_type_that_others_of_its_class_have() -> None:
    for name in ("str", "Any", "Literal", "class", "list"):
        properties = (Property(name, TEXT, True, "text"), Property("Other", TEXT, True, "text"))
        text = python.render([table("Event", *properties)])
        assert (
            f"        '{name}': str | None,  # text\n        'Other': str | None,  # text\n" in text
        )
        assert {name, "Other"} <= run(text)["EventRow"].__annotations__.keys()


def test_tables_with_the_same_message_share_its_type() -> None:
    tables = [table("A", created="Saved", updated="Saved"), table("B", created="Saved")]
    expected = (
        'export type Saved = Changed<"Saved", ARow, AKeys> | Changed<"Saved", ARow, AKeys, Partial<ARow>>'
        ' | Changed<"Saved", BRow, BKeys>;'
    )
    text = typescript.render(tables)
    assert expected in text
    assert (
        '  B: { Row: BRow; Keys: BKeys; Change: BDeleted | BUpdated | Changed<"Saved", BRow, BKeys> };'
        in text
    )
    assert '  A: { key: "AId", created: "Saved", updated: "Saved", deleted: "ADeleted" },' in text
    assert "public JsonElement Data" in csharp.render(tables)
    schema = json.loads(json_schema.render(tables))
    frame = {"Type": "Saved", "Position": 1, "At": "2026-01-01T00:00:00+00:00", "Tx": "1"}
    validator = Draft202012Validator(schema)
    assert validator.is_valid({**frame, "Data": {"BId": "1", "CompanyId": "2"}})
    assert not validator.is_valid({**frame, "Data": {"CId": "1", "CompanyId": "2"}})
    assert not validator.is_valid(
        {**frame, "Data": {"BId": "1", "CompanyId": "2"}, "Partial": True, "Old": 1}
    )


def test_types_that_would_have_the_same_name_are_refused() -> None:
    inner = Composite("place", (Field("x", TEXT),))
    with pytest.raises(NotifierError, match="called EventRow"):
        python.render([table("Event", Property("Row", inner, True, "place"))])


def test_no_name_of_the_database_can_leave_its_string_or_comment() -> None:
    evil = 'a"; */ """ \\ \n\u2028 throw 1 //'
    tables = [
        table(
            "Event",
            Property(evil, Enum((evil, "b")), True, evil),
            Property("__x", TEXT, True, "text"),
        )
    ]
    names = run(python.render(tables))
    assert evil in names["EventRow"].__annotations__
    for text in (typescript.render(tables), csharp.render(tables)):
        assert "throw 1" not in {line.strip() for line in text.splitlines()}
        assert "\u2028" not in text
    schema = json.loads(json_schema.render(tables))
    assert schema["$defs"]["EventRow"]["properties"][evil]["enum"] == [evil, "b", None]


def test_members_that_would_have_the_same_name_in_csharp_are_distinguished() -> None:
    text = csharp.render(
        [
            table(
                "Event",
                *(Property(name, TEXT, True, "text") for name in ("a-b", "a_b", "EventRow")),
            )
        ]
    )
    for line in (
        'JsonPropertyName("a-b")]\n        public string AB {',
        'JsonPropertyName("a_b")]\n        public string AB_ {',
        'JsonPropertyName("EventRow")]\n        public string EventRow_ {',
    ):
        assert line in text


def test_nothing_is_sent_of_a_table_whose_messages_are_empty() -> None:
    silent = [table("Event", created="", updated="", deleted="")]
    assert "export type Change = never;" in typescript.render(silent)
    run(python.render(silent))
    assert json.loads(json_schema.render(silent))["anyOf"] == [{"$ref": "#/$defs/Resync"}]


@pytest.mark.parametrize(
    "name",
    ["*/ evil", "*\\ evil", "**//", '"' * 3 + "\nimport os\n#", '"' * 7, "a\u2028b\r\nc\x85d"],
)
def test_no_name_ends_the_comment_that_it_stands_in(name: str) -> None:
    text = one_line(name)
    assert "*/" not in text
    assert '"""' not in f"{text}.".replace(" ", "")
    assert "\\" not in text
    assert len(text.splitlines()) == 1
