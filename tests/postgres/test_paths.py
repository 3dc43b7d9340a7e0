"""Companies that are found along foreign keys, in the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from notifier.database.schema import migrate
from notifier.watches import CALENDAR, Watch
from tests.databases import Connection, Database
from tests.postgres.relays import Json, Relayed

DESK = """
    CREATE TABLE inboxes (id int PRIMARY KEY, account bigint);
    CREATE TABLE conversations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), no int UNIQUE,
                                inbox int REFERENCES inboxes ON DELETE CASCADE, subject text);
    CREATE TABLE messages (id int PRIMARY KEY, conversation uuid REFERENCES conversations ON DELETE CASCADE, body text);
    GRANT ALL ON inboxes, conversations, messages TO PUBLIC;
    INSERT INTO inboxes VALUES (1, 7), (2, 8), (3, NULL), (4, 7);
    INSERT INTO conversations (no, inbox) VALUES (11, 1), (12, 2), (13, NULL), (14, 3), (15, 4)
"""
MESSAGES = Watch(
    table="messages",
    entity="Message",
    company="conversation -> conversations.inbox -> inboxes.account",
)
CONVERSATIONS = Watch(
    table="conversations",
    entity="Conversation",
    company="inbox -> public.inboxes.account",
    exclude=("no",),
)


async def watch(
    database: Database, watches: Sequence[Watch] = (MESSAGES, CONVERSATIONS)
) -> list[str]:
    lines: list[str] = []
    await migrate(database.dsn, watches=[*CALENDAR, *watches], report=lines.append)
    return lines


def conversation(no: int) -> str:
    return f"(SELECT id FROM conversations WHERE no = {no})"


def seen(messages: Sequence[Json]) -> list[tuple[str, object]]:
    return [
        (each["Type"], each["Data"].get("MessageId", each["Data"].get("Reason")))
        for each in messages
    ]


@pytest.fixture
async def desk(database: Database, relay: Relayed) -> Database:
    await database.execute(DESK)
    await watch(database)
    return database


async def test_a_row_belongs_to_the_company_at_the_end_of_its_path(
    desk: Database, app: Connection, relay: Relayed
) -> None:
    await app.execute(
        f"INSERT INTO messages VALUES (1, {conversation(11)}, 'a'), (2, {conversation(12)}, 'b'),"
        f" (3, {conversation(13)}, 'c'), (4, {conversation(14)}, 'd'), (5, NULL, 'e')"
    )
    await app.execute("UPDATE messages SET body = body || '!'")
    await app.execute(f"UPDATE messages SET conversation = {conversation(12)} WHERE id IN (1, 5)")
    await app.execute("DELETE FROM messages WHERE id = 2")
    seven = await relay.messages_of("7")
    assert seen(seven) == [("MessageCreated", 1), ("MessageUpdated", 1), ("MessageDeleted", 1)]
    data = seven[1]["Data"]
    assert data.pop("Conversation") == str(await app.fetchval(f"SELECT {conversation(11)}"))
    assert data == {"MessageId": 1, "CompanyId": 7, "Body": "a!"}
    assert seven[1]["Old"] == {"Body": "a"}
    assert seen(await relay.messages_of("8")) == [
        ("MessageCreated", 2),
        ("MessageUpdated", 2),
        ("MessageCreated", 1),
        ("MessageCreated", 5),
        ("MessageDeleted", 2),
    ]
    assert await watch(desk) == []
