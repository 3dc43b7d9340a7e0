"""Scopes: kinds of companies whose ids never meet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, SettingsError
from notifier.settings import load
from notifier.watches import CALENDAR, Scope, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import MakeRelay, types
from tests.services import SECRET

SCHEMA = """
    CREATE TABLE teams (id int PRIMARY KEY, name text);
    CREATE TABLE team_members (id int PRIMARY KEY, team int, login text);
    CREATE TABLE leads (id int PRIMARY KEY, team int, login text);
    CREATE TABLE org_members (id int PRIMARY KEY, org uuid, login text);
    CREATE TABLE bookings (id int PRIMARY KEY, team int, owner int, title text);
    CREATE TABLE notes (id int PRIMARY KEY, company_id text);
    CREATE TABLE guests (id int PRIMARY KEY, company_id text, login text);
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC
"""
ORG = "aaaaaaaa-0000-4000-8000-00000000000a"
WATCHES = [
    Watch(table="teams", entity="Team", company="id", scope="team"),
    Watch(table="team_members", entity="TeamMember", company="team", member="login", scope="team"),
    Watch(table="leads", entity="Lead", company="team", member="login", scope="team"),
    Watch(table="org_members", entity="OrgMember", company="org", member="login", scope="org"),
    Watch(table="bookings", entity="Booking", company="team", scope="team"),
    Watch(table="bookings", entity="Booking", company="owner", scope="user"),
    Watch(table="notes", entity="Note"),
    Watch(table="guests", entity="Guest", member="login"),
]
SCOPES = [
    Scope(name="team"),
    Scope(name="org"),
    Scope(name="user", membership="SELECT $1::int = $2::int"),
]


@pytest.fixture
async def scoped(database: Database) -> Database:
    await database.execute(SCHEMA)
    await migrate(database.dsn, watches=[*CALENDAR, *WATCHES], scopes=SCOPES)
    return database


@pytest.fixture
async def membership(scoped: Database) -> AsyncIterator[Membership]:
    membership = Membership(
        Query(scoped.dsn, "test", pooled=False, read_only=True), "employees", None
    )
    yield membership
    membership.close()


async def allowed(membership: Membership, *pairs: tuple[str, str]) -> list[bool]:
    checks = [membership.may_see(Identity(user, 1e12, None), company) for company, user in pairs]
    return list(await asyncio.gather(*checks))


async def test_rows_and_queries_decide_on_the_companies_of_their_scope_alone(
    scoped: Database, membership: Membership
) -> None:
    await scoped.execute(
        "INSERT INTO team_members VALUES (1, 7, 'ada'); INSERT INTO leads VALUES (1, 8, 'ada');"
        f"INSERT INTO org_members VALUES (1, '{ORG}', 'ada'); INSERT INTO guests VALUES (1, 'team:9', 'ada'), (2, '7', 'bob')"
    )
    pairs = {
        ("team:7", "ada"): True,
        ("team:8", "ada"): True,  # another member table of the scope
        ("7", "ada"): False,
        ("7", "bob"): True,
        ("team:7", "bob"): False,
        ("user:7", "ada"): False,
        ("user:7", "7"): True,
        ("user:07", "7"): False,  # not in its canonical form
        ("user:7", "8"): False,
        ("team:07", "ada"): False,
        ("team: 7", "ada"): False,
        ("Team:7", "ada"): False,
        ("team:", "ada"): False,
        ("org:7", "ada"): False,
        (f"org:{ORG}", "ada"): True,
        (f"org:{ORG.upper()}", "ada"): False,  # sessions make ids canonical first
        ("team:9", "ada"): False,  # a text that looks like the id of a team
        ("other:7", "ada"): False,
        ("team:team:7", "ada"): False,
    }
    assert dict(zip(pairs, await allowed(membership, *pairs), strict=True)) == pairs
    assert not membership.conclusive


async def test_a_membership_query_decides_on_companies_without_a_scope(scoped: Database) -> None:
    await scoped.execute("INSERT INTO team_members VALUES (1, 7, 'ada')")
    link = Query(scoped.dsn, "test", pooled=False, read_only=True)
    membership = Membership(link, "employees", "SELECT $1 = '5' AND $2 = 'ada'")
    pairs = [("5", "ada"), ("7", "ada"), ("team:7", "ada"), ("team:5", "ada"), ("user:3", "3")]
    assert await allowed(membership, *pairs) == [True, False, True, False, True]
    membership.close()


async def test_a_scope_whose_query_fails_refuses_no_check_of_others(
    scoped: Database, membership: Membership
) -> None:
    """As after a change of a table that only this query reads."""
    reading = Scope(
        name="user", membership="SELECT login = $2 FROM public.leads WHERE id = $1::int"
    )
    await migrate(scoped.dsn, watches=[*CALENDAR, *WATCHES], scopes=[*SCOPES[:2], reading])
    await scoped.execute(
        "INSERT INTO team_members VALUES (1, 7, 'ada'); INSERT INTO leads VALUES (3, 8, 'ada')"
    )
    pairs = [("user:3", "ada"), ("team:7", "ada"), ("team:9", "ada")]
    assert await allowed(membership, *pairs) == [True, True, False]
    await scoped.execute("ALTER TABLE leads RENAME id TO number")
    with pytest.raises(DatabaseError):
        await allowed(membership, pairs[0])
    first, *others = await asyncio.gather(
        *(membership.may_see(Identity(user, 1e12, None), company) for company, user in pairs),
        return_exceptions=True,
    )
    assert isinstance(first, DatabaseError)
    assert others == [True, False]


async def test_case_f2_messages_go_to_the_channel_of_their_scope_and_name_it(
    scoped: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await app.execute("INSERT INTO teams VALUES (7, 'T')")
    await app.execute("INSERT INTO bookings VALUES (1, 7, 7, 'a')")
    await app.execute("INSERT INTO notes VALUES (1, 'team:7'), (2, '7'), (3, 'else:7')")
    await app.execute(f"INSERT INTO org_members VALUES (1, '{ORG}', 'ada')")
    await app.execute("INSERT INTO team_members VALUES (1, 7, 'ada')")
    await app.execute("DELETE FROM team_members")
    await app.execute("UPDATE teams SET name = repeat('x', 300000)")
    relay = make_relay()
    await relay.start()
    team = await relay.messages_of("team:7")
    assert types(team) == [
        "TeamCreated",
        "BookingCreated",
        "TeamMemberCreated",
        "TeamMemberDeleted",
        "TeamUpdated",
    ]
    assert team[0]["Data"] == {"CompanyId": "team:7", "TeamId": 7, "Name": "T"}
    assert team[1]["Data"] == {
        "CompanyId": "team:7",
        "BookingId": 1,
        "Team": 7,
        "Owner": 7,
        "Title": "a",
    }
    assert team[4]["Data"] == {"CompanyId": "team:7", "TeamId": 7}
    (own,) = await relay.messages_of("user:7")
    assert own["Data"] == {
        "CompanyId": "user:7",
        "BookingId": 1,
        "Team": 7,
        "Owner": 7,
        "Title": "a",
    }
    assert types(await relay.messages_of("7")) == ["NoteCreated"]
    assert types(await relay.messages_of("else:7")) == ["NoteCreated"]
    assert types(await relay.messages_of(f"org:{ORG}")) == ["OrgMemberCreated"]
    revoked = "SELECT company FROM notifier.messages WHERE revokes IS NOT NULL AND revokes::text LIKE '%ada%'"
    assert await scoped.fetchval(revoked) == "team:7"


async def test_two_scopes_may_have_entities_of_one_name_in_different_tables(
    database: Database, app: Connection, make_relay: MakeRelay
) -> None:
    await database.execute(SCHEMA)
    watches = [
        Watch(table="team_members", entity="Member", company="team", scope="team"),
        Watch(table="leads", entity="Member", company="team", scope="lead"),
    ]
    await migrate(database.dsn, watches=[*CALENDAR, *watches])
    relay = make_relay()
    await relay.start()
    async with app.transaction():
        await app.execute("INSERT INTO leads VALUES (1, 7, 'ada')")
        await app.execute("INSERT INTO team_members VALUES (1, 7, 'ada')")
        await app.execute("TRUNCATE leads")
    assert types(await relay.messages_of("team:7")) == ["MemberCreated", "Resync"]
    names = await database.fetch(
        "SELECT entity FROM notifier.watches WHERE scope IS NOT NULL ORDER BY 1"
    )
    assert [row["entity"] for row in names] == ["Member@lead", "Member@team"]


async def test_large_transactions_keep_scopes_apart(
    scoped: Database, app: Connection, make_relay: MakeRelay
) -> None:
    relay = make_relay(bulk_limit=100)
    await relay.start()
    async with app.transaction():
        await app.execute(
            "INSERT INTO bookings SELECT n, 1, n, '' FROM generate_series(1, 9000) AS n"
        )
        await app.execute("INSERT INTO notes SELECT n, 'user:2' FROM generate_series(1, 9000) AS n")
    assert types(await relay.messages_of("team:1")) == ["Resync"]
    assert types(await relay.messages_of("user:1")) == ["BookingCreated"]
    assert types(await relay.messages_of("user:2")) == ["BookingCreated"], "not of the notes"
    assert await relay.messages_of("1") == []


async def test_another_query_of_a_scope_is_used_at_once(
    scoped: Database, membership: Membership
) -> None:
    lines: list[str] = []
    assert await allowed(membership, ("user:1", "1"), ("user:1", "2")) == [True, False]
    scopes = [
        Scope(name="team"),
        Scope(name="org"),
        Scope(name="user", membership="SELECT $1 <> $2"),
    ]
    await migrate(scoped.dsn, watches=[*CALENDAR, *WATCHES], scopes=scopes, report=lines.append)
    assert lines == [
        "scope user: membership SELECT $1::int = $2::int → SELECT $1 <> $2: every company gets a Resync"
    ]
    assert await allowed(membership, ("user:1", "1"), ("user:1", "2")) == [False, True]


@pytest.mark.parametrize("membership_query", [None, "SELECT $1 = $2"])
@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("SELECT $1 = 'x'", "expects 1 argument"),
        ("SELECT nothing($1, $2)", "nothing"),
        ("INSERT INTO notes VALUES ($1::int, $2) RETURNING true", "read-only"),
    ],
)
async def test_a_query_that_cannot_work_names_its_scope(
    scoped: Database, membership_query: str | None, query: str, line: str
) -> None:
    watches = (*CALENDAR, *WATCHES)
    scopes = (*SCOPES[:2], Scope(name="user", membership=query))
    await migrate(scoped.dsn, watches=watches, scopes=scopes)
    link = Query(scoped.dsn, "test", pooled=False, read_only=True)
    membership = Membership(link, "employees", membership_query)
    with pytest.raises(DatabaseError, match=rf"the membership query of scope user: .*{line}"):
        await membership.require()
    membership.close()
    settings = load(
        {},
        database_url=scoped.dsn,
        jwt_secret=SECRET,
        watch=watches,
        scope=scopes,
        membership_query=membership_query,
    )
    lines = [finding.line for finding in await check(settings) if finding.sound is False]
    assert len(lines) == 1
    assert re.match(rf"the membership query of scope user: .*{line}", lines[0])


def test_a_scope_that_is_not_there_is_refused_and_a_near_miss_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, watch = Path("notifier.toml"), '[[watch]]\ntable = "t"\nentity = "T"\nscope = "taem"\n'
    file.write_text(watch)
    assert load().watch[0].scope == "taem", "scopes need no section of their own"
    file.write_text(f'[[scope]]\nname = "team"\n{watch}')
    with pytest.raises(SettingsError, match=r"no \[\[scope\]\] taem; did you mean team\?"):
        load()
    file.write_text('[[scope]]\nname = "a:b"\n')
    with pytest.raises(SettingsError, match=r"line 2: \[\[scope\]\] 1, name"):
        load()


async def test_a_column_that_would_hide_the_id_of_the_company_is_refused(
    database: Database,
) -> None:
    await database.execute(SCHEMA)
    with pytest.raises(
        SettingsError, match=r"would both be sent as CompanyId; add rename = \{ company_id"
    ):
        await migrate(database.dsn, watches=[Watch(table="notes", entity="Note", scope="team")])
