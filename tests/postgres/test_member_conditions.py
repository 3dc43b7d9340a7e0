"""`member_if`: the columns of a member row that decide whether it gives access."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, SettingsError
from notifier.relay.changes import REVOKE_ALL, Source
from notifier.relay.netting import net
from notifier.watches import Condition, Watch
from tests.databases import Connection, Database
from tests.unit.captured import change, row


def member(**conditions: Condition) -> Watch:
    return Watch(
        table="members", entity="Member", company="tenant", member="login", member_if=conditions
    )


@pytest.fixture
async def membership(database: Database) -> AsyncIterator[Membership]:
    query = Query(database.dsn, "test", pooled=False, read_only=True)
    yield Membership(query, "employees", None)
    query.close()


async def allows(membership: Membership, user: str) -> bool:
    return await membership.may_see(Identity(user, 1e12, None), "7")


CONDITIONS: list[tuple[str, Condition, list[str], list[str]]] = [
    ("boolean", True, ["true"], ["false", "NULL"]),
    ("boolean", False, ["false", "NULL"], ["true"]),
    ("flag", True, ["true"], ["false", "NULL"]),
    ("timestamptz", True, ["now()"], ["NULL"]),
    ("timestamptz", False, ["NULL"], ["now()", "'infinity'"]),
    ("int", True, ["0", "1"], ["NULL"]),
    ("int", 2, ["2"], ["1", "20", "NULL"]),
    ("text", "it's \\ {a}", [r"'it''s \ {a}'"], ["'its'", "''", "NULL"]),
    ("mood", "good", ["'good'"], ["'bad'", "NULL"]),
    ("mood", False, ["NULL"], ["'good'"]),
]


@pytest.mark.parametrize(("kind", "wanted", "passing", "failing"), CONDITIONS)
async def test_row_1_6_only_rows_that_are_as_demanded_give_access(
    database: Database,
    membership: Membership,
    kind: str,
    wanted: Condition,
    passing: list[str],
    failing: list[str],
) -> None:
    """By the query and by the images of the rows alike."""
    await database.execute(
        "CREATE DOMAIN flag AS boolean; CREATE TYPE mood AS ENUM ('bad', 'good');"
        f"CREATE TABLE members (id int PRIMARY KEY, tenant int, login text, state {kind})"
    )
    watch = member(state=wanted)
    await migrate(database.dsn, watches=[watch])
    assert await database.fetchval("SELECT count(*) FROM notifier.watch_problems()") == 0
    values = [*passing, *failing]
    for number, value in enumerate(values):
        await database.execute(f"INSERT INTO members VALUES ({number}, 7, 'u{number}', {value})")
    answers = [await allows(membership, f"u{number}") for number in range(len(values))]
    expected = [True] * len(passing) + [False] * len(failing)
    assert answers == expected
    images = [
        each[0]
        for each in await database.fetch("SELECT row_to_json(m) FROM members AS m ORDER BY id")
    ]
    for image, has_access in zip(images, expected, strict=True):
        (deletion,), _ = net(
            [change(1, image.encode(), None, entity="Member")], {"Member": Source(watch)}, 10
        )
        assert bool(deletion.revokes) is has_access


async def test_several_conditions_hold_together_and_any_member_table_is_enough(
    database: Database, membership: Membership, app: Connection
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, tenant int, login text, accepted boolean, gone timestamp);"
        "CREATE TABLE owners (id int PRIMARY KEY, tenant int, login text);"
        "INSERT INTO members VALUES (1, 7, 'both', true, NULL), (2, 7, 'one', true, now()),"
        " (3, 7, 'none', false, now()), (4, 7, 'owner', false, NULL);"
        "INSERT INTO owners VALUES (1, 7, 'owner')"
    )
    owners = Watch(table="owners", entity="Owner", company="tenant", member="login")
    role = await app.fetchval("SELECT current_user")
    watches = [member(accepted=True, gone=False), owners]
    await migrate(database.dsn, watches=watches, grant=role)
    for column in ("accepted", "gone"):
        held = "SELECT has_column_privilege($1, 'members', $2, 'SELECT')"
        assert await database.fetchval(held, role, column)
    found = [await allows(membership, user) for user in ("both", "one", "none", "owner")]
    assert found == [True, False, False, True]
    await database.execute("ALTER TABLE members RENAME gone TO hidden")
    with pytest.raises(DatabaseError, match=r"members or its column .* is gone or was renamed"):
        await allows(membership, "both")
    problems = await database.fetch("SELECT object FROM notifier.watch_problems() WHERE fatal")
    assert [each["object"] for each in problems] == ["public.members.gone"]


def test_a_condition_that_ends_revokes_and_one_that_begins_does_not() -> None:
    sources = {"Member": Source(member(accepted=True))}
    invited = row(tenant=7, login="u", accepted=False)
    accepted = row(tenant=7, login="u", accepted=True)
    (draft,), _ = net([change(1, accepted, invited, entity="Member")], sources, 10)
    assert draft.revokes == ("u",)
    (draft,), _ = net([change(1, invited, accepted, entity="Member")], sources, 10)
    assert draft.revokes == ()
    renamed = row(tenant=7, login="u", ok=True)
    (draft,), _ = net([change(1, renamed, renamed | {"x": 1}, entity="Member")], sources, 10)
    assert draft.revokes == REVOKE_ALL


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"member": None}, "member_if without member"),
        ({"exclude": ("accepted",)}, "exclude names accepted, which is needed"),
    ],
)
def test_conditions_that_could_not_work_are_refused(options: dict[str, Any], text: str) -> None:
    watch = member(accepted=True)
    with pytest.raises(ValueError, match=text):
        replace(watch, **options)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("acepted", "no column acepted; did you mean accepted"),
        ("notes", "member_if names notes, which holds JSON"),
    ],
)
async def test_columns_that_could_not_decide_are_refused(
    database: Database, column: str, text: str
) -> None:
    await database.execute(
        "CREATE TABLE members (id int PRIMARY KEY, tenant int, login text, accepted boolean, notes jsonb)"
    )
    with pytest.raises(SettingsError, match=text):
        await migrate(database.dsn, watches=[member(**{column: True})])
