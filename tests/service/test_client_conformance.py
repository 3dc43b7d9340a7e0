"""`notifier conformance`: our clients and examples pass it, and it finds what a client gets wrong."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from notifier.conformance.scenarios import SCENARIOS
from tests.compilers import dotnet, node
from tests.installed import skip
from tests.service import test_examples
from tests.service.test_examples import in_fifty_lines
from tests.services import ROOT, SECRET, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = [each.name for each in SCENARIOS]

LACKING: dict[str, set[str]] = {
    "notifier listen": set(),
    "client.js": set(),
    ".NET": set(),
    "50 lines of Python": {"endless-gap", "retry-after", "renew"},
    "Listen.java": {"renew"},
    "Listen.cs": {"renew"},
    "listen.pl": {"renew"},
}
"""What each client does not do. They are given one token, but for the first three."""

FOLLOW = """
import { connect } from "ROOT/clients/js/src/client.js";
const [url, companyId, token] = process.argv.slice(2);
let tokens = 0;
connect({
  url,
  companyId,
  getToken: () => `${token}-${tokens++}`,
  onMessage: (message) => console.log(JSON.stringify(message)),
  onResync: () => console.log("resync"),
});
"""


def command(name: str, place: Path) -> list[str]:
    """The command that runs a client, with the places of its arguments; skips where its language is missing."""
    given = ["{url}", "{company}", "{token}"]
    if name == "notifier listen":
        options = ["--url", "{url}", "--company", "{company}", "--user", "u1", "--json"]
        return [sys.executable, "-m", "notifier", "listen", *options]
    if name == "client.js":
        (place / "follow.mjs").write_text(FOLLOW.replace("ROOT", str(ROOT)))
        return [node(), str(place / "follow.mjs"), *given]
    if name == ".NET":
        return [*dotnet(place), *given]
    languages = {"50 lines of Python": "python", "Listen.java": "java", "Listen.cs": "csharp"}
    program = test_examples.program(languages.get(name, "perl"), place)
    if name == "Listen.java" and (compiler := shutil.which("javac")):
        subprocess.run([compiler, "-d", place, program[-1]], check=True)  # starts four times faster
        program[-1:] = ["-cp", str(place), "Listen"]
    return [*program, *given]


async def conformance(place: Path, client: Sequence[str], *scenarios: str) -> list[str]:
    """The lines that the command prints; without names it plays all scenarios."""
    only = [word for name in scenarios for word in ("--only", name)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "conformance", *only, "--", *client),
        cwd=place,
        env=environment({"jwt_secret": SECRET}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == int("WRONG: " in text), text
    return text.splitlines()


async def test_our_clients_and_examples_pass_but_for_what_the_table_names(tmp_path: Path) -> None:
    """All at the same time: they mostly wait."""
    runs, missing = {}, []
    for name in LACKING:
        place = tmp_path / name
        place.mkdir()
        try:
            client = command(name, place)
        except pytest.skip.Exception as language:
            missing.append(str(language))
            continue
        runs[name] = conformance(place, client)
    found = dict(zip(runs, await asyncio.gather(*runs.values()), strict=True))
    unexpected = []
    for name, lines in found.items():
        if {each for each in NAMES if f"ok: {each}" not in lines} != LACKING[name]:
            unexpected += [name, *(line for line in lines if not line.startswith("ok: "))]
    assert not unexpected, "\n".join(unexpected)
    if missing:
        skip(", ".join(missing))


FAULTS = {
    "gap": ('position == last.get("after", 0) + 1', 'position > last.get("after", 0)'),
    "repeat": ('elif position == last.get("after", 0) + 1', "elif position"),
    "drop": ("**known}", "}"),
    "resync": ('last.update(after=position, epoch=message["Data"]["Epoch"], at=at)', "pass"),
    "skip": ('elif message["Type"] == "Skipped"', 'elif message["Type"] == "Hidden"'),
    "broken": ("FINAL = {", "FINAL = {}; OTHERS = {"),
    "silence": ('await socket.send(json.dumps({"type": "ping"}))', "pass"),
    "idle": ("(15, 10)", "(2,)"),
    "revoke": ('sys.exit("access was revoked")', "await subscribe(socket)"),
}
"""For a scenario, a line of the 50 and what spoils it."""


async def test_it_finds_what_a_client_gets_wrong(tmp_path: Path) -> None:
    runs = []
    for scenario, (right, wrong) in FAULTS.items():
        place = tmp_path / scenario
        place.mkdir()
        text = in_fifty_lines()
        assert right in text
        (place / "follow.py").write_text(text.replace(right, wrong))
        client = [sys.executable, str(place / "follow.py"), "{url}", "{company}", "{token}"]
        runs.append(conformance(place, client, scenario))
    for scenario, lines in zip(FAULTS, await asyncio.gather(*runs), strict=True):
        assert lines[0].startswith(f"WRONG: {scenario}: must "), "\n".join(lines)
        assert lines[-1] == "notifier: 1 of 1 scenarios went wrong"


@pytest.mark.parametrize(("closes", "is_right"), [(2, True), (3, False)])
async def test_a_client_may_close_two_sockets_before_it_has_subscribed(
    tmp_path: Path, closes: int, is_right: bool
) -> None:
    """As one does that waits for an answer for a limited time, on a busy machine."""
    answer = '    if (await receive(socket)).get("Success"):\n'
    text = in_fifty_lines()
    assert answer in text
    gives_up = f'        sockets.append(socket)\n        if len(sockets) <= {closes}:\n            raise OSError("no answer")\n'
    (tmp_path / "follow.py").write_text("sockets = []\n" + text.replace(answer, answer + gives_up))
    client = [sys.executable, str(tmp_path / "follow.py"), "{url}", "{company}", "{token}"]
    lines = await conformance(tmp_path, client, "drop")
    if is_right:
        assert lines == ["ok: drop"], "\n".join(lines)
    else:
        assert lines[0].startswith(
            "WRONG: drop: must resume after the last message when the connection breaks; the client closed the socket"
            " instead of sending setCompany or subscribe (its errors: no answer; no answer"
        ), "\n".join(lines)


async def test_the_first_and_the_last_errors_of_a_client_are_reported(tmp_path: Path) -> None:
    """Java and Node print their error first, Python last, and a runtime that was aborted a long stack between."""
    code = "import sys; sys.exit('\\n'.join(['first', *map(str, range(5000)), 'last']))"
    lines = await conformance(tmp_path, [sys.executable, "-c", code], "drop")
    assert lines[0].endswith("(its errors: first; 0; …; 4999; last)"), lines[0]


async def test_a_client_that_is_started_by_hand_is_checked_by_what_it_sends(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "conformance", "--only", "drop"),
        cwd=tmp_path,
        env=environment({}) | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    company = (await process.stdout.readline()).decode().split()[1].rstrip(",")
    url = re.search(r"ws://\S+", (await process.stdout.readline()).decode())
    assert url
    (tmp_path / "follow.py").write_text(in_fifty_lines())
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, str(tmp_path / "follow.py"), url[0], company, "any"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await process.stdout.readline() == b"ok: drop\n"
        assert await process.wait() == 0
    finally:
        client.kill()
        await client.wait()


def test_the_table_of_clients_is_that_of_a_run() -> None:
    page = (ROOT / "docs" / "clients.md").read_text()
    rows = ["| scenario | the client must | " + " | ".join(LACKING) + " |"]
    rows.append("|---|---|" + "---|" * len(LACKING))
    for each in SCENARIOS:
        marks = ("no" if each.name in lacking else "✓" for lacking in LACKING.values())
        rows.append(f"| `{each.name}` | {each.text} | {' | '.join(marks)} |")
    assert "\n".join(rows) in page, "\n".join(rows)
