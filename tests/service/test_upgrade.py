"""The previous version, with live clients and an application that writes on, is upgraded as the changelog says."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path

import pytest

from notifier import __version__
from notifier.client import Client, Message, Recovered, Resync, connect
from tests.databases import APP, Database
from tests.service.calendars import Calendar
from tests.services import ROOT, SECRET, Service, environment, run, token
from tests.waiting import DEADLINE_SECONDS, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

(WHEEL,) = (ROOT / "tests" / "upgrade").glob("*.whl")
PREVIOUS = WHEEL.name.split("-")[1]


class Previous(Service):
    """`notifier serve` of the previous version."""

    def __init__(self, place: Path, database_url: str) -> None:
        super().__init__(place, database_url, (), {})
        self._environment["PYTHONPATH"] = str(place / "previous")


class Present(Service):
    """The present version on the port of another service."""

    def __init__(self, place: Path, database_url: str, port: int) -> None:
        super().__init__(place, database_url, (), {})
        self._arguments[self._arguments.index("--port") + 1] = str(port)
        self.http = f"http://127.0.0.1:{port}"


class Follower:
    """A client of the present version, and what it reports of a company."""

    def __init__(self, url: str, user: str, company: str) -> None:
        self.titles: list[str] = []
        self.positions: list[int] = []
        self.continued: list[Recovered | Resync] = []
        self._client: Client = connect(url, lambda: token(user), company)
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with self._client as client:
            async for report in client:
                match report:
                    case Message():
                        self.positions.append(report.position)
                        if report.type == "EventCreated":
                            self.titles.append(report.data["Title"])
                    case Recovered() | Resync():
                        self.continued.append(report)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Writer:
    """An application that writes one event after another, and never stops for an upgrade."""

    def __init__(self, calendar: Calendar, company: str) -> None:
        self.titles: list[str] = []
        self._calendar, self._company = calendar, company
        self._task = asyncio.create_task(self._write())
        self._ending = False

    async def _write(self) -> None:
        while not self._ending:
            title = f"Event {len(self.titles) + 1}"
            await self._calendar.event(self._company, title)
            self.titles.append(title)
            await asyncio.sleep(0.01)

    async def writes(self, more: int) -> None:
        """Returns when it has written so many more."""
        wanted = len(self.titles) + more

        async def written() -> bool:
            if self._task.done():
                self._task.result()
            return len(self.titles) >= wanted

        await until(written)

    async def stop(self) -> None:
        self._ending = True
        await self._task


async def previous_command(place: Path, database: Database, *arguments: str) -> None:
    """Runs a command of the previous version."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", *arguments),
        cwd=place,
        env=environment({"database_url": database.dsn, "jwt_secret": SECRET})
        | {"PYTHONPATH": str(place / "previous")},
    )
    assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0


@pytest.mark.usefixtures("interpreter")  # a fork would have imported the present version
async def test_an_upgrade_from_the_previous_version_loses_nothing(
    empty: Database, tmp_path: Path
) -> None:
    zipfile.ZipFile(WHEEL).extractall(tmp_path / "previous")
    await previous_command(tmp_path, empty, "migrate", "--calendar")
    await empty.execute(APP)
    previous = Previous(tmp_path, empty.dsn)
    await previous.start()
    await previous.ready()
    assert __version__ != PREVIOUS
    assert PREVIOUS in (await previous.get("/")).text

    calendar = Calendar(empty)
    company = await calendar.add_company("u1", "u2")
    followers = [Follower(previous.url, user, company) for user in ("u1", "u1", "u2")]

    async def live() -> bool:
        return all(follower.continued for follower in followers)

    await until(live)
    writer = Writer(calendar, company)
    await writer.writes(20)

    # As the changelog has it: stop the old nodes, migrate, start the new ones. The application writes on.
    previous.terminate()
    assert await previous.ended() == 0
    await writer.writes(20)
    status, output = await run(tmp_path, "migrate", "--calendar", database_url=empty.dsn)
    assert status == 0, output
    await writer.writes(20)
    present = Present(tmp_path, empty.dsn, previous.port)
    await present.start()
    await present.ready()
    await writer.writes(20)
    await writer.stop()

    async def arrived() -> bool:
        return all(
            follower.titles[-1:] == writer.titles[-1:]  # the last one, whatever came before
            for follower in followers
        )

    await until(arrived)
    for follower in followers:
        begun, *resumed = follower.continued
        assert isinstance(begun, Resync)
        assert begun.reason == "start"
        assert {type(each) for each in resumed} == {Recovered}, resumed  # mostly once
        missing = writer.titles.index(follower.titles[0])
        assert follower.titles == writer.titles[missing:]
        first = follower.positions[0]
        assert follower.positions == list(range(first, first + len(follower.positions)))
        await follower.stop()
    status, output = await run(
        tmp_path, "check", "--quiet", database_url=empty.dsn, jwt_secret=SECRET
    )
    assert status == 0, output
    await present.stop()
