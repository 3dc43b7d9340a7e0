"""`notifier.writers`: actor and number of a transaction, from each framework to the socket, as documented."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.test_embedding import Start, needs, start  # noqa: F401 - a fixture
from tests.services import ROOT
from tests.waiting import DEADLINE_SECONDS, until


def example(heading: str, number: int = 0) -> str:
    """A block of Python in docs/writers.md, under its heading."""
    section = (ROOT / "docs" / "writers.md").read_text().split(f"\n## {heading}\n")[1]
    return str(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[number])


async def run(place: Path, code: str) -> list[str]:
    """Runs Python; returns the lines that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PYTHONPATH": f"{ROOT}:{place}"},
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().splitlines()


class Room:
    """A company with one event, and a client that follows it."""

    def __init__(self, calendar: Calendar, client: Client, event: str) -> None:
        self.calendar, self.client, self.event = calendar, client, event

    async def changes(self, *titles: str) -> list[tuple[str | None, str]]:
        """Actor and transaction of the next messages, which have these titles."""
        found = []
        for title in titles:
            message = await self.client.expect("EventUpdated")
            assert message["Data"]["Title"] == title
            found.append((message.get("Actor"), message["Tx"]))
        return found


async def enter(database: Database, serve: Serve, connect: Connect) -> Room:
    calendar = Calendar(database)
    service = await serve(database)
    company = await calendar.company("u1")
    event = await calendar.event(company)
    await database.relayed()
    return Room(calendar, await connect(service, "u1", company), event)


async def test_sqlalchemy_names_the_actor_of_each_transaction(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    needs("psycopg")
    room = await enter(database, serve, connect)
    url = database.dsn.replace("postgresql:", "postgresql+psycopg:")
    code = example("SQLAlchemy").replace("postgresql+psycopg:///calendar", url)
    code += f"""
event = {room.event!r}
print(rename("u7", event, "first"))
with Session.begin() as session:
    session.execute(text("UPDATE events SET title = 'second'"))
record_actor(Session)
with acting_as(lambda: 8), Session.begin() as session:
    session.begin_nested().rollback()
    session.execute(text("UPDATE events SET title = 'third'"))
    with acting_as(None):
        session.execute(text("SELECT 1"))
with acting_as(None), Session.begin() as session:
    session.execute(text("UPDATE events SET title = 'fourth'"))
"""
    [tx] = await run(tmp_path, code)
    changes = await room.changes("first", "second", "third", "fourth")
    assert changes[0] == ("u7", tx)
    assert [actor for actor, _ in changes[1:]] == [None, "8", None]


async def test_fastapi_names_the_actor_of_each_request(
    database: Database,
    serve: Serve,
    connect: Connect,
    start: Start,  # noqa: F811
    tmp_path: Path,
) -> None:
    needs("fastapi")
    room = await enter(database, serve, connect)
    (tmp_path / "app.py").write_text(example("FastAPI"))
    url = database.dsn.replace("postgresql:", "postgresql+asyncpg:")
    server = await start(
        *(sys.executable, "-m", "uvicorn", "--port", "PORT", "app:app"),
        environ={"DATABASE_URL": url},
    )

    async def rename(title: str, **headers: str) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_SECONDS) as client:
            return (
                await client.put(
                    f"http://127.0.0.1:{server.port}/events/{room.event}/title",
                    params={"title": title},
                    headers=headers,
                )
            ).json()

    async def listens() -> bool:
        assert server.process.returncode is None, server.log.read_text()
        return "running on" in server.log.read_text()

    await until(listens)
    first, second = await rename("first", **{"X-User": "u7"}), await rename("second")
    assert await room.changes("first", "second") == [("u7", first["tx"]), (None, second["tx"])]
    assert "Traceback" not in server.log.read_text()


DJANGO = """
import asyncio, django, json
from django.conf import settings
{settings}
settings.configure(
    DATABASES={{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": {name!r}, "HOST": {host!r},
                            "PORT": {port!r}, "USER": "postgres"}}}},
    ROOT_URLCONF="shop_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="s",
    MIDDLEWARE=["shop_users.middleware", MIDDLEWARE[-1]],
)
django.setup()

from django.db import connection, transaction
from django.test import AsyncClient, Client
from notifier.writers import acting_as
from psycopg import sql
from notifier.writers.django import current_tx, record_actor

url = "/events/{event}/title"
with transaction.atomic():  # as a TestCase, which begins its transaction before the middleware is there
    connection.cursor().execute("SELECT 1")
    print(Client().get(url, {{"title": "first"}}, headers={{"x-user": "u7"}}).json()["tx"])

async def asynchronously():
    return (await AsyncClient().get(url, {{"title": "second"}}, headers={{"x-user": "u8"}})).json()["tx"]

print(asyncio.run(asynchronously()))
print(Client().get(url, {{"title": "third"}}).json()["tx"])

def write(title):
    with connection.cursor() as cursor:
        cursor.execute("WITH done AS (UPDATE events SET title = %s RETURNING id) SELECT id FROM done", [title])
        assert len(cursor.fetchall()) == 1

@transaction.atomic
def in_a_block(title):
    connection.cursor().execute("SELECT 1")
    write(title)

record_actor()
with acting_as("u7"):
    write("fourth")
    in_a_block("fifth")
    in_a_block("sixth")
    with transaction.atomic():
        try:
            with transaction.atomic():
                write("undone")
                raise ValueError
        except ValueError:
            pass
        write("seventh")
    with transaction.atomic(), acting_as("u8"):
        write("eighth")
    composed = sql.SQL("-- a\\n/* b */ UPDATE events SET title = {{}}").format(sql.Literal("ninth"))
    connection.cursor().execute(composed)
write("tenth")
try:
    current_tx()
except transaction.TransactionManagementError:
    print("needs a transaction")
"""

USERS = """
from types import SimpleNamespace

def middleware(get_response):
    def answer(request):
        request.user = SimpleNamespace(pk=request.headers.get("x-user"))
        return get_response(request)

    return answer
"""


async def test_django_names_the_actor_of_each_transaction_that_writes(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    needs("django", "psycopg")
    room = await enter(database, serve, connect)
    (tmp_path / "shop_users.py").write_text(USERS)
    (tmp_path / "shop_urls.py").write_text(example("Django", 1))
    host, port = database.address
    code = DJANGO.format(
        settings=example("Django"), name=database.name, host=host, port=port, event=room.event
    )
    first, second, third, refusal = await run(tmp_path, code)
    assert refusal == "needs a transaction"
    changes = await room.changes("first", "second", "third")
    assert changes == [("u7", first), ("u8", second), (None, third)]
    changes = await room.changes("fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    assert [actor for actor, _ in changes] == ["u7", "u7", "u7", "u7", "u8", "u7", None]
