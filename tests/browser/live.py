"""`notifier demo` as a process, its database, and windows of Chromium that show its page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import jwt
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, WebSocket, expect

from notifier.database import sql
from tests.ports import free_port
from tests.services import ROOT
from tests.waiting import until

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_SECONDS = 120.0
END_SECONDS = 60.0

NORTHWIND, HARBOR = "Northwind Studio", "Harbor & Sons"


class Demo:
    """One `notifier demo` with its own data; it can be stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "demo.log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.page = f"http://127.0.0.1:{self._port}/"
        self.socket = f"ws://127.0.0.1:{self._port}/"
        self.database = ""
        self.company = ""

    def start(self) -> None:
        """Returns when it has printed its lines. Raises AssertionError with its log if it does not."""
        self._log.write_bytes(b"")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NOTIFIER_")}
        arguments = ["demo", "--port", str(self._port), "--data", str(self._directory / "data")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "notifier", *arguments],
                cwd=self._directory,
                env=environment | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while "\nstop: " not in self.log():
            assert self._process.poll() is None, f"the demo ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the demo does not start:\n{self.log()}"
            time.sleep(0.05)
        lines = dict(line.split(": ", 1) for line in self.log().splitlines() if ": " in line)
        self.database, self.company = lines["database"], lines["company"]

    def stop(self) -> None:
        """Sends SIGTERM and waits for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(END_SECONDS)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def token(self, user: str, ttl: float = 3600) -> str:
        """A token like the demo's, valid for `ttl` seconds and the leeway of 10 seconds."""
        secret = (self._directory / "data" / "secret").read_text()
        return jwt.encode({"sub": user, "exp": time.time() + ttl}, secret, algorithm="HS256")


class Sql:
    """Writes to the database as psql does."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo

    async def run(self, sql: str, *values: object, actor: str | None = None) -> Any:
        """Runs one statement in a transaction and returns the first value of its first row."""
        connection = await asyncpg.connect(self._demo.database)
        try:
            async with connection.transaction():
                if actor is not None:
                    await connection.execute("SELECT set_config('notifier.actor', $1, true)", actor)
                return await connection.fetchval(sql, *values)
        finally:
            await connection.close()

    async def event(
        self, title: str, *, hour: int = 10, company: str = NORTHWIND, actor: str | None = None
    ) -> UUID:
        """Adds an event of one hour today: a phone shows only that day."""
        added: UUID = await self.run(
            """
            INSERT INTO events (company_id, title, starts_at, ends_at)
            SELECT id, $1, at, at + interval '1 hour'
            FROM companies, LATERAL (
                SELECT (date_trunc('day', now() AT TIME ZONE time_zone) + make_interval(hours => $2))
                       AT TIME ZONE time_zone AS at
            ) AS moment
            WHERE name = $3
            RETURNING id
            """,
            title,
            hour,
            company,
            actor=actor,
        )
        return added

    async def today(self, company: str = NORTHWIND) -> str:
        """The date in the company's time zone. The next hour, at which the page proposes an event, may be of another week."""
        found: str = await self.run(
            "SELECT to_char(now() AT TIME ZONE time_zone, 'YYYY-MM-DD') FROM companies WHERE name = $1",
            company,
        )
        return found

    async def position(self, company: str = NORTHWIND) -> int:
        """The company's last position, once everything that was committed before the call is relayed.

        A page may show an earlier one at that time, and a `Skipped` may take it past the one of another page.
        """
        connection = await asyncpg.connect(self._demo.database)
        try:
            snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
            await until(lambda: connection.fetchval(sql.query("is_relayed"), snapshot))
            identifier = await connection.fetchval(
                "SELECT id::text FROM companies WHERE name = $1", company
            )
            (head,) = await connection.fetch(sql.query("company_heads"), [identifier])
            found: int = head["position"]
            return found
        finally:
            await connection.close()

    async def person(self, name: str, user: str, company: str = NORTHWIND) -> UUID:
        """Adds an employee."""
        added: UUID = await self.run(
            "INSERT INTO employees (company_id, user_id, name)"
            " SELECT id, $2, $1 FROM companies WHERE name = $3 RETURNING id",
            name,
            user,
            company,
        )
        return added


class Window:
    """A browser window with the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets: list[WebSocket] = []
        self.sent: list[str] = []
        self.received: list[str] = []
        self.writes: list[Request] = []
        self.faults: list[str] = []
        page.on("websocket", self._opened)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)
        page.on("request", self._requested)

    @classmethod
    async def open(cls, browser: Browser, demo: Demo, user: str = "ann", **options: Any) -> Window:
        """Opens the page as a user; returns when it shows the calendar."""
        window = await cls.new(browser, **options)
        await window.page.goto(f"{demo.page}?user={user}")
        await window.is_live()
        return window

    @classmethod
    async def new(cls, browser: Browser, **options: Any) -> Window:
        """An empty window with its own storage."""
        given = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options}
        context = await browser.new_context(**given)
        return cls(await context.new_page())

    async def is_live(self) -> None:
        """Returns when it is connected and has loaded its state: then it shows a position."""
        await expect(self.page.locator("#link")).to_have_attribute("data-state", "live")
        await expect(self.page.locator("#at")).not_to_be_empty()

    @property
    def states(self) -> int:
        """How many states it has received."""
        return sum('"StateEnd"' in frame for frame in self.received)

    async def has_states_of(self, companies: int) -> None:
        """Returns when the state of each company was received: the page is live before the second one is."""
        await self.receives('"StateEnd"', times=companies)

    async def has_loaded_both(self) -> int:
        """Returns `states` once the page has loaded the state of each company, after a request of its own: it resumes none before."""
        for company in (HARBOR, NORTHWIND):
            await self.button(company).click()
            await self.is_live()
        return self.states

    async def reaches(self, position: int) -> None:
        """Returns when it shows this position, shortly after the feed shows the message."""
        await expect(self.page.locator("#position")).to_have_text(f"№ {position}")

    async def has_written(self) -> int:
        """How many rows it has written, after the last response."""
        answers = [await write.response() for write in self.writes]
        return sum(answer is not None and answer.ok for answer in answers)

    def event(self, title: str) -> Locator:
        return self.page.locator("#grid .event:not(.gone)").filter(has_text=title)

    def entry(self, text: str) -> Locator:
        return self.page.locator("#feed > li").filter(has_text=text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def field(self, label: str) -> Locator:
        """A field of the open dialog."""
        return self.page.locator("dialog[open]").get_by_label(label, exact=True)

    async def go_offline(self, on: bool = True) -> None:
        switch = self.page.get_by_role("switch", name="Go offline")
        await switch.set_checked(on)
        await expect(self.page.locator("#link")).to_have_attribute(
            "data-state", "closed" if on else "live"
        )

    async def sends(self, word: str, times: int = 1) -> None:
        """Returns when so many frames that contain the word were sent."""
        await until(_counts(self.sent, word, times))

    async def receives(self, word: str, times: int = 1) -> None:
        """Returns when so many frames that contain the word were received."""
        await until(_counts(self.received, word, times))

    def _opened(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", lambda frame: self.sent.append(str(frame)))
        socket.on("framereceived", lambda frame: self.received.append(str(frame)))

    def _requested(self, request: Request) -> None:
        if request.method != "GET":
            self.writes.append(request)

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium reports a lost connection as an error; some tests cause one.
        if message.type == "error" and not message.text.startswith(("Failed to load", "WebSocket")):
            self.faults.append(message.text)


def _counts(frames: list[str], word: str, times: int) -> Callable[[], Awaitable[bool]]:
    async def counts() -> bool:
        return sum(word in frame for frame in frames) >= times

    return counts
