"""Who is a member: the row that names him to the letter, whatever the columns' types; or a query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from notifier.access.member_rows import MemberRowsQuery, tables_query
from notifier.access.membership import Membership
from notifier.access.operator_query import PIECE
from notifier.access.tokens import Identity
from notifier.database import query as queries
from notifier.database.query import Query
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, Unreachable
from tests.conftest import Connect, Serve
from tests.databases import Connection, Database, with_database
from tests.proxy import Proxy
from tests.service.calendars import Calendar
from tests.services import token

Check = Callable[[str, str], Awaitable[bool]]
MakeCheck = Callable[..., Check]
Memberships = Callable[..., Membership]

COMPANY = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
NIL = "00000000-0000-0000-0000-000000000000"
ODD = ["", " ", "*", "%", "0", "-1", "42 ", "042", "+42", "4_2", "٤٢", "1e1", "NaN", "null", "🗝"]
ODD += ["9" * 19, "9" * 30, "-" + "9" * 19, "' OR true --", '"', "{}", "{42}", "\\", "\x1f", NIL]

TO_TEXT = """
ALTER TABLE events DROP CONSTRAINT events_company_id_fkey;
ALTER TABLE employees DROP CONSTRAINT employees_company_id_fkey;
ALTER TABLE events ALTER COLUMN company_id TYPE {kind};
ALTER TABLE employees ALTER COLUMN company_id TYPE {kind};
"""
UNRULED = "ALTER TABLE employees DROP CONSTRAINT employees_company_id_user_id_key;"
ADD = "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'U')"


@pytest.fixture
async def memberships() -> AsyncIterator[Memberships]:
    """Makes memberships that ask a database."""
    made: list[Membership] = []

    def make(dsn: str, query: str | None = None) -> Membership:
        made.append(
            Membership(Query(dsn, "test", pooled=False, read_only=True), "employees", query)
        )
        return made[-1]

    yield make
    for membership in made:
        membership.close()


@pytest.fixture
def make_check(memberships: Memberships) -> MakeCheck:
    """Makes a function that says whether a company is a user's."""

    def make(dsn: str, query: str | None = None) -> Check:
        membership = memberships(dsn, query)

        async def check(company: str, user: str) -> bool:
            return await membership.may_see(Identity(user, 1e12, None), company)

        return check

    return make


@pytest.mark.parametrize(
    ("kind", "user", "others"),
    [
        ("text", "U1", ["u1", "U1 ", " U1", NIL]),
        ("varchar(9)", "42", ["42.0"]),
        ("char(9)", "u1", ["u1"]),  # its row says `u1` with seven blanks
        ("bigint", "42", ["42.0", "0x2A"]),
        ("integer", "-42", ["42", str(2**31), str(2**32 - 42)]),
        ("smallint", "42", [str(2**16 + 42)]),
        ("uuid", str(COMPANY), [str(COMPANY).upper(), COMPANY.hex, f"{{{COMPANY}}}", "42"]),
        ("numeric", "42", ["42.0", "4.2e1"]),
    ],
)
async def test_user_ids_are_compared_exactly(
    database: Database, make_check: MakeCheck, kind: str, user: str, others: list[str]
) -> None:
    await database.execute(
        f"ALTER TABLE employees ALTER COLUMN user_id TYPE {kind} USING user_id::{kind}"
    )
    await database.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    await database.execute(
        f"INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2::text::{kind}, 'U')",
        COMPANY,
        user,
    )
    may = make_check(database.dsn)
    named = user.ljust(9) if kind == "char(9)" else user
    assert await may(str(COMPANY), named)
    for other in [*others, *ODD]:
        assert not await may(str(COMPANY), other), other
    assert not await may(NIL, named)
    assert not await may("no uuid", named)


@pytest.fixture
async def latin(postgres: str) -> AsyncIterator[Database]:
    """A migrated database that can write few letters."""
    database = Database(postgres, f"notifier_test_{uuid4().hex[:12]}")
    maker = Database(postgres, "postgres")
    await maker.execute(
        f"CREATE DATABASE {database.name} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'"
    )
    try:
        await migrate(with_database(postgres, database.name), calendar=True)
        yield database
    finally:
        maker.leave()
        await database.drop()


async def test_an_id_that_the_database_cannot_represent_is_refused_and_harms_no_other(
    latin: Database, make_check: MakeCheck
) -> None:
    company = await latin.fetchval(
        "WITH c AS (INSERT INTO companies (name) VALUES ('A') RETURNING id)"
        " INSERT INTO employees (company_id, user_id, name)"
        " SELECT id, 'Zoë', 'Z' FROM c RETURNING company_id::text"
    )
    may = make_check(latin.dsn)
    assert await may(company, "Zoë")
    for user in ("🗝", "€", "Zoe"):
        assert not await may(company, user)
    answers = [may(company, user) for user in ("Zoë", "🗝", "Zoë")]
    assert [await answer for answer in answers] == [True, False, True]


async def test_where_the_token_decides_a_name_that_cannot_be_written_is_that_of_no_company(
    latin: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(latin, authorization="claim")
    company = str(COMPANY)
    names = ["d'Arc", "🗝", "Zoë €", company]
    clients = [await connect(service, "u1", companies=names) for _ in names]
    answers = await asyncio.gather(
        *(client.set_company(name) for client, name in zip(clients, names, strict=True))
    )
    unknown = answers[0]
    for answer, name in zip(answers, names, strict=True):
        assert answer == {**unknown, "Data": {**unknown["Data"], "CompanyId": name}}
    for client, name in zip(clients[1:3], names[1:3], strict=True):
        answer = await client.set_company(name, 5, unknown["Data"]["Epoch"])
        assert answer["Data"]["Recovered"] is False
        answer = await client.set_company(name, 0, unknown["Data"]["Epoch"])
        assert answer["Data"]["Recovered"] is True
    for client, name in zip(clients[1:], names[1:], strict=True):
        await client.send({"type": "await", "data": {"companyId": name, "tx": 5}})
    for client, name in zip(clients[1:], names[1:], strict=True):
        arrived = await client.expect("Arrived")
        assert arrived["Data"] == {"CompanyId": name, "Tx": "5", "Position": 0}
    await latin.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    event = await Calendar(latin).event(company)
    assert (await clients[-1].expect("EventCreated"))["Data"]["EventId"] == event


async def test_without_a_member_table_the_log_reports_it_and_every_company_is_refused(
    database: Database, make_check: MakeCheck
) -> None:
    await database.execute("UPDATE notifier.watches SET member = NULL")
    may = make_check(database.dsn)
    with pytest.raises(DatabaseError, match="MEMBERSHIP_QUERY"):
        await may(str(COMPANY), "u1")
    await database.execute(
        "UPDATE notifier.watches SET member = 'user_id' WHERE entity = 'Employee'"
    )
    assert not await may(str(COMPANY), "u1")
    await database.execute("ALTER TABLE employees RENAME TO people")
    with pytest.raises(DatabaseError, match="notifier migrate"):
        await may(str(COMPANY), "u1")
    await database.execute(
        "UPDATE notifier.watches SET relation = 'public.people' WHERE member IS NOT NULL"
    )
    assert not await may(str(COMPANY), "u1")


@pytest.mark.parametrize(
    ("change", "conclusive"),
    [
        ("SELECT", True),
        ("ALTER TABLE employees ALTER COLUMN user_id TYPE bigint USING 1", True),
        (TO_TEXT.format(kind="text"), False),  # a uuid may have a row in either spelling
        (UNRULED, False),
        (UNRULED + "CREATE UNIQUE INDEX ON employees (company_id, user_id)", True),
        (UNRULED + "CREATE UNIQUE INDEX ON employees (company_id, user_id, name)", False),
        (UNRULED + "CREATE UNIQUE INDEX ON employees (company_id, user_id) WHERE name > ''", False),
        ("UPDATE notifier.watches SET member = 'title' WHERE entity = 'Event'", False),
    ],
)
async def test_the_loss_of_a_row_is_conclusive_only_where_a_user_has_at_most_one(
    database: Database, memberships: Memberships, change: str, conclusive: bool
) -> None:
    await database.execute(change)
    membership = memberships(database.dsn)
    assert membership.conclusive is False, "the tables have not been read yet"
    assert not await membership.may_see(Identity("1", 1e12, None), str(COMPANY))
    assert membership.conclusive is conclusive
    assert membership.follows_rows


async def test_with_a_membership_query_the_loss_of_a_row_causes_a_recheck(
    database: Database, memberships: Memberships
) -> None:
    membership = memberships(database.dsn, "SELECT $1 = $2")
    for user, may in (("a", True), ("b", False)):
        assert await membership.may_see(Identity(user, 1e12, None), "a") is may
    assert membership.conclusive is False
    assert membership.follows_rows
    assert membership.piece < memberships(database.dsn).piece


async def test_batched_membership_checks_are_answered_one_by_one(
    latin: Database, memberships: Memberships
) -> None:
    """One cannot be written, so the others are asked about one by one."""
    await latin.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    await latin.execute(ADD, str(COMPANY), "u1")
    query_link = Query(latin.dsn, "test", pooled=False)
    membership = Membership(query_link, "employees", None)
    for users in (["u1", "u2", "u1", "u3"], ["u2", "u1", "\N{KEY}", "u3"]):
        answers = await asyncio.gather(
            *(membership.may_see(Identity(user, 1e12, None), str(COMPANY)) for user in users)
        )
        assert answers == [user == "u1" for user in users]
    query_link.close()
    assert query_link.queries == 1 + 1 + 6


@pytest.mark.parametrize(("kind", "bits"), [("smallint", 16), ("integer", 32), ("bigint", 64)])
async def test_an_integer_names_a_user_to_its_last_bit(
    database: Database, make_check: MakeCheck, kind: str, bits: int
) -> None:
    largest = 2 ** (bits - 1) - 1
    await database.execute(f"ALTER TABLE employees ALTER COLUMN user_id TYPE {kind} USING 1")
    await database.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    users = [largest, -largest, 0, 10]
    for user in users:
        await database.execute(
            "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, 'U')", COMPANY, user
        )
    may = make_check(database.dsn)
    answers = [await may(str(COMPANY), str(user)) for user in users]
    assert answers == [True] * 4
    for other in (largest + 1, -largest - 2, 2**bits, 2**bits + 10, 1, "-0", "00", "010"):
        assert not await may(str(COMPANY), str(other)), other


@pytest.mark.parametrize("kind", ["uuid", "bigint"])
async def test_an_id_of_another_type_does_not_disturb_the_checks_of_its_batch(
    database: Database, kind: str
) -> None:
    user = {"uuid": NIL[:-1] + "1", "bigint": "1"}[kind]
    await database.execute(f"ALTER TABLE employees ALTER COLUMN user_id TYPE {kind} USING NULL")
    await database.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    await database.execute(
        f"INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2::text::{kind}, 'U')",
        COMPANY,
        user,
    )
    query_link = Query(database.dsn, "test", pooled=False)
    membership = Membership(query_link, "employees", None)
    odd = ["", "x", "1.0", user + " ", f"{{{user}}}", str(2**63), str(-(2**63)), "9" * 19]
    pairs = [(str(COMPANY), user), *((company, user) for company in odd)]
    pairs += [(str(COMPANY), other) for other in odd]
    answers = await asyncio.gather(
        *(membership.may_see(Identity(user, 1e12, None), company) for company, user in pairs)
    )
    query_link.close()
    assert answers == [True] + [False] * 16
    assert query_link.queries == 2


async def test_a_check_that_cannot_be_queried_is_not_answered(
    database: Database, make_check: MakeCheck
) -> None:
    async with Proxy(*database.address) as proxy:
        may = make_check(database.through(proxy.port))
        assert not await may(str(COMPANY), "u1")
        proxy.refuse()
        await proxy.reset()
        with pytest.raises(DatabaseError):
            await may(str(COMPANY), "u1")
        await proxy.accept()
        assert not await may(str(COMPANY), "u1")


async def test_an_id_outside_a_domain_is_refused_without_harm_to_others(
    database: Database, make_check: MakeCheck
) -> None:
    await database.execute("CREATE DOMAIN account AS text CHECK (VALUE ~ '^[a-z0-9]+$')")
    await database.execute("ALTER TABLE employees ALTER COLUMN user_id TYPE account")
    await database.execute("INSERT INTO companies (id, name) VALUES ($1, 'A')", COMPANY)
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'U')", COMPANY
    )
    may, company = make_check(database.dsn), str(COMPANY)
    for odd in ("U1", "u 1", *ODD):
        assert await asyncio.gather(*(may(company, user) for user in ("u1", odd, "u2"))) == [
            True,
            False,
            False,
        ]


# --- a query of the operator's

GRANTS = {
    "uuid": (
        str(COMPANY),
        "42",
        ["bbbbbbbb-0000-4000-8000-00000000000b", "42", "no uuid", "", "'"],
    ),
    "bigint": ("7", "42", ["8", "seven", "7.0", str(2**63), "9" * 30, "' OR true --", "7\n8"]),
    "text": ("Acme & Söhne", "42", ["acme & söhne", "Acme", "%", "' OR true --", "$1"]),
}


@pytest.mark.parametrize("kind", GRANTS)
@pytest.mark.parametrize("typed", [True, False])
async def test_a_membership_query_may_read_tables_of_any_shape(
    database: Database, make_check: MakeCheck, kind: str, typed: bool
) -> None:
    company, user, others = GRANTS[kind]
    await database.execute(f"CREATE TABLE grants (tenant {kind}, account bigint)")
    await database.execute(
        f"INSERT INTO grants VALUES ($1::text::{kind}, $2::text::bigint)", company, user
    )
    one, two = (f"$1::{kind}", "$2::bigint") if typed else ("$1", "$2")
    may = make_check(
        database.dsn, f"SELECT EXISTS (SELECT FROM grants WHERE tenant = {one} AND account = {two})"
    )
    assert await may(company, user)
    for other in others:
        assert await may(other, user) is False, other
    for other in ("43", "x", "", "' OR true --", "9" * 30):
        assert not await may(company, other), other
    assert await may(company, user)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT NULL::boolean FROM (SELECT $1::text, $2::text) AS asked",
        "SELECT true WHERE $1::text = $2::text",
        "SELECT 1 FROM (SELECT $1::text, $2::text) AS asked",
        "SELECT 'true' FROM (SELECT $1::text, $2::text) AS asked",
        "SELECT length($1::text) / (length($2::text) - 2) > 0",
    ],
)
async def test_only_true_is_yes(database: Database, make_check: MakeCheck, query: str) -> None:
    assert not await make_check(database.dsn, query)("company", "u1")


@pytest.mark.parametrize(
    "query", ["SELECT", "SELECT true", "SELECT $1 = $3 AND $2", "DELETE FROM x"]
)
async def test_a_membership_query_that_cannot_run_refuses_every_user(
    database: Database, make_check: MakeCheck, query: str
) -> None:
    with pytest.raises(DatabaseError):
        await make_check(database.dsn, query)("company", "u1")


RAISING = {
    "a function that finds no row, or two": "SELECT is_granted($1, $2)",
    "a query that finds two rows": (
        "SELECT (SELECT true FROM grants WHERE tenant = $1::bigint AND account = $2)"
    ),
    "a domain": (
        "SELECT EXISTS (SELECT FROM grants WHERE tenant = $1::text::positive AND account = $2::text)"
    ),
}


@pytest.mark.parametrize("query", RAISING.values(), ids=RAISING)
async def test_a_membership_query_that_raises_refuses_its_pair_and_harms_no_other(
    database: Database, make_check: MakeCheck, query: str
) -> None:
    await database.execute(
        """
        CREATE TABLE grants (tenant bigint, account text);
        INSERT INTO grants VALUES (7, 'u1'), (8, 'twice'), (8, 'twice');
        CREATE DOMAIN positive AS bigint CHECK (VALUE > 0 AND VALUE <> 8);
        CREATE FUNCTION is_granted(bigint, text) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            found text;
        BEGIN
            SELECT account INTO STRICT found FROM grants WHERE tenant = $1 AND account = $2;
            RETURN true;
        END $$;
        """
    )
    may = make_check(database.dsn, query)
    questions = [("7", "u1"), ("7", "u2"), ("-1", "u1"), ("8", "twice"), ("x", "u1"), ("7", "u1")]
    answers = await asyncio.gather(*(may(company, user) for company, user in questions))
    assert answers == [True, False, False, False, False, True]


async def test_with_a_membership_query_a_changed_row_causes_a_recheck(
    database: Database, serve: Serve, connect: Connect
) -> None:
    await database.execute("CREATE TABLE grants (tenant uuid, account text)")
    service = await serve(
        database,
        membership_query="SELECT EXISTS (SELECT FROM grants WHERE tenant = $1 AND account = $2)",
    )
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2")
    await database.execute("INSERT INTO grants VALUES ($1, 'u1'), ($1, 'u2')", company)
    client, witness = [await connect(service, user, company) for user in ("u1", "u2")]
    other = await connect(service, "u3")
    assert not (await other.set_company(company))["Success"]

    await database.execute("DELETE FROM employees WHERE user_id = 'u1'")
    await client.expect("EmployeeRemoved")
    await calendar.event(company, "still visible")
    assert (await client.expect("EventCreated"))["Data"]["Title"] == "still visible"

    await database.execute(
        "INSERT INTO employees (company_id, user_id, name) VALUES ($1, 'u1', 'U')", company
    )
    await client.expect("EmployeeAdded")
    await calendar.event(company, "checked again")
    await client.expect("EventCreated")
    await database.execute("DELETE FROM grants WHERE account = 'u1'")
    await database.execute("DELETE FROM employees WHERE user_id = 'u1'")
    await calendar.event(company, "hidden")
    await client.expect("EmployeeRemoved")
    await client.expect("CompanyRevoked")
    await client.quiet()
    for title in ("still visible", "checked again", "hidden"):
        assert (await witness.next("EventCreated"))["Data"]["Title"] == title


async def test_case_f3_a_query_that_maps_users_revokes_with_the_message_of_the_row(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """The token has another id than the member rows: an identity provider's, in a table of its own."""
    await database.execute("CREATE TABLE logins (subject text PRIMARY KEY, user_id text)")
    await database.execute("INSERT INTO logins VALUES ('auth0|1', 'u1'), ('auth0|2', 'u2')")
    query = (
        "SELECT EXISTS (SELECT FROM employees JOIN logins USING (user_id)"
        " WHERE company_id = $1::text::uuid AND subject = $2)"
    )
    service = await serve(database, membership_query=query)
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2")
    client, witness = [await connect(service, f"auth0|{n}", company) for n in (1, 2)]
    await database.execute("DELETE FROM employees WHERE user_id = 'u1'")
    await calendar.event(company, "without the first")
    await client.expect("EmployeeRemoved")
    await client.expect("CompanyRevoked")
    await client.quiet()
    assert (await witness.next("EventCreated"))["Data"]["Title"] == "without the first"
    assert "CompanyRevoked" not in {message["Type"] for message in witness.messages}


async def test_c9_a_deactivated_row_revokes_with_its_own_message(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """On both nodes, by himself or among very many, and the others stay."""
    await database.execute("ALTER TABLE employees ADD COLUMN active boolean NOT NULL DEFAULT true")
    query = "SELECT active FROM employees WHERE company_id = $1::text::uuid AND user_id = $2::text"
    nodes = [await serve(database, membership_query=query, bulk_limit=5) for _ in range(2)]
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2", "u3")
    one, two, three = [
        [await connect(node, user, company) for node in nodes] for user in ("u1", "u2", "u3")
    ]
    await database.execute("UPDATE employees SET job_title = 'Chief' WHERE user_id = 'u1'")
    await database.execute("UPDATE employees SET active = false WHERE user_id = 'u2'")
    await calendar.event(company, "without the second")
    for client in two:
        await client.next("CompanyRevoked")
    for client in three:  # all users were checked again, and these stay
        await client.next("EventCreated")
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT $1, 'm' || n, 'M' FROM generate_series(1, 10) AS n",
        company,
    )
    await database.execute("UPDATE employees SET active = user_id = 'u1'")
    await calendar.event(company, "with the first alone")
    for client in one:
        titles = [(await client.next("EventCreated"))["Data"]["Title"] for _ in range(2)]
        assert titles == ["without the second", "with the first alone"]
        assert "CompanyRevoked" not in {message["Type"] for message in client.messages}
    for client in three:
        await client.next("CompanyRevoked")
        await client.quiet()
        assert "without the second" in str(client.messages)
    for client in (*two, *three):
        assert "with the first alone" not in str(client.messages)
        assert not (await client.set_company(company))["Success"]


# --- the token's word


async def test_c7_where_the_token_decides_fewer_companies_take_access_away(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, authorization="claim"), Calendar(database)
    kept, lost = await calendar.company("u2"), await calendar.company("u2")
    client = await connect(service, "u1", lost, companies=[kept, lost])
    await calendar.event(lost, "before")
    assert (await client.expect("EventCreated"))["Data"]["Title"] == "before"
    await client.authenticate("u1", companies=[lost.upper()])
    await client.quiet()
    assert (await client.authenticate("u1", companies=[kept]))["Success"]
    assert (await client.expect("CompanyRevoked"))["Data"] == {"CompanyId": lost}
    await calendar.event(lost, "after")
    assert (await client.set_company(lost))["Error"]["Code"] == "company_forbidden"
    assert (await client.set_company(kept))["Success"]
    await calendar.event(kept, "kept")
    assert (await client.expect("EventCreated"))["Data"]["Title"] == "kept"
    assert (await client.authenticate(token=token("u1")))["Success"]  # no such claim at all
    await client.expect("CompanyRevoked")


async def test_where_rows_decide_a_tokens_companies_grant_nothing(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database), Calendar(database)
    company = await calendar.company("u2")
    client = await connect(service, "u1", companies=[company])
    assert (await client.set_company(company))["Error"]["Code"] == "company_forbidden"


# --- uuids in columns of text


@pytest.mark.parametrize("kind", ["text", "varchar(40)", "char(36)"])
async def test_a_uuid_is_one_company_in_lower_and_upper_case(
    database: Database, make_check: MakeCheck, kind: str
) -> None:
    await database.execute(TO_TEXT.format(kind=kind))
    company = str(COMPANY)
    await database.execute(ADD, company.upper(), "capital")
    await database.execute(ADD, company, "small")
    await database.execute(ADD, company.upper()[:-1] + "B", "another")
    if kind != "char(36)":
        await database.execute(ADD, "ACME", "acme")
        await database.execute(ADD, COMPANY.hex.upper(), "hex")
    may = make_check(database.dsn)
    assert await may(company, "capital")
    assert await may(company, "small")
    for user in ("CAPITAL", "another", "acme", "hex", "", company):
        assert not await may(company, user), user
    assert not await may("acme", "acme")
    assert not await may(COMPANY.hex, "hex")
    assert not await may(f"{{{company}}}", "capital")


async def test_the_index_serves_a_column_of_text(database: Database, make_check: MakeCheck) -> None:
    await database.execute(TO_TEXT.format(kind="text"))
    await database.execute("ALTER TABLE employees DISABLE TRIGGER USER")
    await database.execute(
        "INSERT INTO employees (company_id, user_id, name)"
        " SELECT upper(gen_random_uuid()::text), 'u' || n, 'U' FROM generate_series(1, 20000) AS n"
    )
    await database.execute("ANALYZE employees")
    query_link = Query(database.dsn, "test", pooled=False)
    query = MemberRowsQuery.compile([dict(row) for row in await query_link.fetch(tables_query())])
    arguments = query.arguments([(str(COMPANY), "u1")])
    explain = f"EXPLAIN {query.statement}"
    plan = "\n".join([row[0] for row in await query_link.fetch(explain, *arguments)])
    query_link.close()
    assert "Seq Scan on employees" not in plan
    assert "Index Cond: ((company_id = ANY" in plan


async def test_rows_in_both_spellings_of_a_uuid_grant_access_until_both_are_gone(
    database: Database, serve: Serve, connect: Connect
) -> None:
    calendar, company = Calendar(database), str(COMPANY)
    await database.execute(TO_TEXT.format(kind="text"))
    for spelled, user in ((company.upper(), "u1"), (company, "u1"), (company.upper(), "u2")):
        await database.execute(ADD, spelled, user)
    service = await serve(database)
    await database.relayed()
    client = await connect(service, "u1", company.upper())
    assert client.messages[-1]["Data"]["CompanyId"] == company
    witness = await connect(service, "u2", company)
    remove = "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1"
    await database.execute(remove, company)
    await client.next("EmployeeRemoved")
    await calendar.event(company.upper(), "still visible")
    assert (await client.next("EventCreated"))["Data"]["Title"] == "still visible"
    await database.execute(remove, company.upper())
    await client.next("EmployeeRemoved")
    await client.expect("CompanyRevoked")
    await calendar.event(company, "hidden")
    assert (await witness.next("EventCreated"))["Data"]["Title"] == "still visible"
    assert (await witness.next("EventCreated"))["Data"]["Title"] == "hidden"
    await client.quiet()
    assert not (await client.set_company(company))["Success"]


async def test_with_a_membership_query_users_take_turns(
    database: Database, memberships: Memberships
) -> None:
    """One who requests very many companies, and may leave before the answers, delays no other."""
    membership = memberships(database.dsn, "SELECT $1::text = $2::text FROM pg_sleep(0.001)")
    ended: list[str] = []

    async def check(user: str, company: str) -> None:
        await membership.may_see(Identity(user, 1e12, None), company)
        ended.append(user)

    await asyncio.gather(*(check("u2", f"c{n}") for n in range(100)), check("u1", "c"))
    assert ended.index("u1") < PIECE


SLOW = "SELECT $2::text <> 'slow' OR (SELECT $1::text <> '' FROM pg_advisory_xact_lock_shared(1))"


@pytest.fixture
async def held(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """A connection with a lock that SLOW waits for, longer than a query may take."""
    monkeypatch.setattr(queries, "DEADLINE_SECONDS", 2.0)
    holder = await database.connect()
    await holder.execute("SELECT pg_advisory_lock(1)")
    yield holder
    await holder.execute("SELECT pg_advisory_unlock_all()")


async def test_one_query_that_misses_its_deadline_fails_no_checks_but_those_behind_it_in_its_batch(
    database: Database, memberships: Memberships, held: Connection
) -> None:
    membership = memberships(database.dsn, SLOW)
    users = [f"u{number}" for number in range(2 * PIECE)]
    users.insert(5, "slow")
    answers = await asyncio.gather(
        *(membership.may_see(Identity(user, 1e12, None), "c") for user in users),
        return_exceptions=True,
    )
    assert answers[:5] == [True] * 5
    assert {type(each) for each in answers[5:PIECE]} == {Unreachable}
    assert answers[PIECE:] == [True] * (PIECE + 1)
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert await membership.may_see(Identity("slow", 1e12, None), "c")


async def test_where_all_queries_miss_their_deadlines_those_that_wait_fail_after_a_few(
    database: Database, memberships: Memberships, held: Connection
) -> None:
    """Of 500 connected users, each twenty would wait for another deadline."""
    hanging = SLOW.replace("<> 'slow'", "= ''")
    membership = memberships(database.dsn, hanging)
    checks = [membership.may_see(Identity(f"u{number}", 1e12, None), "c") for number in range(500)]
    answers = await asyncio.gather(*checks, return_exceptions=True)
    assert {type(each) for each in answers} == {Unreachable}
    assert membership._operator(hanging)._link.queries == 3
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert await membership.may_see(Identity("u1", 1e12, None), "c")
