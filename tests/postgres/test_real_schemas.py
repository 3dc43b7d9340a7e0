"""The schemas of docs/schemas.md under random writes: every client has the rows, and every user the companies, of the tables.

Each transaction writes a few rows: it may move them or their parents, mark them as deleted, or change members. Then
each client that is still subscribed must hold exactly the rows that the tables show for its company, and a user must be
subscribed if and only if the tables show the membership. The ledger is a query for each.
"""

from __future__ import annotations

import json
import random
import tomllib
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest

from notifier.database.schema import migrate
from notifier.delivery.session import Session
from notifier.settings import load
from tests.chaos.local import LocalNode, Voice
from tests.databases import Connection, Database
from tests.service.worked import worked
from tests.services import SECRET, token
from tests.waiting import until

ROUNDS = 16

HEAD = """
    SELECT greatest((SELECT position FROM notifier.positions WHERE company = $1),
                    (SELECT max(position) FROM notifier.messages WHERE company = $1), 0)
"""


@dataclass(frozen=True)
class Ledger:
    """An example of docs/schemas.md, and what its tables mean.

    `writes`: statements, each with its weight; {n} is the number of the write, {r} a random number. `rows`: by entity, the key and a
    value of each row of company $1. `value`: the property that has it. `member`: whether user $2 belongs to company $1.
    """

    heading: str
    begin: str
    companies: tuple[str, ...]
    users: tuple[str, ...]
    writes: tuple[tuple[int, str], ...]
    rows: dict[str, str]
    values: dict[str, str]
    member: str


BOOKINGS = Ledger(
    "Bookings of teams and of users",
    """
    INSERT INTO "Membership" VALUES (1, 3, 1, true), (2, 3, 2, false), (3, 4, 2, true);
    INSERT INTO "EventType" VALUES (1, 3, 30), (2, 4, 30), (3, NULL, 15)
    """,
    companies=("team:3", "team:4", "user:1", "user:2"),
    users=("1", "2"),
    writes=(
        (8, """INSERT INTO "Booking" VALUES ({n}, 1 + {r} % 3, 1 + {r} % 2, '{n}')"""),
        (4, """UPDATE "Booking" SET title = '{n}' WHERE id % 5 = {r} % 5"""),
        (
            3,
            """UPDATE "Booking" SET "cancelledAt" = CASE WHEN "cancelledAt" IS NULL THEN now() END WHERE id % 4 = {r} % 4""",
        ),
        (2, """UPDATE "Booking" SET "eventTypeId" = 1 + {n} % 3 WHERE id % 3 = {r} % 3"""),
        (2, """UPDATE "Booking" SET "userId" = nullif(1 + {n} % 3, 3) WHERE id % 3 = {r} % 3"""),
        (3, """UPDATE "EventType" SET "teamId" = nullif(3 + {n} % 3, 5) WHERE id = 1 + {r} % 3"""),
        (
            6,
            """INSERT INTO "Attendee" SELECT id, 'a{n}@x', '{n}' FROM "Booking" ORDER BY id % 7, id LIMIT 1""",
        ),
        (2, """DELETE FROM "Booking" WHERE id % 6 = {r} % 6"""),
        (1, """DELETE FROM "EventType" WHERE id = 3"""),
        (2, """INSERT INTO "EventType" VALUES (3, 4, 15) ON CONFLICT DO NOTHING"""),
        (3, """UPDATE "Membership" SET accepted = NOT accepted WHERE id = 1 + {r} % 3"""),
        (1, """DELETE FROM "Membership" WHERE id = 1 + {r} % 3"""),
        (
            2,
            """INSERT INTO "Membership" VALUES (1, 3, 1, true), (3, 4, 2, true) ON CONFLICT DO NOTHING""",
        ),
    ),
    rows={
        "Booking": """
            SELECT b.id::text, b.title FROM "Booking" AS b LEFT JOIN "EventType" AS e ON e.id = b."eventTypeId"
            WHERE b."cancelledAt" IS NULL AND $1 IN ('team:' || e."teamId", 'user:' || b."userId")
        """,
        "Attendee": """
            SELECT json_build_array(a."bookingId", a.email)::text, a.name FROM "Attendee" AS a
            JOIN "Booking" AS b ON b.id = a."bookingId" JOIN "EventType" AS e ON e.id = b."eventTypeId"
            WHERE $1 = 'team:' || e."teamId"
        """,
    },
    values={"Booking": "Title", "Attendee": "Name"},
    member="""
        SELECT $1 = 'user:' || $2 OR EXISTS (
            SELECT FROM "Membership" WHERE $1 = 'team:' || "teamId" AND "userId"::text = $2 AND accepted)
    """,
)

DESK = Ledger(
    "A support desk: companies along foreign keys",
    """
    INSERT INTO accounts VALUES (1, 'a'), (2, 'b');
    INSERT INTO account_users VALUES (1, 1, 11), (2, 2, 12);
    INSERT INTO inboxes VALUES (1, 1), (2, 2), (3, 1)
    """,
    companies=("1", "2"),
    users=("11", "12"),
    writes=(
        (4, "INSERT INTO conversations VALUES ({n}, 1 + {r} % 3, '{n}')"),
        (
            8,
            "INSERT INTO messages SELECT {n}, id, '{n}' FROM conversations ORDER BY id % (1 + {r} % 5), id LIMIT 1",
        ),
        (
            4,
            "INSERT INTO attachments SELECT {n}, id, '{n}' FROM messages ORDER BY id % (1 + {r} % 5), id LIMIT 1",
        ),
        (3, "UPDATE messages SET content = '{n}' WHERE id % 5 = {r} % 5"),
        (3, "UPDATE messages SET deleted = NOT deleted WHERE id % 4 = {r} % 4"),
        (
            2,
            "UPDATE messages SET conversation_id = (SELECT max(id) FROM conversations) WHERE id % 5 = {r} % 5",
        ),
        (
            4,
            "UPDATE conversations SET inbox_id = 1 + {n} % 2, status = '{n}' WHERE id % 3 = {r} % 3",
        ),
        (3, "UPDATE inboxes SET account_id = 1 + {n} % 2 WHERE id = 1 + {r} % 3"),
        (1, "DELETE FROM conversations WHERE id % 6 = {r} % 6"),
        (1, "DELETE FROM inboxes WHERE id = 3"),
        (2, "INSERT INTO inboxes VALUES (3, 2) ON CONFLICT DO NOTHING"),
        (2, "DELETE FROM account_users WHERE id = 1 + {r} % 2"),
        (3, "INSERT INTO account_users VALUES (1, 1, 11), (2, 2, 12) ON CONFLICT DO NOTHING"),
        (2, "UPDATE account_users SET account_id = 3 - account_id WHERE id = 1 + {r} % 2"),
    ),
    rows={
        "Conversation": """
            SELECT c.id::text, c.status FROM conversations AS c JOIN inboxes AS i ON i.id = c.inbox_id
            WHERE i.account_id::text = $1
        """,
        "Message": """
            SELECT m.id::text, m.content FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id
            JOIN inboxes AS i ON i.id = c.inbox_id WHERE i.account_id::text = $1 AND NOT m.deleted
        """,
        "Attachment": """
            SELECT a.id::text, a.file_name FROM attachments AS a JOIN messages AS m ON m.id = a.message_id
            JOIN conversations AS c ON c.id = m.conversation_id
            JOIN inboxes AS i ON i.id = c.inbox_id WHERE i.account_id::text = $1
        """,
    },
    values={"Conversation": "Status", "Message": "Content", "Attachment": "FileName"},
    member="SELECT EXISTS (SELECT FROM account_users WHERE account_id::text = $1 AND user_id::text = $2)",
)

CHAT = Ledger(
    "A chat: soft deletions, keys of several columns, times without a zone",
    "INSERT INTO members VALUES (1, 7, 'ada', NULL, true), (2, 7, 'bob', NULL, true), (3, 8, 'ada', NULL, false)",
    companies=("7", "8"),
    users=("ada", "bob"),
    writes=(
        (8, "INSERT INTO posts VALUES ({n}, 7 + {r} % 2, '{n}', now(), false)"),
        (4, "UPDATE posts SET body = '{n}' WHERE id % 5 = {r} % 5"),
        (3, "UPDATE posts SET deleted = NOT deleted WHERE id % 4 = {r} % 4"),
        (3, "UPDATE posts SET team = 15 - team WHERE id % 5 = {r} % 5"),
        (2, "DELETE FROM posts WHERE id % 6 = {r} % 6"),
        (4, "INSERT INTO reactions VALUES ({r}, 'wave', 7 + {r} % 2) ON CONFLICT DO NOTHING"),
        (2, "UPDATE reactions SET emoji = '{n}', team = 15 - team WHERE post % 5 = {r} % 5"),
        (
            2,
            "UPDATE members SET left_at = CASE WHEN left_at IS NULL THEN now() END WHERE id = 1 + {r} % 3",
        ),
        (2, "UPDATE members SET accepted = accepted IS NOT TRUE WHERE id = 1 + {r} % 3"),
        (2, "UPDATE members SET team = 15 - team WHERE id = 1 + {r} % 3"),
        (
            1,
            "UPDATE members SET login = CASE login WHEN 'ada' THEN 'bob' ELSE 'ada' END WHERE id = 1 + {r} % 3",
        ),
    ),
    rows={
        "Post": "SELECT id::text, body FROM posts WHERE team::text = $1 AND NOT deleted",
        "Reaction": "SELECT json_build_array(post, emoji)::text, emoji FROM reactions WHERE team::text = $1",
    },
    values={"Post": "Body", "Reaction": "Emoji"},
    member="SELECT EXISTS (SELECT FROM members WHERE team::text = $1 AND login = $2 AND accepted AND left_at IS NULL)",
)

ONE, TWO = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
ADA, BOB = "00000000-0000-4000-8000-0000000000a1", "00000000-0000-4000-8000-0000000000b1"
TRACKER = Ledger(
    "Project tracking: uuids, a path, members that are switched off",
    f"""
    INSERT INTO workspaces VALUES ('{ONE}', 'one'), ('{TWO}', 'two');
    INSERT INTO workspace_members (workspace_id, member_id) VALUES ('{ONE}', '{ADA}'), ('{ONE}', '{BOB}'), ('{TWO}', '{BOB}');
    INSERT INTO projects SELECT md5(n::text)::uuid, CASE n % 2 WHEN 0 THEN '{ONE}' ELSE '{TWO}' END::uuid, n
    FROM generate_series(1, 4) AS n
    """,
    companies=(ONE, TWO),
    users=(ADA, BOB),
    writes=(
        (
            8,
            "INSERT INTO issues SELECT md5('i{n}')::uuid, id, '{n}' FROM projects WHERE id = md5((1 + {r} % 4)::text)::uuid",
        ),
        (4, "UPDATE issues SET name = '{n}' WHERE get_byte(uuid_send(id), 0) % 5 = {r} % 5"),
        (
            3,
            (
                "UPDATE issues SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END"
                " WHERE get_byte(uuid_send(id), 1) % 4 = {r} % 4"
            ),
        ),
        (
            3,
            "UPDATE issues SET project_id = md5((1 + {n} % 4)::text)::uuid WHERE get_byte(uuid_send(id), 2) % 5 = {r} % 5",
        ),
        (
            3,
            (
                f"UPDATE projects SET workspace_id = CASE {{n}} % 2 WHEN 0 THEN '{ONE}' ELSE '{TWO}' END::uuid"
                " WHERE id = md5((1 + {r} % 4)::text)::uuid"
            ),
        ),
        (
            2,
            (
                "UPDATE projects SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END, name = '{n}'"
                " WHERE id = md5((1 + {r} % 4)::text)::uuid"
            ),
        ),
        (1, "DELETE FROM projects WHERE id = md5('4')::uuid"),
        (
            2,
            f"INSERT INTO projects VALUES (md5('4')::uuid, '{ONE}', '{{n}}') ON CONFLICT DO NOTHING",
        ),
        (3, f"UPDATE workspace_members SET is_active = NOT is_active WHERE member_id = '{ADA}'"),
        (
            3,
            (
                "UPDATE workspace_members SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END"
                f" WHERE member_id = '{BOB}' AND workspace_id = '{TWO}'"
            ),
        ),
        (1, f"DELETE FROM workspace_members WHERE member_id = '{BOB}' AND workspace_id = '{ONE}'"),
        (
            2,
            f"INSERT INTO workspace_members (workspace_id, member_id) VALUES ('{ONE}', '{BOB}') ON CONFLICT DO NOTHING",
        ),
    ),
    rows={
        "Project": "SELECT id::text, name FROM projects WHERE workspace_id::text = $1 AND deleted_at IS NULL",
        "Issue": """
            SELECT i.id::text, i.name FROM issues AS i JOIN projects AS p ON p.id = i.project_id
            WHERE p.workspace_id::text = $1 AND i.deleted_at IS NULL
        """,
    },
    values={"Project": "name", "Issue": "title"},
    member="""
        SELECT EXISTS (SELECT FROM workspace_members
                       WHERE workspace_id::text = $1 AND member_id::text = $2 AND is_active AND deleted_at IS NULL)
    """,
)

ACME, OTHER = "workspace_acme", "workspace_Müller & Co"
CRM = Ledger(
    "A schema per workspace",
    f"""
    INSERT INTO {ACME}.person VALUES (1, 'ada', '', 'argon2'), (2, 'bob', '', 'argon2');
    INSERT INTO "{OTHER}".person VALUES (1, 'ada', '', 'argon2')
    """,
    companies=(ACME, OTHER),
    users=("ada", "bob"),
    writes=(
        *(
            (weight, statement.replace("SCHEMA", f'"{schema}"'))
            for schema in (ACME, OTHER)
            for weight, statement in (
                (8, "INSERT INTO SCHEMA.deal VALUES ({n}, '{n}', {r})"),
                (4, "UPDATE SCHEMA.deal SET title = '{n}' WHERE id % 5 = {r} % 5"),
                (
                    3,
                    "UPDATE SCHEMA.deal SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE id % 4 = {r} % 4",
                ),
                (
                    2,
                    "UPDATE SCHEMA.deal SET id = {n} + 100000 WHERE id = (SELECT max(id) FROM SCHEMA.deal)",
                ),
                (2, "DELETE FROM SCHEMA.deal WHERE id % 6 = {r} % 6"),
                (2, "UPDATE SCHEMA.person SET name = '{n}', password_hash = '{n}'"),
                (
                    2,
                    "UPDATE SCHEMA.person SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE id = 1 + {r} % 2",
                ),
                (
                    2,
                    "UPDATE SCHEMA.person SET user_id = CASE user_id WHEN 'ada' THEN 'bob' ELSE 'ada' END WHERE id = 1 + {r} % 2",
                ),
                (1, "DELETE FROM SCHEMA.person WHERE id = 1"),
                (
                    2,
                    "INSERT INTO SCHEMA.person VALUES (1, 'bob', '{n}', 'argon2') ON CONFLICT DO NOTHING",
                ),
            )
        ),
        (
            3,
            f"""WITH moved AS (DELETE FROM {ACME}.deal WHERE id % 5 = {{r}} % 5 RETURNING *)
                INSERT INTO "{OTHER}".deal SELECT * FROM moved ON CONFLICT DO NOTHING""",
        ),
    ),
    rows={
        entity: f"""
            SELECT id::text, {value} FROM {ACME}.{table} WHERE deleted_at IS NULL AND $1 = '{ACME}'
            UNION ALL SELECT id::text, {value} FROM "{OTHER}".{table} WHERE deleted_at IS NULL AND $1 = '{OTHER}'
        """
        for entity, table, value in (("Deal", "deal", "title"), ("Person", "person", "name"))
    },
    values={"Deal": "Title", "Person": "Name"},
    member=f"""
        SELECT EXISTS (SELECT FROM {ACME}.person WHERE $1 = '{ACME}' AND user_id = $2 AND deleted_at IS NULL)
            OR EXISTS (SELECT FROM "{OTHER}".person WHERE $1 = '{OTHER}' AND user_id = $2 AND deleted_at IS NULL)
    """,
)

PERSONAL = Ledger(
    "Rows of single users",
    "",
    companies=(ADA, BOB),
    users=(ADA, BOB),
    writes=(
        (
            8,
            f"INSERT INTO todos VALUES ({{n}}, CASE {{r}} % 2 WHEN 0 THEN '{ADA}' ELSE '{BOB}' END::uuid, '{{n}}')",
        ),
        (4, "UPDATE todos SET task = '{n}' WHERE id % 5 = {r} % 5"),
        (
            3,
            f"UPDATE todos SET user_id = CASE {{n}} % 2 WHEN 0 THEN '{ADA}' ELSE '{BOB}' END::uuid WHERE id % 5 = {{r}} % 5",
        ),
        (2, "DELETE FROM todos WHERE id % 6 = {r} % 6"),
    ),
    rows={"Todo": "SELECT id::text, task FROM todos WHERE user_id::text = $1"},
    values={"Todo": "Task"},
    member="SELECT $1 = $2",
)

LEDGERS = {
    "bookings": BOOKINGS,
    "support desk": DESK,
    "chat": CHAT,
    "project tracking": TRACKER,
    "CRM": CRM,
    "rows of users": PERSONAL,
}


class Client:
    """A socket of a user, subscribed to a company with its state: the rows, as the messages show them."""

    def __init__(self, ledger: Ledger, user: str, company: str) -> None:
        self._ledger = ledger
        self.user = user
        self.company = company
        self.is_subscribed = False
        self.position = 0
        self.revoked = 0
        self._refusal: str | None = None
        self.rows: dict[str, dict[str, Any]] = {}
        self._is_stale = False
        self._session: Session | None = None
        self._voice = Voice()

    async def come(self, node: LocalNode) -> bool:
        """Connects and subscribes. Returns whether that was allowed."""
        self.leave()
        self._voice = Voice()
        self._session = Session(node.node.services, self._voice)
        await self._send(type="authenticate", token=token(self.user))
        self._refusal = None
        while not self.is_subscribed and self._refusal != "company_forbidden":  # not `unavailable`
            await self._subscribe()
        return self.is_subscribed

    async def _subscribe(self) -> None:
        self._is_stale = False
        await self._send(type="subscribe", data={"companyId": self.company, "state": True})

        async def answered() -> bool:
            self.take()
            return not self._is_stale or not self.is_subscribed

        self._is_stale = True
        await until(answered)

    async def _send(self, **command: Any) -> None:
        assert self._session is not None
        await self._session.receive(json.dumps(command))

    def leave(self) -> None:
        if self._session is not None:
            self._session.closed()

    def take(self) -> None:
        """Takes the messages since its last look."""
        received, self._voice.messages = self._voice.messages, []
        for message in received:
            self._take(message["Type"], message)

    def _take(self, kind: str, message: dict[str, Any]) -> None:
        data = message.get("Data", {})
        if kind == "SubscribeResult":
            self.is_subscribed = message["Success"]
            self._refusal = None if self.is_subscribed else message["Error"]["Code"]
            self.rows = {entity: {} for entity in self._ledger.rows}
        elif kind == "State" and data["Entity"] in self.rows:
            for row in data["Rows"]:
                self._put(data["Entity"], row)
        elif kind == "StateEnd":
            self.position, self._is_stale = data["Position"], False
        elif kind == "CompanyRevoked":
            self.is_subscribed = False
            self.revoked += 1
        elif "Position" in message:
            assert self.is_subscribed, "nothing comes after the end of access"
            assert message["Position"] == self.position + 1, message
            self.position = message["Position"]
            self._is_stale = self._is_stale or kind == "Resync"
            entity = kind.removesuffix("Created").removesuffix("Updated").removesuffix("Deleted")
            if entity in self.rows and kind.endswith("Deleted"):
                self.rows[entity].pop(self._key(entity, data), None)
            elif entity in self.rows and kind != "Resync":
                self._put(entity, data)

    def _put(self, entity: str, row: dict[str, Any]) -> None:
        named = row.get("CompanyId", row.get("companyId"))
        assert named is None or str(named) == self.company, row
        self.rows[entity][self._key(entity, row)] = row[self._ledger.values[entity]]

    def _key(self, entity: str, row: dict[str, Any]) -> str:
        name = f"{entity}Id"
        value = row[name] if name in row else row[name[0].lower() + name[1:]]
        return value if isinstance(value, str) else json.dumps(value)

    async def is_out(self) -> bool:
        """Whether it has lost the company."""
        self.take()
        return not self.is_subscribed

    async def level(self, head: int) -> bool:
        """Whether it has everything up to `head`, or has lost the company. It reads the state again after a Resync."""
        self.take()
        if self.is_subscribed and self._is_stale:
            await self._subscribe()
        return not self.is_subscribed or (self.position >= head and not self._is_stale)


async def write(connection: Connection, ledger: Ledger, choice: random.Random, number: int) -> int:
    """One transaction of a few random writes, which may be rolled back. Returns the next number."""
    weights, statements = zip(*ledger.writes, strict=True)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for statement in choice.choices(statements, weights, k=choice.randint(1, 4)):
            number += 1
            await connection.execute(statement.format(n=number, r=choice.randrange(1000)))
    except asyncpg.PostgresError:  # a key is taken, or a row that it refers to is gone
        await transaction.rollback()
    else:
        await (transaction.rollback() if choice.random() < 0.1 else transaction.commit())
    return number


@pytest.mark.parametrize("name", LEDGERS)
async def test_every_client_has_the_rows_and_every_user_the_companies_of_the_tables(
    empty: Database, name: str
) -> None:
    ledger, choice = LEDGERS[name], random.Random(name)
    example = worked(ledger.heading)
    await empty.execute(example.sql)
    if ledger.begin:
        await empty.execute(ledger.begin)
    given = {
        **tomllib.loads(example.toml),
        **{key.lower(): value for key, value in example.settings.items()},
    }
    settings = load({}, database_url=empty.dsn, jwt_secret=SECRET, **given)
    await migrate(
        empty.dsn,
        watches=settings.watch,
        scopes=settings.scope,
        membership_query=settings.membership_query,
    )
    node = LocalNode(empty.dsn, state="on", **given)
    await node.start()
    connection = await empty.connect()
    clients = [
        Client(ledger, user, company) for user in ledger.users for company in ledger.companies
    ]
    number = 0
    try:
        for _ in range(ROUNDS):
            for _ in range(choice.randint(1, 3)):
                number = await write(connection, ledger, choice, number)
            await empty.relayed()
            for client in clients:
                head = await empty.fetchval(HEAD, client.company)
                await until(partial(client.level, head))
                is_member = await empty.fetchval(ledger.member, client.company, client.user)
                if client.is_subscribed and not is_member:
                    await until(client.is_out)
                elif not client.is_subscribed:
                    assert await client.come(node) == is_member, (
                        number,
                        client.user,
                        client.company,
                    )
                if client.is_subscribed:
                    expected: dict[str, dict[str, Any]] = {}
                    for entity, query in ledger.rows.items():
                        found = await empty.fetch(query, client.company)
                        expected[entity] = {row[0]: row[1] for row in found}
                    assert client.rows == expected, (number, client.company)
    finally:
        for client in clients:
            client.leave()
        await node.stop()
    if ledger is not PERSONAL:
        assert sum(client.revoked for client in clients), (
            "no membership ended while a socket was open"
        )
