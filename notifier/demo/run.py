"""`notifier demo`: an embedded PostgreSQL, sample companies, the server, and the live page."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from notifier import server
from notifier.access.tokens import sign
from notifier.database import schema
from notifier.database.connections import connect
from notifier.demo import api, nodes
from notifier.demo.postgres import EmbeddedPostgres, default_directory
from notifier.node import Node
from notifier.settings import Settings
from notifier.watches import Watch

STATIC = Path(__file__).parent / "static"
SAMPLES = Path(__file__).with_name("samples.sql")

USER = "ann"
"""The user whose token is printed: an employee of both sample companies."""

WATCHES = tuple(Watch(**watch) for watch in tomllib.loads(nodes.CONFIG.read_text())["watch"])

DAY = 24 * 3600
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def run(port: int, data: Path | None, write: Callable[[str], None], count: int = 1) -> None:
    """Runs `count` nodes until it is interrupted; leaves no process behind. Raises NotifierError.

    The further nodes listen on the ports after `port`.
    """
    server.raise_file_limit()
    directory = data if data is not None else default_directory()
    listening = server.bind("127.0.0.1", port)
    others = [nodes.free_port(port and port + number) for number in range(1, count)]
    progress = sys.stderr.isatty()
    if progress:
        print("starting PostgreSQL …", file=sys.stderr)
    with (
        EmbeddedPostgres(directory) as postgres,
        nodes.nats() if others else nullcontext() as nats_url,
    ):
        url = postgres.dsn()
        settings = Settings(
            database_url=SecretStr(url),
            listen_database_url=SecretStr(url),
            jwt_secret=SecretStr(_secret(directory)),
            jwt_public_key=None,
            jwks_url=None,
            host="127.0.0.1",
            port=listening.getsockname()[1],
            authorization="employees",
            watch=WATCHES,
            state="on",
            nats_url=nats_url,
        )
        company = asyncio.run(_prepare(settings.database, settings.max_log_bytes))
        with nodes.further(settings, others):
            place = _Place(company, postgres, others)
            server.runner()(_demo(settings, place, [listening], write))


@dataclass(frozen=True)
class _Place:
    """The printed values: the first company, PostgreSQL's programs, and the ports of the further nodes."""

    company: str
    postgres: EmbeddedPostgres
    others: list[int]


async def _demo(
    settings: Settings, place: _Place, sockets: list[server.Socket], write: Callable[[str], None]
) -> None:
    url = settings.database
    assert settings.jwt_secret is not None
    secret = settings.jwt_secret.get_secret_value()

    def token(user: str) -> str:
        return sign(user, None, DAY, secret)

    node = Node(settings, _routes(url, token))

    def ready() -> None:
        page = f"http://127.0.0.1:{settings.port}/"
        company, psql = place.company, place.postgres.program("psql")
        client = str(psql) if psql.exists() else "psql"
        write(f"page: {page}")
        write(f"socket: ws://127.0.0.1:{settings.port}/")
        write(f"database: {url}")
        write(f"company: {company}")
        write(f"user: {USER}")
        write(f"token: {token(USER)}")
        write(
            f'try: {client} {url} -c "INSERT INTO events (company_id, title, starts_at, ends_at)'
            f" VALUES ('{company}', 'Coffee', now(), now() + interval '1 hour')\""
        )
        for port in (settings.port, *place.others):
            write(
                f"listen: {_program()} listen --url ws://127.0.0.1:{port}/ --company {company}"
                f" --token {token(USER)}"
            )
        if place.others:
            found = settings.nats_url
            write(
                f"nats: {found.get_secret_value() if found else 'none, nats-server is not installed'}"
            )
        write("stop: Ctrl-C")

    await server.serve(node, settings, sockets, ready, server.bind_status(settings))


def _routes(url: str, token: Callable[[str], str]) -> list[BaseRoute]:
    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html", headers=SECURITY)

    return [
        Route("/", page),
        Mount("/static", StaticFiles(directory=STATIC)),
        *api.routes(url, token),
    ]


async def _prepare(url: str, max_log_bytes: int) -> str:
    """Prepares the database for the demo; returns the id of the first company."""
    await _migrate(url, max_log_bytes)
    return await _samples(url)


async def _migrate(url: str, max_log_bytes: int) -> None:
    """Creates the calendar, gives events a column for the users who see them, and watches it."""
    connection = await connect(url, "demo", pinned=False)
    try:
        if not await connection.fetchval("SELECT to_regclass('public.events') IS NOT NULL"):
            # Events are watched only once they have the column: a later `visible_to` empties the log.
            others = [watch for watch in WATCHES if watch.table != "events"]
            await schema.migrate(url, calendar=True, watches=others, max_log_bytes=max_log_bytes)
        await connection.execute("ALTER TABLE events ADD COLUMN IF NOT EXISTS private_to text[]")
    finally:
        connection.terminate()
    await schema.migrate(url, calendar=True, watches=WATCHES, max_log_bytes=max_log_bytes)


async def _samples(url: str) -> str:
    """Adds two companies with people and events if there is none yet; returns the first one's id."""
    connection = await connect(url, "demo", pinned=False)
    try:
        async with connection.transaction():
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM companies)"):
                await connection.execute(SAMPLES.read_text(encoding="utf-8"))
            first = await connection.fetchval(
                "SELECT id FROM companies ORDER BY created_at, name LIMIT 1"
            )
        return str(first)
    finally:
        connection.terminate()


def _secret(directory: Path) -> str:
    """The secret for tokens; kept, so that an open page survives a restart."""
    path = directory / "secret"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text()


def _program() -> str:
    """How to call this program from the working directory."""
    script = Path(sys.argv[0])
    if script.name != "notifier":
        return f"{sys.executable} -m notifier"
    try:
        return str(script.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(script)
