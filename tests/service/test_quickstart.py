"""The tutorial and the quick starts are done as docs/tutorial.md and docs/quickstart.md have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from tests.databases import Database, directory
from tests.newcomer import LIMIT_SECONDS, Newcomer
from tests.service.test_documented_commands import Shell, block
from tests.services import SECRET, environment
from tests.waiting import until

TABLES = """
CREATE TABLE companies (id text PRIMARY KEY, name text);
CREATE TABLE members (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id text NOT NULL REFERENCES companies, user_id text NOT NULL
);
CREATE TABLE projects (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id text NOT NULL REFERENCES companies, name text
);
INSERT INTO companies VALUES ('acme', 'Acme');
INSERT INTO members (company_id, user_id) VALUES ('acme', 'u7')
"""

pytestmark = pytest.mark.slow


@pytest.fixture
async def own(empty: Database) -> Database:
    """A database with tables of an application, and nothing of the notifier's."""
    await empty.execute(TABLES)
    return empty


@pytest.mark.timeout(600)
async def test_three_steps_serve_the_tables_of_an_application(
    own: Database, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, own, "acme", "1")
    shell.environment |= {
        "NOTIFIER_HOST": "127.0.0.1",
        "NOTIFIER_PORT": str(shell.port),
    }
    steps = "Every stack: three steps"
    for number in range(2):
        await shell.run(block("docs/quickstart.md", steps, "commands", number).text)
    await own.execute(block("docs/quickstart.md", "Plain SQL", "sql").text)

    async def arrived() -> bool:
        rows = await own.fetch("SELECT body FROM notifier.messages WHERE company = 'acme'")
        messages = [json.loads(row["body"]) for row in rows]
        return any(
            message["Data"].get("Name") == "Moon" and message["Actor"] == "u7"
            for message in messages
        )

    await until(arrived)
    await shell.stop()


def test_the_token_of_django_is_one_that_serve_accepts(tmp_path: Path) -> None:
    view = block("docs/quickstart.md", "Django", "python").text
    program = f"""
from types import SimpleNamespace
from django.conf import settings
settings.configure(NOTIFIER_JWT_SECRET={SECRET!r})
{view}
print(token(SimpleNamespace(user=SimpleNamespace(pk=7))).content.decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "7"


@pytest.mark.timeout(LIMIT_SECONDS)
async def test_the_tutorial_takes_less_than_five_minutes(tmp_path: Path) -> None:
    """Without the installation, which `make release` does and times."""
    programs = tmp_path / "notifier" / "bin"
    programs.mkdir(parents=True)
    (programs / "notifier").write_text(f'#!/bin/sh\nexec {sys.executable} -m notifier "$@"\n')
    (programs / "notifier").chmod(0o755)
    newcomer = Newcomer(tmp_path, environment({}))
    with directory() as data:
        await newcomer.do(data)
    assert len(newcomer.seconds) == 5
    assert newcomer.total < LIMIT_SECONDS
