"""`notifier.testing`: the examples of docs/testing.md run as an application's tests."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests import scratch
from tests.service.test_embedding import needs
from tests.services import ROOT, environment
from tests.waiting import DEADLINE_SECONDS

BLOCKS = re.compile(r"```python\n(# (\S+)\n.*?)```", re.DOTALL)

OWN = """
import psycopg, pytest

@pytest.fixture(scope="session")
def notifier_settings(notifier_settings):
    *others, posts = notifier_settings["watch"]
    return {"watch": [*others, posts | {"rename": {"body": "type"}}]}

@pytest.fixture
def team(notifier):
    with psycopg.connect(notifier.database_url) as connection:
        connection.execute("INSERT INTO members VALUES (1, 7, 'ada'), (2, 7, 'bob')")
    return 7

def test_own_tables(notifier, team):
    ada, bob = notifier.follow("ada", team), notifier.follow("bob", team, entities=["Post"])
    with psycopg.connect(notifier.database_url) as connection:
        connection.execute("INSERT INTO posts SELECT n, 7, 'text ' || n FROM generate_series(1, 900) AS n")
    assert [each.type for each in bob.messages()] == ["PostCreated"] * 900
    assert ada.expect("PostCreated", type="text 2").position == 4
    assert [each.data["PostId"] for each in ada.messages()] == [*range(3, 901)]
    with psycopg.connect(notifier.database_url) as connection:
        connection.execute("TRUNCATE posts")
        connection.execute("DELETE FROM members WHERE login = 'ada'")
    assert bob.expect_resync().reason == "truncate"
    ada.expect("MemberDeleted")
    with pytest.raises(AssertionError, match="no PostDeleted: revoked; received: .*Resync, MemberDeleted"):
        ada.expect("PostDeleted")
    assert "MemberDeleted" not in [getattr(each, "type", "") for each in bob.received]

def test_a_database_of_its_own(notifier, team):
    impatient = notifier.follow("ada", team, patience=0.1)
    assert impatient.messages() == []
    with pytest.raises(AssertionError, match=r"no PostCreated {'type': 'x'} in 0.1 s; received: nothing"):
        impatient.expect("PostCreated", type="x")
"""


async def run_tests(place: Path, temporary: Path, count: int) -> None:
    """Runs pytest in a directory, as an application does; so many tests must pass."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-W",
            "error",
        ),
        cwd=place,
        env=environment({}) | {"TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    assert f"{count} passed" in text


@pytest.mark.parametrize(("folder", "count"), [("calendar", 4), ("own", 2)])
async def test_the_examples_run_as_an_applications_tests(
    tmp_path: Path, folder: str, count: int
) -> None:
    needs("psycopg")
    blocks = [*BLOCKS.findall((ROOT / "docs" / "testing.md").read_text())]
    assert [name for _, name in blocks] == [
        *("conftest.py", "test_calendar.py", "test_coroutines.py", "conftest.py"),
    ]
    for text, name in blocks[:3] if folder == "calendar" else blocks[3:]:
        (tmp_path / name).write_text(text)
    if folder == "own":
        (tmp_path / "test_own.py").write_text(OWN)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    with scratch.directory() as temporary:
        await run_tests(tmp_path, temporary, count)
