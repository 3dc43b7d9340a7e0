"""What state reads, as which role, and what it leaves out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4
from weakref import ref

import msgspec
import pytest

from notifier.check.links import check
from notifier.database.connections import connect
from notifier.database.schema import migrate, uninstall
from notifier.delivery.filter import Change, Filter
from notifier.errors import SettingsError, StateTooLarge, StateUnavailable
from notifier.settings import load
from notifier.state import reader, tables
from notifier.state import rows as state_rows
from notifier.state.reader import StateReader
from notifier.watches import Scope, Watch
from tests.databases import Database
from tests.postgres.states import rows_of, url_of
from tests.waiting import until

TABLES = """
CREATE DOMAIN short AS text CHECK (length(value) < 100);
CREATE TABLE teams (id int PRIMARY KEY, name short);
CREATE TABLE notes (
    id bigint PRIMARY KEY, team_id int REFERENCES teams, body short, extra jsonb, size numeric,
    secret text, deleted_at timestamptz, tags short[], made timestamptz DEFAULT '2026-11-22 18:00+00'
);
INSERT INTO teams VALUES (1, 'one'), (2, 'two');
INSERT INTO notes VALUES
    (9007199254740993, 1, 'a', '{"b": 12345678901234567890}', 1.50, 'hidden', NULL, '{x,y}'),
    (2, 1, 'gone', NULL, NULL, 'hidden', now(), NULL),
    (3, 2, 'other', NULL, NULL, 'hidden', NULL, NULL)
"""
WATCHES = [
    Watch(table="teams", entity="Team", company="id", member="id"),
    Watch(
        table="notes",
        entity="Note",
        company="team_id",
        exclude=("secret",),
        deleted_if="deleted_at",
    ),
]


@pytest.fixture
async def role(empty: Database) -> AsyncIterator[str]:
    """A role without rights, which may log in."""
    name = f"role_{uuid4().hex[:8]}"
    await empty.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'; {TABLES}")
    await empty.execute(f"ALTER ROLE {name} SET timezone = 'America/New_York'")
    yield name
    await empty.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def rows(
    database: Database,
    role: str,
    company: str,
    limit: int = 100,
    user: str = "u",
    wanted: Filter | None = None,
) -> dict[str, Any]:
    """What the role reads of a company for a user."""
    # Its session has the role's settings.
    states = StateReader(url_of(database, role), pooled=True, max_rows=limit)
    return await rows_of(states, company, wanted, user)


async def test_the_rows_are_those_of_messages_and_an_excluded_column_needs_no_right(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role)
    with pytest.raises(StateUnavailable, match="--state"):
        await rows(empty, role, "1")
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    may = "SELECT has_column_privilege($1, 'notes', $2, 'SELECT')"
    assert await empty.fetchval(may, role, "body") is True
    assert await empty.fetchval(may, role, "secret") is False
    assert await rows(empty, role, "1") == {
        "Team": [{"CompanyId": 1, "TeamId": 1, "Name": "one"}],
        "Note": [
            {
                "NoteId": "9007199254740993",
                "CompanyId": 1,
                "Body": "a",
                "Extra": {"b": 12345678901234567890},
                "Size": 1.50,
                "DeletedAt": None,
                "Tags": ["x", "y"],
                "Made": "2026-11-22T18:00:00+00:00",
            }
        ],
    }
    assert await rows(empty, role, "01") == {}
    assert await rows(empty, role, "unknown") == {}
    with pytest.raises(StateTooLarge):
        await rows(empty, role, "1", limit=1)
    await uninstall(empty.dsn)
    assert await empty.fetchval(may, role, "body") is False


async def test_each_user_gets_the_rows_that_name_it_or_no_user_and_scopes_are_kept_apart(
    empty: Database, role: str
) -> None:
    await empty.execute(
        "CREATE TABLE drafts (id int PRIMARY KEY, team_id int, owner text, readers text[]);"
        "INSERT INTO drafts VALUES (1, 1, 'ada', NULL), (2, 1, NULL, '{bob,ada}'), (3, 1, '', '{}')"
    )
    drafts = Watch(
        table="drafts",
        entity="Draft",
        company="team_id",
        visible_to=("owner", "readers"),
        scope="team",
    )
    await migrate(
        empty.dsn,
        watches=[*WATCHES, drafts],
        scopes=[Scope(name="team", membership="SELECT true WHERE $1 = $2")],
        grant=role,
        state=True,
    )
    for user, expected in {"ada": [1, 2, 3], "bob": [2, 3], "eve": [3]}.items():
        found = await rows(empty, role, "team:1", user=user)
        assert found.keys() == {"Draft"}
        assert [row["DraftId"] for row in found["Draft"]] == expected
        assert {row["CompanyId"] for row in found["Draft"]} == {"team:1"}
    assert (await rows(empty, role, "1")).keys() == {"Team", "Note"}


async def test_a_text_that_looks_like_the_id_of_a_scope_is_not_in_its_state(
    empty: Database, role: str
) -> None:
    await empty.execute(
        "CREATE TABLE texts (id int PRIMARY KEY, company_id text);"
        "INSERT INTO texts VALUES (1, 'team:1'), (2, 'empty:1'), (3, 'else:1')"
    )
    watches = [
        *(replace(watch, scope="team") for watch in WATCHES),
        Watch(table="texts", entity="Text"),
    ]
    scopes = [Scope(name="team"), Scope(name="empty", membership="SELECT $1 <> $2")]
    await migrate(empty.dsn, watches=watches, scopes=scopes, grant=role, state=True)
    assert (await rows(empty, role, "team:1")).keys() == {"Team", "Note"}
    assert await rows(empty, role, "empty:1") == {}
    assert (await rows(empty, role, "else:1")).keys() == {"Text"}


async def test_rows_that_are_hidden_from_the_role_make_state_unavailable(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    await empty.execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    with pytest.raises(StateUnavailable, match="row-level security"):
        await rows(empty, role, "1")


async def test_check_names_the_tables_whose_rows_cannot_be_read(empty: Database, role: str) -> None:
    url = url_of(empty, role)

    async def found(**settings: Any) -> set[tuple[bool | None, str]]:
        findings = await check(load({}, database_url=url, watch=WATCHES, **settings))
        return {(each.sound, each.fact) for each in findings if "STATE" in each.fact}

    unreadable = f"NOTIFIER_STATE=on, but role {role} may not read the rows of "
    no_index = (
        "NOTIFIER_STATE=on, but no index of public.notes begins with team_id, by which a company's rows are"
        " found: each state reads the whole table"
    )
    sound = "NOTIFIER_STATE=on: the rows of every watched table can be read"
    hidden = (
        "NOTIFIER_STATE=on, but row-level security hides rows of public.notes from role " + role
    )
    await migrate(empty.dsn, watches=WATCHES, grant=role)
    assert await found() == set()
    assert await found(state="on") == {
        (False, unreadable + "public.teams"),
        (False, unreadable + "public.notes"),
    }
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    assert await found(state="on") == {(None, no_index), (True, sound)}
    await empty.execute("CREATE INDEX ON notes (team_id)")
    assert await found(state="on") == {(True, sound)}
    await empty.execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    assert await found(state="on") == {(False, hidden)}


async def test_an_excluded_column_that_was_renamed_makes_state_unavailable(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    await empty.execute("ALTER TABLE notes RENAME secret TO renamed")
    with pytest.raises(StateUnavailable, match="notes"):
        await rows(empty, role, "1")


async def test_more_bytes_than_the_bound_are_too_large(
    empty: Database, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    with monkeypatch.context() as bounded:
        bounded.setattr(reader, "STATE_BYTES", 50)
        with pytest.raises(StateTooLarge, match="bytes"):
            await states.read("1", None, "u")
    (connection,) = states._idle
    assert (await states.read("1", None, "u")).pages
    assert states._idle == [connection]  # a refusal does not cost it
    states.close()


async def test_state_is_granted_to_a_role(empty: Database) -> None:
    with pytest.raises(SettingsError, match="--grant"):
        await migrate(empty.dsn, calendar=True, state=True)


async def test_companies_are_read_beside_one_another_and_equal_requests_share_a_reading(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    writer = await empty.connect()
    holds = writer.transaction()
    await holds.start()
    await writer.execute("LOCK TABLE notifier.changes_0")  # no snapshot is taken before it ends
    reading = [asyncio.create_task(states.read("1", None, "u"))]
    reading += [asyncio.create_task(states.read("2", None, "u"))]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'notifier state' AND wait_event_type = 'Lock'"
    )

    async def both_wait() -> bool:
        return bool(await empty.fetchval(waiting) == len(reading))

    await until(both_wait)
    later = [asyncio.create_task(states.read("1", None, f"user {n}")) for n in range(50)]
    await asyncio.sleep(0)
    await holds.commit()
    first, other = await asyncio.gather(*reading)
    shared = await asyncio.gather(*later)
    assert b'"one"' in b"".join(first.pages)
    assert b'"two"' in b"".join(other.pages)
    assert states.reads == 3
    assert {id(state.pages) for state in shared} == {id(shared[0].pages)}
    assert first.pages is not shared[0].pages
    states.close()


@pytest.mark.parametrize("pooled", [False, True])
async def test_while_rows_are_read_the_relay_may_empty_the_tables_of_changes(
    pooled: bool, empty: Database, role: str
) -> None:
    """Else clients that request states without a pause fill the log."""
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    states = StateReader(url_of(empty, role), pooled=pooled, max_rows=100)
    writer, relay = await empty.connect(), await empty.connect()
    await writer.execute("BEGIN; LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
    reading = asyncio.create_task(states.read("1", None, "u"))
    await empty.blocked()
    emptied = "SELECT notifier.truncate_changes($1, pg_current_snapshot()::text, 0)"
    assert [await relay.fetchval(emptied, which) for which in (0, 1)] == [True, True]
    await writer.execute("COMMIT")
    state = await reading
    assert b'"2026-11-22T18:00:00+00:00"' in b"".join(state.pages), "the role has another time zone"
    states.close()


async def test_a_connection_that_died_while_it_was_idle_costs_no_state(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    states = StateReader(empty.dsn, pooled=False, max_rows=100)
    await states.read("1", None, "u")
    await empty.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'notifier state'"
    )
    assert (await states.read("1", None, "u")).pages
    states.close()


FILTER = Filter.parse(["Note"], {"Note": {"Body": ["b"]}}, {"Note": frozenset({"Body"})})


async def test_the_limit_counts_the_rows_that_pass_the_values_of_a_filter(
    empty: Database, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty.execute(
        "INSERT INTO notes (id, team_id, body) SELECT n, 1, CASE WHEN n % 100 = 0 THEN 'b' ELSE 'c' END"
        " FROM generate_series(100, 399) AS n"
    )
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    found = await rows(empty, role, "1", limit=3, wanted=FILTER)
    assert sorted(row["NoteId"] for row in found["Note"]) == [100, 200, 300]
    with pytest.raises(StateTooLarge, match=r"more than 2 rows$"):
        await rows(empty, role, "1", limit=2, wanted=FILTER)
    with pytest.raises(StateTooLarge, match=r"more than 200 rows$"):
        await rows(empty, role, "1", limit=200)
    monkeypatch.setattr(reader, "SEARCHED_ROWS", 300)
    with pytest.raises(StateTooLarge, match="more than 300 rows to search"):
        await rows(empty, role, "1", limit=3, wanted=FILTER)
    assert len((await rows(empty, role, "1", limit=301, wanted=FILTER))["Note"]) == 3
    monkeypatch.setattr(reader, "STATE_BYTES", 10_000)
    with pytest.raises(StateTooLarge, match="bytes"):
        await rows(empty, role, "1", limit=301, wanted=FILTER)


DRAFTS = """
CREATE TABLE drafts (id int PRIMARY KEY, team_id int, owner text, body text);
INSERT INTO drafts SELECT n, 1, 'ada', 'hers' FROM generate_series(1, 20) AS n;
INSERT INTO drafts VALUES (21, 1, 'eve', 'own'), (22, 1, NULL, 'own')
"""


async def test_no_filter_by_values_reveals_what_rows_hold_that_the_user_does_not_see(
    empty: Database, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by `state_too_large` nor by the time that comparing takes."""
    drafts = Watch(table="drafts", entity="Draft", company="team_id", visible_to=("owner",))
    await empty.execute(DRAFTS)
    await migrate(empty.dsn, watches=[*WATCHES, drafts], grant=role, state=True)
    compared: list[str] = []
    passes = Filter.passes

    def comparing(self: Filter, change: Change) -> bool:
        compared.append(repr(change.rows[0].get("DraftId")))
        return passes(self, change)

    monkeypatch.setattr(Filter, "passes", comparing)

    async def read(user: str, *values: str, limit: int = 2) -> list[int]:
        known = {"Draft": frozenset({"Body"})}
        wanted = Filter.parse(["Draft"], {"Draft": {"Body": [*values]}}, known)
        found = await rows(empty, role, "1", limit=limit, user=user, wanted=wanted)
        return [row["DraftId"] for row in found.get("Draft", ())]

    assert await read("eve", "hers") == await read("eve", "nothing") == []
    assert await read("eve", "hers", "own") == [21, 22]
    assert sorted(compared) == ["21", "21", "21", "22", "22", "22"]
    with pytest.raises(StateTooLarge, match="more than 1 rows"):
        await read("eve", "own", limit=1)
    with pytest.raises(StateTooLarge, match="more than 19 rows"):
        await read("ada", "hers", limit=19)
    assert len(await read("ada", "hers", limit=20)) == 20
    with pytest.raises(StateTooLarge, match="more than 21 rows"):  # of all users
        await rows(empty, role, "1", limit=21, user="eve")


async def test_the_rows_of_a_refused_state_are_gone_though_no_garbage_is_collected(
    empty: Database, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task keeps its error, the error its frames, and one of these the task: a cycle, which had the rows."""
    made: list[ref[Amount]] = []

    class Amount(reader._Amount):
        """A local variable beside the rows."""

        def __init__(self, limit: int, held: int = 0) -> None:
            super().__init__(limit, held)
            made.append(ref(self))

    monkeypatch.setattr(reader, "_Amount", Amount)
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    gc.disable()
    try:
        with pytest.raises(StateTooLarge):
            await rows(empty, role, "1", limit=1)
        assert [each() for each in made] == [None]
    finally:
        gc.enable()


MARKS = {
    "timestamptz": ("NULL", "'-infinity'"),
    "boolean": ("NULL", "false", "true"),
    "maybe": ("NULL", "false", "true"),
    "text": ("NULL", "''", "'false'"),
    "level": ("NULL", "'false'"),
    "int[]": ("NULL", "'{}'"),
    "pair": ("NULL", "row(NULL, NULL)", "row(1, 2)"),
}
"""Values of a column of each type, some of which mark a row as deleted."""


@pytest.mark.parametrize("kind", MARKS)
async def test_softly_deleted_rows_are_not_read_and_others_are_whatever_type_the_mark_has(
    empty: Database, role: str, kind: str
) -> None:
    await empty.execute(
        "CREATE DOMAIN maybe AS boolean; CREATE TYPE level AS ENUM ('false'); CREATE TYPE pair AS (a int, b int);"
        f'CREATE TABLE docs (id serial PRIMARY KEY, team_id int, "Is gone" {kind})'
    )
    watch = Watch(table="docs", entity="Doc", company="team_id", deleted_if="Is gone")
    for value in MARKS[kind]:
        await empty.execute(f'INSERT INTO docs (team_id, "Is gone") VALUES (1, {value})')
    await migrate(empty.dsn, watches=[watch], grant=role, state=True)
    images = await empty.fetch("SELECT row_to_json(docs)::text FROM docs ORDER BY id")
    marks = [msgspec.json.decode(image)["Is gone"] for (image,) in images]
    expected = [number for number, mark in enumerate(marks, 1) if mark is None or mark is False]
    found = await rows(empty, role, "1", limit=len(expected))
    assert [row["DocId"] for row in found["Doc"]] == expected


async def test_softly_deleted_rows_do_not_count_toward_the_limit(
    empty: Database, role: str
) -> None:
    await empty.execute(
        "INSERT INTO notes (id, team_id, deleted_at) SELECT n, 1, now() FROM generate_series(10, 50) AS n"
    )
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    assert len((await rows(empty, role, "1", limit=2))["Note"]) == 1
    with pytest.raises(StateTooLarge):
        await rows(empty, role, "1", limit=1)


async def test_a_column_may_have_any_name(empty: Database, role: str) -> None:
    """Also one that our statements use themselves."""
    await empty.execute(
        'CREATE TABLE docs (id int PRIMARY KEY, team_id int, r int, t int, "{relation}" int, "%s" int);'
        "INSERT INTO docs VALUES (1, 1, 2, 3, 4, 5)"
    )
    watch = Watch(table="docs", entity="Doc", company="team_id")
    await migrate(empty.dsn, watches=[watch], grant=role, state=True)
    (row,) = (await rows(empty, role, "1", limit=1))["Doc"]
    assert row == {"DocId": 1, "CompanyId": 1, "R": 2, "T": 3, "{relation}": 4, "%s": 5}


async def test_no_statement_of_a_state_stays_in_a_session_that_a_pooler_shares(
    database: Database,
) -> None:
    """Nodes name statements alike: another one would find the name taken."""
    connection = await connect(database.dsn, "state", pooled=True)
    prepared = "SELECT count(*)::text FROM pg_catalog.pg_prepared_statements"
    async with connection.transaction():
        parts = [part async for part in state_rows.images(connection, prepared, [])]
    connection.terminate()
    assert parts == [[b"0"]]


async def test_of_large_rows_no_more_is_read_than_a_state_may_have(
    empty: Database, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty.execute(
        "INSERT INTO teams VALUES (3, 'three'); INSERT INTO notes (id, team_id, extra)"
        " SELECT n + 10, 3, to_jsonb(repeat('x', 1000)) FROM generate_series(1, 100) AS n"
    )
    await migrate(empty.dsn, watches=WATCHES, grant=role, state=True)
    found: list[int] = []
    monkeypatch.setattr(tables, "STATE_BYTES", 10_000)
    monkeypatch.setattr(
        reader._Amount, "read", lambda _, images: found.append(sum(map(len, images)))
    )
    with pytest.raises(StateTooLarge, match="bytes"):
        await rows(empty, role, "3")
    assert sum(found) < 10_000
