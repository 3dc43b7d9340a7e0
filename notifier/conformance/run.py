"""Runs the scenarios, each on a path of one server, and reports the errors of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from websockets.asyncio.server import Server, ServerConnection, serve

from notifier.conformance.peer import Wrong
from notifier.conformance.program import Program
from notifier.conformance.scenarios import SCENARIOS, Scenario
from notifier.conformance.script import Script
from notifier.errors import NotifierError, SettingsError

COMPANY = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
AT_ONCE = 5
"""Scenarios that run at the same time: they mostly wait, but clients may be slow to start."""


class Verdict(NamedTuple):
    """`wrong`: the client's error; None: none."""

    scenario: Scenario
    wrong: str | None

    def __str__(self) -> str:
        if self.wrong is None:
            return f"ok: {self.scenario.name}"
        return f"WRONG: {self.scenario.name}: must {self.scenario.text}; the client {self.wrong}"


def choose(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, or all. Raises SettingsError."""
    known = {each.name: each for each in SCENARIOS}
    for name in names:
        if name not in known:
            raise SettingsError(f"no scenario {name}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(SCENARIOS)


async def conformance(
    command: Sequence[str], scenarios: Sequence[Scenario], report: Callable[[str], None]
) -> list[Verdict]:
    """Plays the scenarios with a client that `command` starts for each, on a port of its own."""
    verdicts: list[Verdict] = []
    limit = asyncio.Semaphore(AT_ONCE)

    async def play(scenario: Scenario) -> None:
        script = Script(COMPANY)
        async with limit, _serving(0, {"": script}) as url:
            words = [_filled(word, f"{url}/") for word in command]
            verdict = await _run(scenario, script, words)
        verdicts.append(verdict)
        report(str(verdict))

    try:
        async with asyncio.TaskGroup() as tasks:
            for each in sorted(scenarios, key=lambda each: each.seconds, reverse=True):
                tasks.create_task(play(each))
    except* NotifierError as group:  # the command cannot be started
        raise group.exceptions[0] from None
    return verdicts


async def by_hand(
    port: int, scenarios: Sequence[Scenario], report: Callable[[str], None]
) -> list[Verdict]:
    """Plays each scenario with the clients that connect to its path; only what they send is checked."""
    scripts = {each.name: Script(COMPANY) for each in scenarios}
    async with _serving(port, scripts) as url:
        report(f"company {COMPANY}, any token; connect a new client for each scenario:")
        for each in scenarios:
            report(f"  {url}/{each.name}  must {each.text}")
        verdicts: list[Verdict] = []
        for played in asyncio.as_completed(
            [_watch(each, scripts[each.name]) for each in scenarios]
        ):
            verdicts.append(await played)
            report(str(verdicts[-1]))
    return verdicts


@asynccontextmanager
async def _serving(port: int, scripts: Mapping[str, Script]) -> AsyncIterator[str]:
    """Serves each script at its name; yields the address."""

    async def accept(socket: ServerConnection) -> None:
        request = socket.request
        script = scripts.get(request.path.strip("/") if request else "")
        if script is None:
            await socket.close(1008, f"no scenario here; there are /{', /'.join(scripts)}")
            return
        await script.accept(socket)

    try:
        server: Server = await serve(
            accept,
            "127.0.0.1",
            port,
            ping_interval=None,
            close_timeout=1,
            compression=None,
        )
    except OSError as error:
        raise NotifierError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
    try:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()


async def _run(scenario: Scenario, script: Script, command: Sequence[str]) -> Verdict:
    program = await Program.start(command, script.client_has_ended)
    wrong: str | None = None
    try:
        await scenario.play(script)
        await program.check(script.expected)
    except Wrong as error:
        wrong = str(error)
    finally:
        errors = await program.stop()
    if wrong is not None and errors:
        wrong += f" (its errors: {errors})"
    return Verdict(scenario, wrong)


async def _watch(scenario: Scenario, script: Script) -> Verdict:
    """As `_run`, for a client that is started by hand: only what it sends is seen."""
    await script.first.wait()
    try:
        await scenario.play(script)
    except Wrong as error:
        return Verdict(scenario, str(error))
    return Verdict(scenario, None)


def _filled(word: str, url: str) -> str:
    values = {"{url}": url, "{company}": COMPANY, "{token}": "any"}
    for name, value in values.items():
        word = word.replace(name, value)
    return word
