"""Ids of companies in other spellings: refused, whatever MEMBERSHIP_QUERY makes of them."""

from __future__ import annotations

from uuid import UUID

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.watches import Watch
from tests.databases import Database

COMPANY = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
MEMBER = Watch(table="members", entity="Member", company="tenant", member="login")


async def sees(database: Database, query: Query, kind: str, sql: str | None, company: str) -> bool:
    await database.execute(
        "DROP TABLE IF EXISTS members; CREATE DOMAIN number AS int;"
        f"CREATE TABLE members (id int PRIMARY KEY, tenant {kind}, login text);"
    )
    value = str(COMPANY) if kind == "uuid" else "1"
    await database.execute(f"INSERT INTO members VALUES (1, '{value}', 'u')")
    await migrate(database.dsn, watches=[MEMBER])
    membership = Membership(query, "employees", sql)
    try:
        return await membership.may_see(Identity("u", 1e12, None), company)
    finally:
        membership.close()


@pytest.mark.parametrize("kind", ["smallint", "int", "bigint", "number"])
@pytest.mark.parametrize("company", ["01", " 1", "1 ", "+1", "\t1", "0x1", "-0", "1_0"])
@pytest.mark.parametrize("sql", [None, "SELECT $1::int IN (1, 0, 10) AND $2 = 'u'"])
async def test_another_spelling_of_an_integer_is_refused(
    database: Database, query: Query, kind: str, company: str, sql: str | None
) -> None:
    assert not await sees(database, query, kind, sql, company)


@pytest.mark.parametrize(
    "company", [COMPANY.hex, f"{{{COMPANY}}}", f"{COMPANY.hex[:20]}-{COMPANY.hex[20:]}"]
)
async def test_another_spelling_of_a_uuid_is_refused(
    database: Database, query: Query, company: str
) -> None:
    sql = f"SELECT $1::uuid = '{COMPANY}' AND $2 = 'u'"
    assert not await sees(database, query, "uuid", sql, company)


@pytest.mark.parametrize(
    ("kind", "sql", "company"),
    [
        ("int", "SELECT $1::int = 1 AND $2 = 'u'", "1"),
        ("text", "SELECT $1::text = '01' AND $2 = 'u'", "01"),
        ("uuid", "SELECT $1 = 'a' AND $2 = 'u'", "a"),
        ("uuid", f"SELECT $1::uuid = '{COMPANY}' AND $2 = 'u'", str(COMPANY)),
    ],
)
async def test_the_canonical_form_and_any_text_are_accepted(
    database: Database, query: Query, kind: str, sql: str, company: str
) -> None:
    assert await sees(database, query, kind, sql, company)
