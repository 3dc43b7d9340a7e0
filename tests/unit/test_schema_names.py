"""NOTIFIER_SCHEMA: our texts name another schema, and nothing else in them changes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.database import functions, sql
from notifier.errors import SettingsError
from notifier.nats.subjects import subject_prefix
from notifier.schema_names import DEFAULT
from notifier.settings import load

WORD = re.compile(r".{0,20}(?<!--)\bnotifier(?:_\w+)?\b.{0,20}")


@pytest.fixture
def billing() -> Iterator[None]:
    sql.use_schema("billing")
    yield
    sql.use_schema(DEFAULT)


def texts() -> Iterator[str]:
    for kind in ("tables", "functions", "views", "queries"):
        for name in sql.names(kind):
            lines = getattr(
                sql, kind.removesuffix("s") if kind != "queries" else "query", sql.tables
            )(name).splitlines()
            yield "\n".join(line.partition("--")[0] for line in lines)


def test_every_file_names_the_other_schema(billing: None) -> None:
    found = {match[0].strip() for text in texts() for match in WORD.finditer(text)}
    left = {each for each in found if not re.search(r"notifier\.(actor|traceparent)", each)}
    assert {re.sub(r".*?(notifier\S*).*", r"\1", each) for each in left} <= {
        "notifier/billing",
        *(f"'notifier_billing_{name}'," for name in ("changes", "messages")),
        *(
            f"notifier_billing_{name}{end}"
            for name in (
                *("changes", "messages", "capture", "capture_truncate"),
                *("path", "path_delete", "path_truncate", "replaced"),
            )
            for end in ("'", "',")
        ),
    }
    assert {each.name for each in functions.this_version()} >= {"capture", "elect"}


STATEMENT = re.compile(
    r"(?:\b(?:FROM|JOIN|INTO|UPDATE|TABLE|FUNCTION|SELECT|SCHEMA|ONLY|LOCK|TRUNCATE|VIEW|SEQUENCE|ON)\s+|')notifier\b"
    r"(?!\.(?:actor|traceparent))"
)


def test_every_statement_in_python_is_adapted() -> None:
    left = []
    for path in Path(sql.__file__).parents[1].rglob("*.py"):
        tree = ast.parse(path.read_text())
        adapted = {
            id(part)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "sql.adapt"
            for part in ast.walk(call)
        }
        left += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in adapted and STATEMENT.search(node.value)
        ]
    assert left == []


def test_the_default_schema_is_as_the_files_have_it() -> None:
    assert "notifier.watches" in sql.query("watches")
    assert sql.adapt("SELECT notifier.elect()") == "SELECT notifier.elect()"
    assert (sql.channel("messages"), sql.lock(7), sql.program()) == (
        "notifier_messages",
        7,
        "notifier",
    )


def test_names_that_belong_to_the_schema_differ_and_settings_do_not(billing: None) -> None:
    assert sql.adapt("SELECT notifier.elect(), 'notifier'::regnamespace, 'notifier_changes'") == (
        "SELECT billing.elect(), 'billing'::regnamespace, 'notifier_billing_changes'"
    )
    assert sql.adapt(
        "CREATE SCHEMA notifier; COMMENT ON SCHEMA notifier IS ''; DROP SCHEMA notifier"
    ) == ("CREATE SCHEMA billing; COMMENT ON SCHEMA billing IS ''; DROP SCHEMA billing")
    kept = "current_setting('notifier.actor'), 'notifier.traceparent', mynotifier.x, notifier_x.y"
    assert sql.adapt(kept) == kept
    assert sql.channel("changes") == "notifier_billing_changes"
    keys = {sql.lock(1), sql.lock(2)}
    assert len(keys - {1, 2}) == 2, "those of another schema"
    assert all(0 < key < 1 << 62 for key in keys)


def test_one_process_serves_one_schema(billing: None) -> None:
    with (
        sql.serving("billing"),
        pytest.raises(SettingsError, match="one process serves one schema"),
        sql.serving("other"),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    "name",
    [
        "Billing",
        "a-b",
        "a.b",
        '"a"',
        "1a",
        "",
        " ",
        "pg_x",
        "public",
        "user",
        "order",
        "x" * 41,
        "a;b",
    ],
)
def test_a_name_that_is_no_plain_identifier_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFIER_SCHEMA", name)
    if not name:
        assert load().schema == "notifier"
        return
    with pytest.raises(SettingsError, match="NOTIFIER_SCHEMA: must be a plain name"):
        load()


def test_subjects_of_nats_differ_by_schema() -> None:
    assert subject_prefix("notifier", DEFAULT) == "notifier"
    assert subject_prefix("notifier", "billing") == "notifier_billing"
