"""Each block of commands, configuration and code in the documentation is run by a test, or marked as not run.

A test that runs blocks of a page is in RUN_BY, or named in the line before the block:

    <!-- run by: tests/service/test_example.py -->
    <!-- not run: it installs a service -->

Such comments are not shown. Independently of that, every command of Notifier must have the options that its line
gives, every target of make must exist, and TOML, YAML, JSON and Python must be well-formed.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator

import pytest
import typer

from notifier import cli
from notifier.settings import PREFIX, Settings
from tests.blocks import ROOT, Block, blocks, pages

BLOCKS = [block for page in pages() for block in blocks(page)]

COMMANDS = "tests/service/test_documented_commands.py"

PROXIES = "tests/service/test_proxy_configurations.py"

RUN_BY = {
    ("README.md", "Use it", "commands"): COMMANDS,
    ("README.md", "Use it", "js"): "tests/browser/test_browser_client.py",
    ("README.md", "Settings", "toml"): "tests/unit/test_toml_schema.py",
    ("docs/clients.md", "In 50 lines", "python"): "tests/service/test_examples.py",
    ("docs/clients.md", ".NET", "csharp"): "tests/service/test_dotnet_docs.py",
    ("docs/fleck.md", "*", "csharp"): "tests/service/test_dotnet_docs.py",
    ("docs/fleck.md", "The server after", "toml"): "tests/service/test_dotnet_docs.py",
    ("docs/deploy.md", "nginx", "nginx"): PROXIES,
    ("docs/deploy.md", "HAProxy", "haproxy"): PROXIES,
    ("docs/deploy.md", "Caddy", "text"): PROXIES,
    ("docs/deploy.md", "Traefik", "yaml"): PROXIES,
    ("docs/deploy.md", "Envoy", "yaml"): PROXIES,
    ("docs/embedding.md", "*", "python"): "tests/service/test_embedding.py",
    ("docs/embedding.md", "*", "commands"): "tests/service/test_embedding.py",
    ("docs/protocol.md", "*", "json"): "tests/unit/test_asyncapi.py",
    ("docs/runbooks/*", "*", "commands"): "tests/unit/test_monitoring.py",
    ("docs/runbooks/*", "What to do", "commands"): "tests/service/test_drill.py",
    ("docs/schemas.md", "*", "sql"): "tests/service/worked.py",
    ("docs/schemas.md", "*", "toml"): "tests/service/worked.py",
    ("docs/http.md", "Server-sent events", "commands"): COMMANDS,
    ("docs/http.md", "Long polls", "commands"): COMMANDS,
    ("docs/operations.md", "`notifier why`", "commands"): COMMANDS,
    ("docs/operations.md", "Which node relays", "sql"): COMMANDS,
    ("docs/operations.md", "Dashboard and alerts", "yaml"): "tests/unit/test_monitoring.py",
    ("docs/nats.md", "For your own services", "sql"): COMMANDS,
    ("docs/tracing.md", "Name the writer's span", "*"): COMMANDS,
    ("docs/writers.md", "For applications that write", "sql"): COMMANDS,
    ("docs/testing.md", "*", "python"): "tests/service/test_testing.py",
    ("docs/tutorial.md", "1. Install", "commands"): "release/__main__.py",
    ("docs/tutorial.md", "*", "commands"): "tests/newcomer.py",
    ("docs/types.md", "What is generated", "csharp"): "tests/service/test_dotnet_docs.py",
    ("docs/types.md", "*", "*"): "tests/service/test_types.py",
    ("docs/writers.md", "SQLAlchemy", "python"): "tests/service/test_writers.py",
    ("docs/writers.md", "FastAPI", "python"): "tests/service/test_writers.py",
    ("docs/writers.md", "Django", "python"): "tests/service/test_writers.py",
}
"""Page, heading and language of blocks, to the test that runs them as they stand there."""


def run_by(block: Block) -> str | None:
    folder = block.page.rpartition("/")[0] + "/*"
    for page in (block.page, folder):
        for heading in (block.heading, "*"):
            for language in (block.language, "*"):
                if test := RUN_BY.get((page, heading, language)):
                    return test
    return block.mark[1] if block.mark and block.mark[0] == "run by" else None


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_each_block_is_run_by_a_test_or_marked(block: Block) -> None:
    if block.mark is not None and block.mark[0] == "not run":
        exact = (block.page, block.heading, block.language)
        assert exact not in RUN_BY, f"{block} is marked as not run, but a test runs it"
        return
    test = run_by(block)
    assert test is not None, (
        f"{block}: have a test run this block and name it in RUN_BY or in a comment before it,"
        " <!-- run by: tests/… -->, or mark it: <!-- not run: reason -->"
    )
    text = (ROOT / test).read_text(encoding="utf-8")
    page = block.page.rpartition("/")[2]
    folder = block.page.split("/")[-2:-1]
    assert page in text or f'"{"".join(folder)}"' in text, f"{test} does not read {block.page}"


def test_what_is_registered_exists() -> None:
    for block in BLOCKS:
        for path in re.findall(
            r"\b(?:tests|deploy)/[\w/.]+\b", block.mark[1] if block.mark else ""
        ):
            assert (ROOT / path).exists(), f"{block}: {path}"
    used = {
        (page, heading, language)
        for page, heading, language in RUN_BY
        for block in BLOCKS
        if page in (block.page, block.page.rpartition("/")[0] + "/*")
        and heading in (block.heading, "*")
        and language in (block.language, "*")
    }
    assert used == RUN_BY.keys()


# --- whatever runs them: well-formed, with options and targets that exist


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line, without comments and assignments in front."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        for sign in ("|", ">", ">>", "&&", "&"):
            if sign in words:
                words = words[: words.index(sign)]
        if words:
            yield words


SHELL = [block for block in BLOCKS if block.language in ("commands", "sh")]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_of_notifier_have_the_options_that_a_block_gives(block: Block) -> None:
    root = typer.main.get_command(cli.app)
    assert isinstance(root, typer.core.TyperGroup)
    for words in commands(block.text):
        if words[0].rpartition("/")[2] != "notifier" or len(words) == 1:
            continue
        if words[1].startswith("-"):
            continue
        command = root.commands.get(words[1])
        assert command is not None, f"{block}: there is no command {words[1]}"
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        given = words[2 : words.index("--")] if "--" in words else words[2:]
        for word in given:
            if word.startswith("--"):
                assert word.partition("=")[0] in known | {"--help"}, f"{block}: {word}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_settings_and_targets_of_make_exist(block: Block) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {"NOTIFIER_CONFIG", "NOTIFIER_URL", "NOTIFIER_TOKEN", "NOTIFIER_TEST_POSTGRES"}
    named = set(re.findall(r"\b(NOTIFIER_[A-Z_]+)=", block.text))
    assert named <= known, block
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(block.text):
        if words[0] == "make":
            assert words[1] in targets, f"{block}: {words}"


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language in ("toml", "python")],
    ids=str,
)
def test_toml_and_python_are_well_formed(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
    else:
        compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
