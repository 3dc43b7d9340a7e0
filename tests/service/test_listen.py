"""`notifier listen`: on a terminal, in a pipe, as JSON, and after a restart."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest

from tests.conftest import Serve
from tests.databases import Database
from tests.forkserver import fork_piped
from tests.installed import skip
from tests.service.calendars import Calendar
from tests.services import ROOT, SECRET, Process, Service, token
from tests.waiting import DEADLINE_SECONDS, until


class Listener:
    """One process of `notifier listen`."""

    def __init__(
        self, process: Process, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader
    ) -> None:
        self.process = process
        self._stdout = stdout
        self._stderr = stderr

    async def line(self) -> str:
        """The next line of stdout, without its end."""
        return await self._line(self._stdout)

    async def error_line(self, word: str) -> str:
        """The next line of stderr that contains the word."""
        while True:
            line = await self._line(self._stderr)
            if word in line:
                return line

    async def ended(self) -> tuple[int, str, str]:
        """Its exit status, and the rest of stdout and stderr."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await asyncio.gather(self._stdout.read(), self._stderr.read())
            return await self.process.wait(), out.decode(), err.decode()

    async def stop(self) -> tuple[int, str, str]:
        """Sends SIGINT, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def _line(self, stream: asyncio.StreamReader) -> str:
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await stream.readline()
        assert line.endswith(b"\n"), f"stdout ended after {line!r}"
        return line.decode().removesuffix("\n")


Listen: TypeAlias = Callable[..., Awaitable[Listener]]


def options(service: Service | str, company: str, *arguments: object) -> list[str]:
    url = service.url if isinstance(service, Service) else service
    return ["listen", "--url", url, "--company", company, *map(str, arguments)]


def command(service: Service | str, company: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "notifier", *options(service, company, *arguments)]


def environment(**more: str) -> dict[str, str]:
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NOTIFIER_") and name not in {"NO_COLOR", "FORCE_COLOR"}
    }
    return mine | {"PYTHONPATH": str(ROOT), "TZ": "UTC", "NOTIFIER_JWT_SECRET": SECRET} | more


@pytest.fixture
async def listen(tmp_path: Path) -> AsyncIterator[Listen]:
    """Starts `notifier listen`; The user is u1 unless the arguments name another."""
    started: list[Listener] = []

    async def start(service: Service | str, company: str, *arguments: object) -> Listener:
        if not {"--token", "--user"} & set(arguments):
            arguments = ("--user", "u1", *arguments)
        forked = await fork_piped(options(service, company, *arguments), tmp_path, environment())
        started.append(Listener(*forked))
        return started[-1]

    yield start
    for listener in started:
        listener.process.kill()
        await listener.ended()


async def test_in_a_pipe_a_message_is_a_plain_line_with_the_change_and_its_actor(
    service: Service, calendar: Calendar, listen: Listen
) -> None:
    company = await calendar.company("u1")
    listener = await listen(service, company)
    assert (await listener.line()).startswith("listening after position 1 of epoch ")
    event = await calendar.event(company, "Stand-up")
    assert (await listener.line()).split() == [
        await clock(calendar, company, 2),
        "2",
        "EventCreated",
        "Stand-up",
    ]
    await calendar.database.execute(
        f"BEGIN; SET LOCAL notifier.actor = 'u7';"
        f"UPDATE events SET title = E'Sit\\n\\x1b[2J', all_day = true WHERE id = '{event}'; COMMIT"
    )
    line = await listener.line()
    assert "EventUpdated" in line
    assert "Title Stand-up → Sit \N{REPLACEMENT CHARACTER}[2J" in line
    assert "AllDay false → true" in line
    assert line.endswith("by u7")
    assert "\x1b" not in line
    assert await listener.stop() == (130, "", "live\n")


async def clock(calendar: Calendar, company: str, position: int) -> str:
    """The time of day of a message."""
    return str(
        await calendar.database.fetchval(
            "SELECT to_char(at AT TIME ZONE 'UTC', 'HH24:MI:SS') FROM notifier.messages"
            " WHERE company = $1 AND position = $2",
            company,
            position,
        )
    )


async def test_on_a_terminal_it_has_colours(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(service, company, "--user", "u1"),
        env=environment(TERM="xterm-256color"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(ours, "rb", buffering=0)
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        await screen.readuntil(b"listening after")
        await calendar.event(company, "Stand-up")
        shown = await screen.readuntil(b"Stand-up")
    assert b"\x1b[1;32mEventCreated" in shown
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    transport.close()


async def test_json_is_each_message_as_it_was_received_on_one_line(
    serve: Serve, database: Database, listen: Listen
) -> None:
    await database.execute("ALTER TABLE events ADD notes json")
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    listener = await listen(service, company, "--json")
    await listener.error_line("live")
    await database.execute(
        """
        INSERT INTO events (company_id, title, starts_at, ends_at, notes)
        VALUES ($1, 'Zoë', 'infinity', 'infinity', E'{"a":\n 1.10,\r\n "b": "Zo\\\\u00eb"}')
        """,
        company,
    )
    text = await listener.line()
    assert '"Notes":{"a":  1.10,   "b": "Zo\\u00eb"}' in text
    message = json.loads(text)
    assert (message["Type"], message["Position"]) == ("EventCreated", 2)
    assert message["Data"]["Title"] == "Zoë"
    assert await listener.stop() == (130, "", "")


async def test_it_resumes_after_the_given_position(
    service: Service, calendar: Calendar, listen: Listen
) -> None:
    company = await calendar.company("u1")
    first = await listen(service, company)
    epoch = (await first.line()).rpartition(" ")[2]
    await first.stop()
    await calendar.events(company, 3)
    second = await listen(service, company, "--after", "1", "--epoch", epoch)
    assert await second.line() == f"resumed after position 1 of epoch {epoch}"
    for title in ("Stand-up 1", "Stand-up 2", "Stand-up 3"):
        assert title in await second.line()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_with_a_state_file_it_prints_each_message_once_across_restarts(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path, end: signal.Signals
) -> None:
    company = await calendar.company("u1")
    seen: list[int] = []
    for life in range(3):
        listener = await listen(service, company.upper(), "--json", "--state", tmp_path / "state")
        await listener.error_line("live")
        await calendar.events(company, 2)
        seen += [json.loads(await listener.line())["Position"] for _ in range(4 if life else 2)]
        # A position is saved before the next report is printed.
        await saved(tmp_path / "state", seen[-1])
        listener.process.send_signal(end)
        _, out, _ = await listener.ended()
        assert out == ""
        await calendar.events(company, 2)
    assert seen == list(range(2, 12))


def saved_position(state: Path) -> int:
    return int(json.loads(state.read_text())["after"])


async def saved(state: Path, position: int) -> None:
    async def is_saved() -> bool:
        return saved_position(state) == position

    await until(is_saved)


async def test_a_state_file_proves_which_message_it_has(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path
) -> None:
    """As after a restore of the database: the position exists, but is another message."""
    company = await calendar.company("u1")
    state = tmp_path / "state"
    first = await listen(service, company, "--state", state, "--limit", 1)
    await first.line()
    await calendar.event(company)
    assert (await first.ended())[0] == 0
    content = json.loads(state.read_text())
    message = await calendar.database.fetchval(
        "SELECT body::text FROM notifier.messages WHERE company = $1 AND position = $2",
        company,
        content["after"],
    )
    assert content["at"] == json.loads(message)["At"]
    second = await listen(service, company, "--state", state)
    assert (await second.line()).startswith("resumed after position 2 ")
    await second.stop()
    state.write_text(json.dumps(content | {"at": "2026-01-01T00:00:00+00:00"}))
    third = await listen(service, company, "--state", state)
    assert (await third.line()).startswith("resync (epoch): messages before position 2 ")
    await third.stop()
    assert json.loads(state.read_text())["at"] == content["at"]


async def test_a_resync_is_printed_and_its_position_saved(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path
) -> None:
    company = await calendar.company("u1")
    state = tmp_path / "state"
    state.write_text(json.dumps({"companyId": company, "after": 1, "epoch": "another"}))
    plain = await listen(service, company, "--state", state)
    assert (await plain.line()).startswith("resync (epoch): messages before position 1 of epoch ")
    await plain.stop()
    content = json.loads(state.read_text())
    state.write_text(json.dumps(content | {"after": 99}))
    program = await listen(service, company, "--state", state, "--json")
    assert json.loads(await program.line()) == {
        "Type": "Resync",
        "Data": {"CompanyId": company, "Reason": "expired", "Epoch": content["epoch"]},
        "Position": 1,
    }


async def test_it_reconnects_when_the_service_is_back(
    serve: Serve, database: Database, listen: Listen
) -> None:
    service = await serve(database)
    calendar = Calendar(database)
    company = await calendar.company("u1")
    listener = await listen(service, company)
    await listener.line()
    service.kill()
    await service.ended()
    await listener.error_line("waiting")
    await calendar.event(company, "Meanwhile")
    await service.start()
    await service.ready()
    assert (await listener.line()).startswith("resumed after position 1 ")
    assert "Meanwhile" in await listener.line()


REFUSED = [
    (["--token", "no token"], 1, "notifier: token invalid (4401)"),
    (["--token", token("u1", ttl=-60)], 1, "notifier: token expired (4419)"),
    (["--user", "u2"], 1, "notifier: no such company for this user: "),
    (
        ["--user", "u1", "--token", "x"],
        2,
        "notifier: give either --token (or NOTIFIER_TOKEN) or --user",
    ),
    (["--user", "u1", "--after", "1"], 2, "notifier: --after and --epoch go together"),
    (
        ["--user", "u1", "--company", "b", "--after", "1", "--epoch", "e"],
        2,
        "notifier: --after is the position of one company; use --state for several",
    ),
    (
        ["--user", "u1", "--where", "Event"],
        2,
        "notifier: --where Event: write Entity.Property=value",
    ),
    (
        ["--user", "u1", "--where", "Nothing.Title=1"],
        2,
        "notifier: --where: ",
    ),
    (["--user", "u1", "--state", "no/such"], 2, "notifier: no/such: No such file or directory"),
    (["--user", "u1", "--state", "."], 2, "notifier: .: Is a directory"),
    (
        ["--user", "u1", "--state", "broken"],
        2,
        "notifier: broken is not a state file of `notifier listen`",
    ),
    (["--user", "u1", "--state", "other"], 2, "notifier: other belongs to another company, b"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), REFUSED)
async def test_a_refusal_is_one_readable_line_and_a_status(
    service: Service,
    calendar: Calendar,
    listen: Listen,
    tmp_path: Path,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    (tmp_path / "broken").write_text("{")
    (tmp_path / "other").write_text('{"companyId": "b", "after": 1, "epoch": "e"}')
    company = await calendar.company("u1")
    ended, out, err = await (await listen(service, company, *arguments)).ended()
    assert (ended, out, err.count("\n")) == (status, "", 1)
    assert err.startswith(words)


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "not a url"])
async def test_a_wrong_url_is_one_line(listen: Listen, url: str) -> None:
    status, _, err = await (await listen(url, "a")).ended()
    assert (status, err) == (2, f"notifier: {url} is not a ws:// or wss:// URL\n")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_it_prints_only_the_wanted_types_and_stops_at_the_limit(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    company = await calendar.company("u1")
    state = tmp_path / "state"
    wanted = ["--type", "EventUpdated", "--type", "EmployeeAdded", "--limit", 2, "--state", state]
    listener = await listen(service, company, *wanted, *arguments)
    await listener.error_line("live")
    event = await calendar.event(company)
    for title in ("Milk", "Tea", "Juice"):
        await calendar.database.execute("UPDATE events SET title = $1 WHERE id = $2", title, event)
    status, out, _ = await listener.ended()
    lines = [line for line in out.splitlines() if "listening" not in line]
    assert status == 0
    assert len(lines) == 2
    assert all("EventUpdated" in line for line in lines)
    assert saved_position(state) == 4


async def test_only_rows_that_pass_a_condition_are_printed_and_the_position_moves_on(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path
) -> None:
    company = await calendar.company("u1")
    state = tmp_path / "state"
    where = ["--where", "Event.Title=mine", "--where", 'Event.Title="7"', "--state", state]
    listener = await listen(service, company, *where, "--limit", 2)
    await listener.line()
    for title in ("other", "mine", "7"):
        await calendar.event(company, title)
    status, out, _ = await listener.ended()
    assert (status, [line.split()[-1] for line in out.splitlines()]) == (0, ["mine", "7"])
    await calendar.events(company, 2)
    again = await listen(service, company, *where)
    assert (await again.line()).startswith("resumed after position 4 ")
    await saved(state, 6)
    assert (await again.stop())[1] == ""


async def test_several_companies_are_printed_and_resumed_on_one_connection(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path
) -> None:
    first, second = await calendar.company("u1"), await calendar.company("u1", "u2")
    both = ["--company", second, "--state", tmp_path / "state"]
    listener = await listen(service, first, *both, "--limit", 2)
    assert {await listener.line() for _ in range(2)} == {
        f"{company} listening after position {position} of epoch {await calendar.epoch()}"
        for company, position in ((first, 1), (second, 2))
    }
    for company in (first, second):
        await calendar.event(company, "Stand-up")
    status, out, _ = await listener.ended()
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == {first, second}
    await calendar.event(second, "Meanwhile")
    again = await listen(service, first, *both, "--json")
    assert json.loads(await again.line())["Position"] == 4
    await calendar.database.execute(
        "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", second
    )
    assert json.loads(await again.line())["Type"] == "EmployeeRemoved"
    assert await again.error_line("revoked") == f"{second}: idle: revoked"
    await calendar.event(first, "goes on")
    assert json.loads(await again.line())["Data"]["Title"] == "goes on"
    await calendar.database.execute(
        "DELETE FROM employees WHERE user_id = 'u1' AND company_id = $1", first
    )
    await again.line()
    status, _, err = await again.ended()
    assert (status, err) == (1, f"notifier: access to the company was revoked: {first}\n")


async def test_a_token_file_is_read_again_for_each_connection(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path
) -> None:
    company = await calendar.company("u1")
    file = tmp_path / "token"
    file.write_text(f"{token('u1', ttl=-60)}\n")
    listener = await listen(service, company, "--token", f"@{file}")
    await listener.error_line("token expired (4419)")
    renewed = tmp_path / "renewed"
    renewed.write_text(f"{token('u1')}\n")
    renewed.replace(file)  # a file that is being written is empty for a moment
    await listener.error_line("live")
    assert (await listener.line()).startswith("listening after position 1")


async def test_the_variables_name_url_and_token(
    service: Service, calendar: Calendar, tmp_path: Path
) -> None:
    company = await calendar.company("u1")
    given = environment(NOTIFIER_URL=service.url, NOTIFIER_TOKEN=token("u1"))
    listener = Listener(*await fork_piped(["listen", "--company", company], tmp_path, given))
    assert (await listener.line()).startswith("listening after position 1")
    assert (await listener.stop())[0] == 130


async def test_a_token_is_read_from_standard_input(service: Service, calendar: Calendar) -> None:
    company = await calendar.company("u1")
    process = await asyncio.create_subprocess_exec(
        *command(service, company, "--token", "-", "--limit", 1),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(token("u1").encode() + b"\n")
    assert process.stdout is not None
    assert process.stderr is not None
    listener = Listener(process, process.stdout, process.stderr)
    await listener.line()
    await calendar.event(company)
    assert (await listener.ended())[0] == 0


async def test_a_first_connection_that_can_never_work_stops_it(
    service: Service, listen: Listen
) -> None:
    host = service.url.removeprefix("ws://").rstrip("/")
    for url, reason in [
        (f"ws://{host}/wrong?token=secret", f"ws://{host}/wrong: HTTP 40"),
        (f"wss://user:secret@{host}/", f"wss://{host}/: "),
        ("ws://no-such-host.invalid/", "ws://no-such-host.invalid/: "),
    ]:
        status, out, err = await (await listen(url, "a")).ended()
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"notifier: cannot connect to {reason}")
        assert err.endswith("(--retry keeps trying)\n")
        assert "secret" not in err


async def test_retry_keeps_trying(service: Service, listen: Listen) -> None:
    listener = await listen(f"{service.url}wrong", "a", "--retry")
    for _ in range(3):
        assert "HTTP 40" in await listener.error_line("waiting")
    assert (await listener.stop())[0] == 130


async def test_a_server_that_is_not_there_yet_is_waited_for(
    serve: Serve, database: Database, listen: Listen
) -> None:
    service = await serve(database)
    company = await Calendar(database).company("u1")
    service.kill()
    await service.ended()
    listener = await listen(service, company)
    await listener.error_line("waiting")
    await service.start()
    await service.ready()
    assert (await listener.line()).startswith("listening after")


async def test_revoked_access_stops_it(
    service: Service, calendar: Calendar, listen: Listen
) -> None:
    company = await calendar.company("u1")
    listener = await listen(service, company)
    await listener.line()
    await calendar.database.execute("DELETE FROM employees WHERE company_id = $1", company)
    assert "EmployeeRemoved" in await listener.line()
    status, _, err = await listener.ended()
    assert status == 1
    assert err.endswith(f"notifier: access to the company was revoked: {company}\n")


async def test_a_closed_pipe_stops_it_quietly(
    service: Service, calendar: Calendar, tmp_path: Path
) -> None:
    company = await calendar.company("u1")
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *command(service, company, "--user", "u1", "--json"),
        cwd=tmp_path,
        env=environment(),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    assert process.stderr is not None
    unread = asyncio.StreamReader()
    unread.feed_eof()
    listener = Listener(process, unread, process.stderr)
    await listener.error_line("live")
    os.close(reading)
    await calendar.events(company, 2)
    status, _, err = await listener.ended()
    assert (status, err) == (141, "")


async def test_an_unknown_company_is_refused_like_a_foreign_one(
    service: Service, listen: Listen
) -> None:
    company = str(uuid4())
    status, _, err = await (await listen(service, company)).ended()
    assert status == 1
    assert err == f"notifier: no such company for this user: {company}\n"


@pytest.mark.parametrize("option", ["--http", "--transport=poll"])
async def test_over_http_it_prints_and_resumes_the_same(
    service: Service, calendar: Calendar, listen: Listen, tmp_path: Path, option: str
) -> None:
    company = await calendar.company("u1")
    file = tmp_path / "position.json"
    arguments = ("--json", "--state", file, "--limit", 1, option)
    listener = await listen(service, company, *arguments)
    await listener.error_line("live")
    await calendar.event(company, title="one")
    assert json.loads(await listener.line())["Data"]["Title"] == "one"
    assert (await listener.ended())[0] == 0
    await calendar.event(company, title="two")
    listener = await listen(service, company, *arguments)
    assert json.loads(await listener.line())["Data"]["Title"] == "two"
    assert (await listener.ended())[0] == 0
    status, _, err = await (await listen(service, str(uuid4()), option)).ended()
    assert (status, "no such company for this user" in err) == (1, True)


async def test_the_curl_of_the_readme_prints_a_companys_changes(
    service: Service, calendar: Calendar
) -> None:
    if shutil.which("curl") is None:
        skip("there is no curl")
    company = await calendar.company("u1")
    (line,) = re.findall(r"^    (curl -N .+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert "localhost:8181" in line
    curl = await asyncio.create_subprocess_shell(
        f"exec {line.replace('localhost:8181', f'127.0.0.1:{service.port}')}",
        env={**os.environ, "TOKEN": token("u1"), "COMPANY": company, "no_proxy": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert curl.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await curl.stdout.readuntil(b"SubscribeResult")
            await calendar.event(company, title="from curl")
            await curl.stdout.readuntil(b'"Title":"from curl"')
    finally:
        curl.kill()
        await curl.wait()
