"""Access by rows: tables that change while a node runs, several tables, types that are not built in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from notifier.access.member_rows import MemberRowsQuery, tables_query
from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.check.links import check
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError
from notifier.settings import load
from notifier.watches import Watch
from tests.databases import Database

Allows = Callable[[str, str], Awaitable[bool]]
COMPANY = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
MEMBER = Watch(table="members", entity="Member", company="tenant", member="login")


@pytest.fixture
async def membership(query: Query) -> Membership:
    """One that lives as long as a node does."""
    return Membership(query, "employees", None)


@pytest.fixture
def allows(membership: Membership) -> Allows:
    async def allows(company: str, user: str) -> bool:
        return await membership.may_see(Identity(user, 1e12, None), company)

    return allows


async def watch(database: Database, tables: str, *watches: Watch) -> None:
    """Creates tables and watches them instead of the calendar."""
    await database.execute(tables)
    await migrate(database.dsn, watches=watches)


async def plan(database: Database, query: Query) -> str:
    """How PostgreSQL runs the check, with many rows and statistics."""
    compiled = MemberRowsQuery.compile([dict(row) for row in await query.fetch(tables_query())])
    await database.execute("ANALYZE members")
    explain = f"EXPLAIN {compiled.statement}"
    rows = await query.fetch(explain, *compiled.arguments([("1", "1")]))
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize(
    ("before", "after", "company", "user"),
    [
        ("integer", "bigint", str(2**32), str(2**40)),
        ("smallint", "integer", "70000", "70001"),
        ("integer", "text", "acme", "u1"),
        ("bigint", "numeric", "9" * 25, "1"),
    ],
)
async def test_case_5_a_column_that_changes_its_type_is_compared_by_the_new_one(
    database: Database, allows: Allows, before: str, after: str, company: str, user: str
) -> None:
    table = f"CREATE TABLE members (id int PRIMARY KEY, tenant {before}, login {before})"
    await watch(database, table, MEMBER)
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    assert await allows("7", "8")
    assert not await allows(company, user)
    await database.execute(
        f"ALTER TABLE members ALTER tenant TYPE {after}, ALTER login TYPE {after}"
    )
    await database.execute(f"INSERT INTO members VALUES (2, '{company}', '{user}')")
    assert await allows(company, user)
    assert await allows("7", "8")
    assert not await allows("7", user)


async def test_case_5_a_table_that_is_replaced_under_its_name_is_read_as_it_is_now(
    database: Database, allows: Allows
) -> None:
    await watch(
        database, "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)", MEMBER
    )
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    assert await allows("7", "8")
    await database.execute(
        "ALTER TABLE members RENAME TO members_old;"
        " CREATE TABLE members (id int PRIMARY KEY, tenant uuid, login text)"
    )
    await database.execute(f"INSERT INTO members VALUES (1, '{COMPANY}', 'u1')")
    assert await allows(str(COMPANY), "u1")
    assert not await allows("7", "8")


async def test_case_5_a_column_that_is_renamed_lets_in_no_user_until_it_is_watched_again(
    database: Database, allows: Allows
) -> None:
    table = "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)"
    await watch(database, table, MEMBER)
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    assert await allows("7", "8")
    await database.execute("ALTER TABLE members RENAME login TO name")
    for _ in range(2):
        with pytest.raises(DatabaseError, match="members"):
            await allows("7", "8")
    await migrate(
        database.dsn,
        watches=(Watch(table="members", entity="Member", company="tenant", member="name"),),
    )
    assert await allows("7", "8")


async def test_a_unique_index_that_comes_or_goes_decides_whether_a_loss_is_definite(
    database: Database, allows: Allows, membership: Membership
) -> None:
    table = "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)"
    await watch(database, table, MEMBER)
    await allows("7", "8")
    assert not membership.conclusive
    await database.execute("CREATE UNIQUE INDEX single ON members (login, tenant)")
    await allows("7", "8")
    assert membership.conclusive
    await database.execute("DROP INDEX single")
    await allows("7", "8")
    assert not membership.conclusive


async def test_case_f6_a_row_in_any_table_that_names_members_gives_access(
    database: Database, allows: Allows, membership: Membership
) -> None:
    await watch(
        database,
        "CREATE TABLE owners (id int PRIMARY KEY, tenant int, owner uuid UNIQUE, UNIQUE (tenant, owner));"
        "CREATE TABLE members (id int PRIMARY KEY, tenant text, login text, UNIQUE (tenant, login))",
        Watch(table="owners", entity="Owner", company="tenant", member="owner"),
        MEMBER,
    )
    await database.execute(f"INSERT INTO owners VALUES (1, 7, '{COMPANY}')")
    await database.execute("INSERT INTO members VALUES (1, '7', 'u1'), (2, 'acme', 'u1')")
    assert await allows("7", str(COMPANY))
    assert await allows("7", "u1")
    assert await allows("acme", "u1")
    assert not await allows("acme", str(COMPANY))
    assert not await allows("8", "u1")
    assert not membership.conclusive
    await database.execute("DELETE FROM members WHERE tenant = '7'")
    assert not await allows("7", "u1")
    assert await allows("7", str(COMPANY))


TYPES = """
CREATE TYPE plan AS ENUM ('free', 'paid');
CREATE DOMAIN number AS bigint;
CREATE DOMAIN positive AS number CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b int);
"""


@pytest.mark.parametrize(
    ("kind", "value", "others"),
    [
        ("plan", "free", ["Free", "paid", "none"]),
        ("positive", "42", ["042", "0", "-1", "free"]),
        ("pair", "(1,2)", ["(1, 2)", "(2,1)"]),
        ("int[]", "{1,2}", ["{1, 2}", "{1}"]),
        ("varchar(10)", "acme", ["ACME", "acme "]),
        ("name", "acme", ["ACME"]),
    ],
)
async def test_every_type_is_compared_to_the_letter(
    database: Database, allows: Allows, kind: str, value: str, others: list[str]
) -> None:
    await watch(
        database,
        f"{TYPES} CREATE TABLE members (id int PRIMARY KEY, tenant {kind}, login {kind})",
        MEMBER,
    )
    await database.execute(f"INSERT INTO members VALUES (1, '{value}', '{value}')")
    assert await allows(value, value)
    for other in others:
        assert not await allows(other, value), other
        assert not await allows(value, other), other


EVIL = """
CREATE TABLE trace (said text);
CREATE FUNCTION evil_json(plan) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trace VALUES ('json'); RETURN '"free"'; END $$;
CREATE CAST (plan AS json) WITH FUNCTION evil_json(plan);
CREATE FUNCTION evil_text(plan) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trace VALUES ('text'); RETURN 'free'; END $$;
CREATE CAST (plan AS text) WITH FUNCTION evil_text(plan) AS IMPLICIT;
CREATE FUNCTION evil_plan(text) RETURNS plan LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trace VALUES ('plan'); RETURN 'paid'::public.plan; END $$;
CREATE CAST (text AS plan) WITH FUNCTION evil_plan(text) AS IMPLICIT;
CREATE FUNCTION evil_equal(plan, plan) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trace VALUES ('='); RETURN true; END $$;
CREATE OPERATOR = (LEFTARG = plan, RIGHTARG = plan, FUNCTION = evil_equal);
CREATE FUNCTION evil_check(bigint) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.trace VALUES ('domain'); RETURN true; END $$;
CREATE DOMAIN traced AS bigint CHECK (evil_check(VALUE));
CREATE TABLE members (id int PRIMARY KEY, tenant plan, login traced);
"""


async def test_case_8_no_cast_operator_or_domain_of_the_application_runs_in_a_check(
    database: Database, allows: Allows
) -> None:
    await watch(database, TYPES + EVIL, MEMBER)
    await database.execute("ALTER TABLE members DISABLE TRIGGER USER")
    await database.execute("INSERT INTO members VALUES (1, 'free', 7)")
    await database.execute("TRUNCATE trace")
    assert await allows("free", "7")
    assert not await allows("paid", "7")
    assert not await allows("free", "8")
    assert await database.fetch("SELECT said FROM trace") == []


async def test_no_cast_runs_in_a_check_that_was_compiled_before_its_column_had_that_type(
    database: Database, allows: Allows
) -> None:
    """The cast takes a lock that outlives the transaction, which cannot write."""
    table = "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)"
    await watch(database, f"CREATE TYPE plan AS ENUM ('free'); {table}", MEMBER)
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    assert await allows("7", "8")
    await database.execute(
        "CREATE FUNCTION trap(plan) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_lock(4711); RETURN 7; END $$;"
        "CREATE CAST (plan AS int) WITH FUNCTION trap(plan) AS IMPLICIT;"
        "ALTER TABLE members ALTER tenant TYPE plan USING 'free'"
    )
    assert not await allows("7", "8")
    assert await allows("free", "8")
    assert not await database.fetch("SELECT FROM pg_locks WHERE objid = 4711")


@pytest.mark.parametrize("kind", ["int", "bigint", "uuid", "text", "varchar(40)", "positive"])
async def test_the_index_serves_every_built_in_type_and_domains_over_them(
    database: Database, query: Query, kind: str
) -> None:
    value = "md5(n::text)::uuid" if kind == "uuid" else "n"
    await watch(
        database,
        f"{TYPES} CREATE TABLE members (id int PRIMARY KEY, tenant {kind}, login {kind},"
        " UNIQUE (tenant, login))",
        MEMBER,
    )
    await database.execute("ALTER TABLE members DISABLE TRIGGER USER")
    await database.execute(
        f"INSERT INTO members SELECT n, {value}, {value} FROM generate_series(1, 20000) AS n"
    )
    found = await plan(database, query)
    assert "Seq Scan on members" not in found, found
    assert "Index Cond" in found, found


async def test_case_11_a_row_of_an_inheriting_table_gives_no_access(
    database: Database, allows: Allows
) -> None:
    table = "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)"
    await watch(database, table, MEMBER)
    await database.execute("CREATE TABLE contractors () INHERITS (members)")
    await database.execute("INSERT INTO contractors VALUES (1, 7, 8)")
    assert not await allows("7", "8")
    await database.execute("INSERT INTO members VALUES (2, 7, 8)")
    assert await allows("7", "8")


async def test_rows_of_a_partitioned_table_give_access(database: Database, allows: Allows) -> None:
    await watch(
        database,
        "CREATE TABLE members (id int, tenant int, login int, PRIMARY KEY (id)) PARTITION BY LIST (id);"
        "CREATE TABLE members_1 PARTITION OF members DEFAULT",
        MEMBER,
    )
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    assert await allows("7", "8")


async def test_case_7_rows_that_row_level_security_hides_are_an_error_and_no_refusal(
    database: Database,
) -> None:
    """The owner is exempt, so another role checks."""
    await watch(
        database, "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int)", MEMBER
    )
    await database.execute("INSERT INTO members VALUES (1, 7, 8)")
    role = f"{database.name}_reader"
    await database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        await migrate(database.dsn, watches=(MEMBER,), grant=role)
        await database.execute("ALTER TABLE members ENABLE ROW LEVEL SECURITY")
        address = database.dsn.partition("@")[2]
        query = Query(f"postgresql://{role}@{address}", "test", pooled=False)
        membership = Membership(query, "employees", None)
        try:
            with pytest.raises(DatabaseError, match="row-level security"):
                await membership.may_see(Identity("8", 1e12, None), "7")
            settings = load({}, database_url=query.url, jwt_secret="s" * 32, watch=(MEMBER,))
            lines = [finding.line for finding in await check(settings) if finding.sound is False]
            assert any("BYPASSRLS" in line for line in lines), lines
            await database.execute(f"CREATE POLICY all_rows ON members TO {role} USING (true)")
            with pytest.raises(DatabaseError, match="row-level security"):
                await membership.may_see(Identity("8", 1e12, None), "7")
        finally:
            query.close()
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_row_3_6_a_query_of_tables_that_the_role_may_not_read_is_reported(
    database: Database,
) -> None:
    """By what /readyz checks, and by `check`; until the right is granted."""
    await database.execute(
        "CREATE TABLE grants (tenant uuid, account text); INSERT INTO grants VALUES"
        f" ('{COMPANY}', 'u1')"
    )
    role = f"{database.name}_reader"
    await database.execute(f"CREATE ROLE {role} LOGIN")
    text = "SELECT EXISTS (SELECT FROM grants WHERE tenant = $1 AND account = $2)"
    try:
        await migrate(database.dsn, grant=role)
        address = database.dsn.partition("@")[2]
        query = Query(f"postgresql://{role}@{address}", "test", pooled=False, read_only=True)
        settings = load({}, database_url=query.url, jwt_secret="s" * 32, membership_query=text)
        membership = Membership(query, "employees", text)
        try:
            with pytest.raises(DatabaseError, match="permission denied for table grants"):
                await membership.require()
            lines = [finding.line for finding in await check(settings) if finding.sound is False]
            denied = "NOTIFIER_MEMBERSHIP_QUERY: permission denied for table grants"
            assert lines == [f"{denied}; grant that right to the role of `serve`"]
            await database.execute(f"GRANT SELECT ON grants TO {role}")
            await membership.require()
            assert await membership.may_see(Identity("u1", 1e12, None), str(COMPANY))
            assert not [finding for finding in await check(settings) if finding.sound is False]
        finally:
            membership.close()
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_with_a_membership_query_the_loss_of_a_row_is_never_definite(
    database: Database, query: Query
) -> None:
    """Also after a company was checked whose id looks as if it had a scope, for which rows are read."""
    await watch(
        database,
        "CREATE TABLE members (id int PRIMARY KEY, tenant int, login int, UNIQUE (tenant, login))",
        MEMBER,
    )
    membership = Membership(query, "employees", "SELECT $1 = 'a:b' AND $2 = 'u'")
    assert await membership.may_see(Identity("u", 1e12, None), "a:b")
    assert not membership.conclusive
    membership.close()
