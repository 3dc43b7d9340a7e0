"""The state of a company whose rows are found along foreign keys: what is read, as which role, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from notifier.check.links import check
from notifier.database import sql
from notifier.database.schema import migrate, uninstall
from notifier.delivery.filter import Filter
from notifier.errors import StateUnavailable
from notifier.settings import load
from notifier.state.reader import StateReader
from notifier.state.tables import tables, tables_query
from notifier.watches import Scope, Watch
from tests.databases import Database
from tests.postgres.states import rows_of, url_of

TABLES = """
CREATE DOMAIN number AS bigint;
CREATE TYPE status AS ENUM ('open', 'closed');
CREATE TABLE teams (id int PRIMARY KEY, "orgId" number, secret text);
CREATE TABLE projects (id bigint PRIMARY KEY, team int REFERENCES teams ON DELETE CASCADE, owner int, secret text);
CREATE TABLE tasks (
    id int PRIMARY KEY, project int REFERENCES projects ON DELETE CASCADE, status status, due_at timestamptz,
    readers text[], secret text, deleted_at timestamptz
);
INSERT INTO teams VALUES (1, 7, 'x'), (2, 8, 'x'), (3, NULL, 'x');
INSERT INTO projects VALUES (1, 1, 20, 'x'), (2, 2, 21, 'x'), (3, 3, 7, 'x'), (4, NULL, NULL, 'x');
INSERT INTO tasks VALUES
    (1, 1, 'open', '2999-01-01 00:00+00', NULL, 'x', NULL), (2, 1, 'closed', '2999-01-01 00:00+00', '{ada}', 'x', NULL),
    (3, 1, 'open', '2000-01-01', NULL, 'x', NULL), (4, 1, 'open', '2999-01-01 00:00+00', NULL, 'x', now()),
    (5, 2, 'open', '2999-01-01 00:00+00', NULL, 'x', NULL), (6, 3, 'open', '2999-01-01 00:00+00', NULL, 'x', NULL),
    (7, 4, 'open', '2999-01-01 00:00+00', NULL, 'x', NULL), (8, NULL, 'open', '2999-01-01 00:00+00', NULL, 'x', NULL)
"""
OPTIONS: dict[str, Any] = {
    "exclude": ("secret",),
    "deleted_if": "deleted_at",
    "state_where": "due_at > '2026-01-01' AND id > 0",
    "visible_to": ("readers",),
    "rename": {"due_at": "deadline"},
    "case": "camel",
}
ORG = Watch(
    table="tasks",
    entity="Task",
    company='project -> projects.team -> teams."orgId"',
    scope="org",
    **OPTIONS,
)
OWNER = Watch(
    table="tasks", entity="Task", company="project -> projects.owner", scope="owner", **OPTIONS
)
NOTES = Watch(table="notes", entity="Note", company="org", scope="org")
SCOPES = [Scope(name=name, membership="SELECT true WHERE $1 <> $2") for name in ("org", "owner")]


@pytest.fixture
async def role(empty: Database) -> AsyncIterator[str]:
    """A role without rights, which may log in."""
    name = f"role_{uuid4().hex[:8]}"
    await empty.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'app'; {TABLES}")
    await empty.execute("CREATE TABLE notes (id int PRIMARY KEY, org int)")
    await empty.execute("INSERT INTO notes VALUES (1, 7)")
    yield name
    await empty.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def rows(
    database: Database, role: str, company: str, *, user: str = "u", only: str | None = None
) -> dict[str, Any]:
    """What the role reads of a company for a user: all of it, or the rows of an entity."""
    states = StateReader(url_of(database, role), pooled=False, max_rows=100)
    wanted = None if only is None else Filter(frozenset({only}))
    return await rows_of(states, company, wanted, user)


async def ids(database: Database, role: str, company: str, user: str = "u") -> list[int]:
    found = await rows(database, role, company, user=user)
    return sorted(row["taskId"] for row in found.get("Task", ()))


async def test_every_option_of_a_watch_applies_to_rows_along_a_path(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=[ORG, OWNER, NOTES], scopes=SCOPES, grant=role, state=True)
    assert await rows(empty, role, "org:7") == {
        "Task": [
            {
                "companyId": "org:7",
                "taskId": 1,
                "project": 1,
                "status": "open",
                "deadline": "2999-01-01T00:00:00+00:00",
                "readers": None,
                "deletedAt": None,
            }
        ],
        "Note": [{"CompanyId": "org:7", "NoteId": 1, "Org": 7}],
    }
    assert await ids(empty, role, "org:7", "ada") == [1, 2]
    assert await ids(empty, role, "org:8") == [5]
    assert await ids(empty, role, "owner:20") == [1]
    assert await ids(empty, role, "owner:7") == [6]
    for other in ("7", "org:07", "org:", "team:7", "org:null", "owner:1"):
        assert await ids(empty, role, other) == [], other


async def test_the_role_may_read_the_columns_of_the_path_and_nothing_else_of_its_tables(
    empty: Database, role: str
) -> None:
    async def held() -> set[str]:
        return {
            f"{table}.{column}"
            for table, column in await empty.fetch(
                """
                SELECT c.relname::text, a.attname::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                WHERE c.relname IN ('teams', 'projects', 'tasks') AND a.attnum > 0
                  AND has_column_privilege($1, c.oid, a.attnum, 'SELECT')
                """,
                role,
            )
        }

    await migrate(empty.dsn, watches=[ORG], scopes=SCOPES, grant=role)
    assert await held() == set()
    with pytest.raises(StateUnavailable, match="--state"):
        await rows(empty, role, "org:7")
    await migrate(empty.dsn, watches=[ORG], scopes=SCOPES, grant=role, state=True)
    shown = ("id", "project", "status", "due_at", "readers", "deleted_at")
    assert await held() == {
        *(f"tasks.{column}" for column in shown),
        *("projects.id", "projects.team", "teams.id", "teams.orgId"),
    }
    await uninstall(empty.dsn)
    assert await held() == set()


async def test_a_path_that_cannot_be_followed_keeps_the_state_from_its_own_scope_and_entity_alone(
    empty: Database, role: str
) -> None:
    await migrate(empty.dsn, watches=[ORG, OWNER, NOTES], scopes=SCOPES, grant=role, state=True)
    for broken, mended, problem in (
        ("ALTER TABLE teams RENAME TO gone", "ALTER TABLE gone RENAME TO teams", "path, is gone"),
        (
            "ALTER TABLE teams RENAME id TO no",
            "ALTER TABLE teams RENAME no TO id",
            "path, is gone",
        ),
        (
            "ALTER TABLE teams ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE teams DISABLE ROW LEVEL SECURITY",
            "row-level security",
        ),
        (
            f"ALTER TABLE teams RENAME TO old; CREATE VIEW teams AS SELECT * FROM old; GRANT SELECT ON teams TO {role}",
            "DROP VIEW teams; ALTER TABLE old RENAME TO teams",
            "path, is gone",
        ),
    ):
        await empty.execute(broken)
        with pytest.raises(StateUnavailable, match=problem):
            await rows(empty, role, "org:7")
        assert (await rows(empty, role, "org:7", only="Note")).keys() == {"Note"}
        assert await ids(empty, role, "owner:20") == [1]
        await empty.execute(mended)
        assert await ids(empty, role, "org:7") == [1]


async def test_a_company_with_few_rows_is_read_by_the_indexes_of_its_path(
    empty: Database, role: str
) -> None:
    """From the company down; `check` names the tables that have no index for it."""
    await migrate(empty.dsn, watches=[ORG], scopes=SCOPES, grant=role, state=True)

    async def unindexed() -> list[str]:
        settings = load({}, database_url=url_of(empty, role), watch=[ORG], scope=SCOPES, state="on")
        found = [finding.fact for finding in await check(settings) if "no index" in finding.fact]
        return [fact.partition("no index of ")[2].partition(", by")[0] for fact in found]

    assert await unindexed() == [
        "public.projects begins with team",
        "public.tasks begins with project",
        'public.teams begins with "orgId"',
    ]
    await empty.execute(
        """
        CREATE INDEX ON teams ("orgId"); CREATE INDEX ON projects (team); CREATE INDEX ON tasks (project);
        INSERT INTO teams SELECT n, 1000 + n FROM generate_series(10, 2000) AS n;
        INSERT INTO projects SELECT n, n FROM generate_series(10, 2000) AS n;
        INSERT INTO tasks (id, project) SELECT n, 10 + n % 1990 FROM generate_series(10, 20000) AS n;
        """
    )
    await empty.execute("ANALYZE teams, projects, tasks")
    assert await unindexed() == []
    watches = await empty.fetch(sql.query("watches"))
    rows_of_tables = await empty.fetch(tables_query())
    (table,) = tables([*map(dict, watches)], [*map(dict, rows_of_tables)], "org:7")
    plan = await empty.fetch(f"EXPLAIN {table.statement}", *table.arguments("org:7"))
    assert not [line for (line,) in plan if "Seq Scan" in line], plan
