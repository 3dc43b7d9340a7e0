"""`notifier init`: what it proposes for a database is accepted by `migrate`, and gives its reasons."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from notifier.database.proposal import propose
from notifier.database.schema import migrate
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.watches import Watch
from tests.databases import Database
from tests.services import run

SUPPORT = """
    DROP TABLE events, employees, companies;
    CREATE SCHEMA crm;
    CREATE TABLE accounts (id int PRIMARY KEY, name text, api_key text, settings jsonb);
    CREATE TABLE users (id int PRIMARY KEY, email text, encrypted_password text);
    CREATE TABLE account_users (
        account_id int NOT NULL REFERENCES accounts, user_id int NOT NULL REFERENCES users, active boolean NOT NULL,
        PRIMARY KEY (account_id, user_id)
    );
    CREATE TABLE conversations (
        id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts, deleted_at timestamptz
    );
    CREATE TABLE messages (id int PRIMARY KEY, conversation_id int REFERENCES conversations, body text);
    CREATE TABLE crm."Deal" ("dealId" int PRIMARY KEY, "accountId" int REFERENCES accounts, "resetToken" text);
    CREATE TABLE crm."Receipt" (id int PRIMARY KEY, "userId" int REFERENCES users, "messageId" int NOT NULL REFERENCES messages);
    CREATE TABLE logs (account_id int REFERENCES accounts, line text);
    CREATE TABLE parts (id int, account_id int REFERENCES accounts, PRIMARY KEY (id, account_id)) PARTITION BY HASH (account_id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0)
"""
PROPOSED = """\
# Proposed by notifier init. The companies are the rows of accounts.
# Read it, remove what need not be sent, then run: notifier migrate --dry-run

[[watch]]
table = 'crm."Deal"'
entity = "Deal"
key = "dealId"
company = "accountId"  # a foreign key to the companies
exclude = ["resetToken"]  # by their names they hold secrets: neither stored nor sent

[[watch]]
table = 'crm."Receipt"'
entity = "Receipt"
company = '"messageId" -> messages.conversation_id -> conversations.account_id'  # along foreign keys to the companies

[[watch]]
table = "account_users"
entity = "AccountUser"
key = ["account_id", "user_id"]
company = "account_id"  # a foreign key to the companies
member = "user_id"  # the row gives this user access to its company
member_if = { active = true }  # only while this is so

[[watch]]
table = "accounts"
entity = "Account"
company = "id"  # its rows are the companies
exclude = ["api_key"]  # by their names they hold secrets: neither stored nor sent

[[watch]]
table = "conversations"
entity = "Conversation"
company = "account_id"  # a foreign key to the companies
deleted_if = "deleted_at"  # a row counts as deleted while it is set

# refused as it is: table logs has no column id
# [[watch]]
# table = "logs"
# entity = "Log"
# company = "account_id"  # a foreign key to the companies

[[watch]]
table = "messages"
entity = "Message"
company = "conversation_id -> conversations.account_id"  # along foreign keys to the companies

[[watch]]
table = "parts"
entity = "Part"
key = ["id", "account_id"]
company = "account_id"  # a foreign key to the companies

# Not proposed: no foreign key leads from users to accounts; it refers to no table.
"""


async def test_tables_with_a_company_are_proposed_with_reasons_and_accepted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute(SUPPORT)
    text = await propose(database.dsn, None)
    assert text == PROPOSED
    assert await propose(database.dsn, "public.accounts") == text
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notifier.toml").write_text(text)
    lines: list[str] = []
    await migrate(database.dsn, watches=load().watch, report=lines.append)
    assert len(load().watch) == 7


async def test_the_command_prints_the_calendar_of_a_fresh_database_and_names_a_near_miss(
    database: Database, tmp_path: Path
) -> None:
    status, output = await run(tmp_path, "init", database_url=database.dsn)
    assert status == 0, output
    assert 'table = "employees"\nentity = "Employee"\ncompany = "company_id"  # a f' in output
    assert 'member = "user_id"' in output
    status, output = await run(tmp_path, "init", "--tenant", "compnies", database_url=database.dsn)
    assert (status, output) == (2, "notifier: no table compnies; did you mean companies?\n")


async def test_without_a_table_of_companies_it_must_be_named(database: Database) -> None:
    await database.execute(
        "DROP TABLE events, employees, companies; CREATE TABLE things (id int PRIMARY KEY)"
    )
    with pytest.raises(SettingsError, match="name it: notifier init --tenant TABLE"):
        await propose(database.dsn, None)


async def test_schemas_with_the_same_tables_are_proposed_as_a_pattern(database: Database) -> None:
    for schema in ("work_1", "work_2", '"work_Ü"'):
        await database.execute(
            f"""
            CREATE SCHEMA {schema};
            CREATE TABLE {schema}.person (id int PRIMARY KEY, user_id text, password_hash text);
            CREATE TABLE {schema}."Deal" (id int PRIMARY KEY, title text)
            """
        )
    text = await propose(database.dsn, None)
    assert "# The schemas work_1, work_2, work_Ü have the same tables: one for each tenant." in text
    for line in (
        "table = 'work_*.\"Deal\"'",
        'table = "work_*.person"',
        'company = "schema"  # the name of the schema',
        'member = "user_id"  # the row gives this user access to its company',
        'exclude = ["password_hash"]',
        'table = "events"',
    ):
        assert line in text
    assert "work_1." not in text
    watches = [Watch.from_json(json.dumps(each)) for each in tomllib.loads(text)["watch"]]
    await migrate(database.dsn, watches=watches)
    assert await database.fetchval("SELECT count(DISTINCT tenant) FROM notifier.watches") == 3
    await database.execute("DROP TABLE events, employees, companies")
    assert "work_*.person" in await propose(database.dsn, None)


async def test_no_name_in_the_database_adds_a_line_to_the_file(database: Database) -> None:
    """A scope in it would decide on access, by a query that runs as the role of `serve`."""
    scope = '[[scope]]\nname = "x"\nmembership = "SELECT true"\n#'
    names = [f'"\n{scope}', f"'\n{scope}", f"\n{scope}", "'\\\"\x7f\x1b"]
    for n, name in enumerate(names):
        given = '"' + name.replace('"', '""') + '"'
        await database.execute(
            f"CREATE TABLE {given} (id int PRIMARY KEY, company_id uuid NOT NULL REFERENCES companies, {given} int);"
            f'CREATE TABLE "{n}{given[1:]} (id int PRIMARY KEY);'
            f'CREATE SCHEMA "tenant_{n}{given[1:]}; CREATE TABLE "tenant_{n}{given[1:]}.person (id int PRIMARY KEY)'
        )
    text = await propose(database.dsn, None)
    found = tomllib.loads(text)
    assert set(found) == {"watch"}
    tables = {watch["table"] for watch in found["watch"]}
    assert {'"' + name.replace('"', '""') + '"' for name in names} <= tables
    assert "tenant_*.person" in tables
