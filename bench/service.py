"""Notifier, as an operator runs it: `notifier migrate`, `notifier serve`, tokens."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import jwt

from bench.postgres import uuid
from bench.programs import START_SECONDS, BenchError, Program, output, running
from bench.stand import Stand

SECRET = "the benchmark signs its own tokens with this"
COMMAND = (sys.executable, "-m", "notifier")


def environment(url: str) -> dict[str, str]:
    """The command's environment, without the caller's own NOTIFIER_ variables."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    return kept | {
        "NOTIFIER_DATABASE_URL": url,
        "NOTIFIER_JWT_SECRET": SECRET,
        "NOTIFIER_LOG_LEVEL": "warning",
    }


async def migrate(url: str, *options: str, config: str | None = None) -> None:
    env = environment(url) | ({"NOTIFIER_CONFIG": config} if config else {})
    await output(*COMMAND, "migrate", *options, env=env)


async def uninstall(url: str) -> None:
    await output(*COMMAND, "uninstall", "--yes", env=environment(url))


def token(user: int) -> str:
    claims = {"sub": f"user-{user}", "exp": int(time.time()) + 3600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def conversation(user: int, company: int, *, after: int = -1, epoch: str = "") -> str:
    """One line of the load client's plan: authenticate, then setCompany (resuming with `epoch`)."""
    place = f',"after":{after},"epoch":"{epoch}"' if epoch else ""
    return (
        f'/\t{{"type":"authenticate","token":"{token(user)}"}}'
        f'\t{{"type":"setCompany","data":{{"companyId":"{uuid(company)}"{place}}}}}'
    )


def follower(user: int, companies: Iterable[int]) -> str:
    """One line of the load client's plan: authenticate, then subscribe to each company."""
    commands = [f'{{"type":"authenticate","token":"{token(user)}"}}']
    commands += [
        f'{{"type":"subscribe","data":{{"companyId":"{uuid(company)}"}}}}' for company in companies
    ]
    return "\t".join(["/", *commands])


def filtered(user: int, company: int, number: int) -> str:
    """The same with a filter that all events of the company pass; each number is another filter."""
    where = f'{{"Event":{{"CompanyId":["{uuid(company)}","other {number}"]}}}}'
    return (
        f'/\t{{"type":"authenticate","token":"{token(user)}"}}'
        f'\t{{"type":"subscribe","data":{{"companyId":"{uuid(company)}","where":{where}}}}}'
    )


def request(user: int, company: int) -> str:
    """One line of the load client's plan for server-sent events: path and token."""
    return f"/companies/{uuid(company)}/messages\t{token(user)}"


def subscribers(clients: int, companies: Iterable[int] = (1,)) -> list[str]:
    """Plan lines for this number of clients, spread over the companies."""
    among = tuple(companies)
    return [conversation(n // len(among) + 1, among[n % len(among)]) for n in range(clients)]


@dataclass(frozen=True)
class Service:
    """A running server."""

    program: Program
    port: int


@asynccontextmanager
async def migrated(stand: Stand, template: str | None = None) -> AsyncIterator[str]:
    """A database with capture, dropped after the block; yields its URL."""
    copy = stand.cluster.copy("ours", template) if template else stand.cluster.copy("ours")
    async with copy as url:
        await migrate(url)
        yield url


@asynccontextmanager
async def serving(stand: Stand, url: str, **settings: str) -> AsyncIterator[Service]:
    """`notifier serve`, ready, while the block runs."""
    port = free_port()
    env = environment(url) | {f"NOTIFIER_{name.upper()}": text for name, text in settings.items()}
    command = (*COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port))
    log = stand.directory / "serve.log"
    async with running(*command, env=env, log=log, events=False, patience=2.0) as program:
        await _ready(program, port)
        yield Service(program, port)


async def _ready(program: Program, port: int) -> None:
    """Waits until /readyz returns 200."""
    deadline = time.monotonic() + START_SECONDS
    while await _status(port) != 200:
        program.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{program.name} is not ready after {START_SECONDS:.0f} s")
        await asyncio.sleep(0.05)


async def _status(port: int) -> int:
    """The HTTP status of /readyz; 0 if there is no answer."""
    try:
        return (await get(port, "/readyz")).status_code
    except httpx.TransportError:
        return 0


async def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """The server's answer to one request. Raises httpx.TransportError."""
    # A client that verifies certificates reads all of them first.
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}", headers=headers)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
