"""Rows that only some users of a company see: live, in resumes and over HTTP, on two nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clients import Client, Message
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.natsd import NatsServer
from tests.service.http_streams import poll, stream
from tests.service.test_nats import on_path
from tests.services import run

NOTES = """
    CREATE TABLE members (id int PRIMARY KEY, team int NOT NULL, login text);
    CREATE TABLE notes (id int PRIMARY KEY, team int NOT NULL, body text, owner text, readers text[]);
    INSERT INTO members VALUES (1, 7, 'ada'), (2, 7, 'bob'), (3, 7, 'eve')
"""
NOTES_TOML = """
[[watch]]
table = "members"
entity = "Member"
company = "team"
member = "login"

[[watch]]
table = "notes"
entity = "Note"
company = "team"
visible_to = ["owner", "readers"]
"""
HISTORY = (
    "INSERT INTO notes VALUES (1, 7, 'of ada', 'ada', NULL)",
    "INSERT INTO notes VALUES (2, 7, 'of all', NULL, '{}')",
    "UPDATE notes SET readers = '{bob}', body = 'of ada and bob' WHERE id = 1",
    "UPDATE notes SET owner = '', body = 'of bob' WHERE id = 1",
    "UPDATE notes SET readers = NULL, body = 'of all now' WHERE id = 1",
    "UPDATE notes SET owner = 'eve', body = 'of eve' WHERE id = 2",
    "DELETE FROM notes WHERE id = 2",
    "INSERT INTO notes VALUES (3, 7, 'of eve alone', 'eve', NULL)",
)
SEEN = {
    "ada": [
        ("NoteCreated", "of ada", None),
        ("NoteCreated", "of all", None),
        ("NoteUpdated", "of ada and bob", "of ada"),
        ("NoteDeleted", "of ada and bob", None),
        ("NoteCreated", "of all now", None),
        ("NoteDeleted", "of all", None),
    ],
    "bob": [
        ("NoteCreated", "of all", None),
        ("NoteCreated", "of ada and bob", None),
        ("NoteUpdated", "of bob", "of ada and bob"),
        ("NoteUpdated", "of all now", "of bob"),
        ("NoteDeleted", "of all", None),
    ],
    "eve": [
        ("NoteCreated", "of all", None),
        ("NoteCreated", "of all now", None),
        ("NoteUpdated", "of eve", "of all"),
        ("NoteDeleted", "of eve", None),
        ("NoteCreated", "of eve alone", None),
    ],
}


def unseen(messages: list[Message], user: str) -> list[str]:
    """What only other users see and is in the messages all the same, whatever their types."""
    text = json.dumps(messages)
    return [
        body
        for each in SEEN.values()
        for _, body, _ in each
        if not any(body in seen for seen in SEEN[user]) and json.dumps(body) in text
    ]


def notes(messages: list[Message]) -> list[tuple[str, str, str | None]]:
    """What a client got of the notes; every position is covered."""
    got, covered = [], None
    for message in messages:
        if (position := message.get("Position")) is None:
            continue
        is_skipped = message["Type"] == "Skipped"
        assert covered is None or position == covered + 1 or (is_skipped and position > covered)
        covered = position
        if not is_skipped:
            old = message.get("Old", {}).get("Body")
            got.append((message["Type"], message["Data"]["Body"], old))
    return got


async def follows(client: Client, where: Any = None, **data: Any) -> None:
    filters = {} if where is None else {"where": {"Note": where}}
    await client.send({"type": "subscribe", "data": {"companyId": "7", **filters, **data}})
    answer = await client.next("SubscribeResult")
    assert answer["Success"], answer


async def reaches(client: Client, position: int) -> None:
    await client.received(lambda seen: any(each.get("Position") == position for each in seen))


async def test_each_user_gets_the_rows_that_the_user_sees_live_and_in_resumes_on_both_nodes(
    database: Database, serve: Serve, connect: Connect, nats: NatsServer, tmp_path: Path
) -> None:
    await database.execute(NOTES)
    (tmp_path / "notifier.toml").write_text(NOTES_TOML)
    status, output = await run(tmp_path, "migrate", database_url=database.dsn)
    assert status == 0, output
    services = [await serve(database, nats_url=nats.url), await serve(database, nats_url=nats.url)]
    for service in services:
        await on_path(service, "nats")  # the first one relays
    await database.relayed()
    live = [(user, await connect(each, user)) for each in services for user in SEEN]
    for _, client in live:
        await follows(client)
    filtered = await connect(services[1], "bob")
    await follows(filtered, {"Body": ["of ada", "of all"]})
    *others, last = HISTORY
    for statement in others:
        await database.execute(statement)
    number = await database.fetchval(f"{last} RETURNING pg_current_xact_id()::text")
    ada = live[0][1]
    await ada.send({"type": "await", "data": {"companyId": "7", "tx": number}})
    assert (await ada.next("Arrived"))["Data"]["Position"] == len(HISTORY)

    resumed = []
    epoch = await database.fetchval("SELECT epoch FROM notifier.log")
    for service in services:
        for user in SEEN:
            client = await connect(service, user)
            await follows(client, after=0, epoch=epoch)
            resumed.append((user, client))
    for user, client in [*live, *resumed]:
        await reaches(client, len(HISTORY))
        assert notes(client.messages) == SEEN[user], user
        assert not unseen(client.messages, user)
    await reaches(filtered, len(HISTORY))
    # A row that bob did not see before, or does not see after, does not pass by what is hidden in it.
    assert notes(filtered.messages) == [
        ("NoteCreated", "of all", None),
        ("NoteDeleted", "of all", None),
    ]
    for user, expected in SEEN.items():
        page = (await poll(services[1], user, "7", after=0, epoch=epoch)).json()
        async with stream(services[0], user, "7", after=0, epoch=epoch) as events:
            received = [(await events.event()).message]  # SubscribeResult
            while received[-1].get("Position") != len(HISTORY):
                received.append((await events.event()).message)
        assert page["Position"] == len(HISTORY)
        for messages in (page["Messages"], received):
            assert notes(messages) == expected
            assert not unseen(messages, user)
