"""Which names are patterns, and which schemas match."""

from __future__ import annotations

import pytest

from notifier.patterns import Only, Pattern, quoted


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("person", None),
        ("workspace.person", None),
        ('"a*b"', None),
        ('crm."a*b"', None),
        ("Workspace_*.Person", Pattern("workspace_*", "person")),
        ('"Work*" . "Per.son"', Pattern("Work*", "Per.son")),
        ('"a.""*".person', Pattern('a."*', "person")),
        ("*.person", Pattern("*", "person")),
    ],
)
def test_the_schema_of_a_pattern_has_an_asterisk(name: str, pattern: Pattern | None) -> None:
    assert Pattern.parse(name) == pattern


@pytest.mark.parametrize("name", ["per*", "a.per*", "*", "a.b*.c", 'x*."y" z', "*person"])
def test_an_asterisk_anywhere_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can stand for a part of a schema"):
        Pattern.parse(name)


@pytest.mark.parametrize(
    ("schema", "pattern", "expected"),
    [
        ("workspace_1", "workspace_*", True),
        ("workspace_", "workspace_*", True),
        ("workspaceX1", "workspace_*", False),
        ("Workspace_1", "workspace_*", False),
        ("a_workspace_1", "workspace_*", False),
        ("a.b", "a.*", True),
        ("axb", "a.*", False),
        ("a_b_c", "a_*_c", True),
        ("line\nbreak", "line*", True),
        ("100%", "*%", True),
    ],
)
def test_all_other_characters_match_themselves(schema: str, pattern: str, expected: bool) -> None:
    assert Pattern(pattern, "t").matches(schema) is expected


def test_a_restriction_has_asterisks_in_both_names() -> None:
    only = Only.parse('"Work 1".*')
    assert only.names("Work 1", "anything")
    assert not only.names("work 1", "anything")
    assert Only.parse("work_*.per*").names("work_1", "person")
    for text in ("work", "", "a.b.c", "a."):
        with pytest.raises(ValueError, match="name a schema and its tables"):
            Only.parse(text)


def test_names_are_quoted_where_sql_needs_it() -> None:
    assert [quoted(name) for name in ("a_1", "A", 'a"b', "1a")] == ["a_1", '"A"', '"a""b"', '"1a"']
