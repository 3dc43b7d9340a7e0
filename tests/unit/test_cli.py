"""The command line: help, settings from the environment, and errors in one line."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner

from notifier import cli
from notifier.client import listen
from notifier.errors import DatabaseError, SettingsError, one_line

SECRET = "a secret of the tests that is long enough"
COMMANDS = ["serve", "migrate", "check", "why", "demo", "uninstall", "token", "listen"]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """Runs commands in an empty directory, without settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("NOTIFIER_URL", "NOTIFIER_TOKEN", "NOTIFIER_JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of `listen`, which returns at once."""
    calls: list[dict[str, Any]] = []

    async def record(url: str, company: str, get_token: Any, **options: Any) -> None:
        await asyncio.sleep(0)
        calls.append({"url": url, "company": company, "token": get_token(), **options})

    monkeypatch.setattr(listen, "listen", record)
    return calls


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_every_command_has_a_help_text_under_both_names(
    runner: CliRunner, command: list[str]
) -> None:
    short = runner.invoke(cli.app, [*command, "-h"])
    assert short.exit_code == 0
    assert short.output == runner.invoke(cli.app, [*command, "--help"]).output
    assert not re.search(r"<\w+>", short.output), "a type is shown instead of a word"
    for line in short.output.partition("Options:")[2].partition("Commands:")[0].splitlines():
        words = line.split()
        assert not words or not words[0].startswith("--") or len(words) > 2, f"no text: {line}"


def test_the_help_of_serve_shows_variables_and_defaults(runner: CliRunner) -> None:
    text = " ".join(runner.invoke(cli.app, ["serve", "-h"]).output.split())
    assert "[env var: NOTIFIER_HOST; default: 0.0.0.0]" in text
    assert "[env var: NOTIFIER_PORT; default: 8181]" in text


def test_completion_can_be_shown(runner: CliRunner) -> None:
    assert "--show-completion" in runner.invoke(cli.app, ["-h"]).output


def test_listen_takes_its_address_and_token_from_the_environment(
    runner: CliRunner, listened: list[dict[str, Any]]
) -> None:
    environment = {"NOTIFIER_URL": "wss://a.example/", "NOTIFIER_TOKEN": "t1"}
    result = runner.invoke(cli.app, ["listen", "--company", "c"], env=environment)
    assert result.exit_code == 0, result.output
    assert (listened[0]["url"], listened[0]["token"]) == ("wss://a.example/", "t1")
    arguments = ["listen", "--company", "c", "--url", "ws://b.example/", "--token", "t2"]
    runner.invoke(cli.app, arguments, env=environment)
    assert (listened[1]["url"], listened[1]["token"]) == ("ws://b.example/", "t2")


def test_listen_reads_a_token_from_a_file_and_from_standard_input(
    runner: CliRunner, listened: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from a file\n")
    common = ["listen", "--url", "ws://a.example/", "--company", "c", "--token"]
    runner.invoke(cli.app, [*common, f"@{tmp_path / 'token'}"])
    runner.invoke(cli.app, [*common, "-"], input="from a pipe\n")
    assert [call["token"] for call in listened] == ["from a file", "from a pipe"]
    result = runner.invoke(cli.app, [*common, "@/no/such/file"])
    assert isinstance(result.exception, SettingsError)
    assert "/no/such/file" in str(result.exception)


def test_listen_signs_for_a_user_whatever_token_the_environment_has(
    runner: CliRunner, listened: list[dict[str, Any]]
) -> None:
    environment = {"NOTIFIER_TOKEN": "t1", "NOTIFIER_JWT_SECRET": SECRET}
    arguments = ["listen", "--url", "ws://a.example/", "--company", "c", "--user", "u1"]
    runner.invoke(cli.app, arguments, env=environment)
    assert jwt.decode(listened[0]["token"], SECRET, algorithms=["HS256"])["sub"] == "u1"
    both = runner.invoke(cli.app, [*arguments, "--token", "t2"], env=environment)
    assert isinstance(both.exception, SettingsError)


def test_a_token_needs_a_secret(runner: CliRunner) -> None:
    result = runner.invoke(cli.app, ["token", "--user", "u1"])
    assert isinstance(result.exception, SettingsError)
    assert "NOTIFIER_JWT_SECRET" in str(result.exception)


def test_a_token_needs_a_user(runner: CliRunner) -> None:
    secret = {"NOTIFIER_JWT_SECRET": SECRET}
    result = runner.invoke(cli.app, ["token", "--user", ""], env=secret)
    assert isinstance(result.exception, SettingsError)
    assert str(result.exception) == "--user: must not be empty"


def test_no_name_in_the_database_adds_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_line("a\nok: all is well\x1b[2J\u202e é") == "a\\x0aok: all is well\\x1b[2J\\x202e é"

    def fail() -> None:
        raise DatabaseError("table a\nok: all is well is locked")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "notifier: table a\\x0aok: all is well is locked\n"
