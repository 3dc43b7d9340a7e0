"""An invalid setting: one line that names it as it was written, its fault, and what is allowed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from notifier.cli import serve_command
from notifier.errors import SettingsError
from notifier.setting_errors import PATTERNS, SECTIONS
from notifier.settings import PREFIX, Settings, load
from notifier.watches import Scope, Watch

OPTIONS = sorted(name for name in Settings.model_fields if name not in SECTIONS)
WATCH = '[[watch]]\ntable = "t"\nentity = "T"\n'
LIBRARY = (
    "Input should",
    "should",
    "String ",
    "Tuple",
    "Field required",
    "pydantic",
    "<class",
    "appear",
)
"""Words of sentences that are the libraries'."""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a `notifier.toml`, and an environment without variables of ours."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**given: Any) -> str | None:
    """The line, if the settings are refused."""
    try:
        load(**given)
    except SettingsError as error:
        line = str(error)
        assert "\n" not in line
        assert not any(word in line for word in LIBRARY), line
        return line
    return None


def in_file(text: str) -> str | None:
    """The line for a `notifier.toml`, without its name."""
    Path("notifier.toml").write_text(text)
    line = refusal()
    assert line is None or line.startswith("notifier.toml"), line
    return line and line.removeprefix("notifier.toml").lstrip(",: ")


@pytest.mark.parametrize("name", OPTIONS)
def test_any_variable_is_named_as_it_was_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"{PREFIX}{name.upper()}"
    for value in ("x y", "-1", "nan", "9" * 5000, "{}", ","):
        monkeypatch.setenv(variable, value)
        line = refusal()
        assert line is None or line.startswith(f"{variable}: "), (value[:9], line)


@pytest.mark.parametrize("name", OPTIONS)
def test_any_setting_of_the_file_is_named_with_its_line(name: str) -> None:
    for value in ("3", "-1.5", "true", "'x y'", "''", "[3]", "{ a = 1 }"):
        line = in_file(f"# settings\n{name} = {value}\n")
        assert line is None or line.startswith(f"line 2: {name}: "), (value, line)


@pytest.mark.parametrize(
    ("section", "head", "option"),
    [
        *(("watch", WATCH, each.name) for each in fields(Watch) if each.init),
        *(("scope", '[[scope]]\nname = "a"\n', each.name) for each in fields(Scope)),
    ],
)
def test_any_option_of_a_table_is_named_with_its_line(section: str, head: str, option: str) -> None:
    kept = [line for line in head.splitlines() if not line.startswith(f"{option} ")]
    for value in ("3", "1.5", "true", "'x y'", "''", "[3]", "[]", "{ a = 1.5 }", "{ a = '' }"):
        line = in_file("\n".join((*kept, f"{option} = {value}\n")))
        at_option = f"line {len(kept) + 1}: [[{section}]] 1, {option}"
        whole = f"line 1: [[{section}]] 1: "  # options that do not go together
        assert line is None or line.startswith((at_option, whole)), (value, line)


EXPECTED = [
    ("PORT", "eighty", "not a whole number; must be a whole number from 0 to 65535"),
    ("PORT", "65536", "out of range; must be a whole number from 0 to 65535"),
    ("MAX_STATE_ROWS", "0", "out of range; must be a whole number from 1 to 1000000000"),
    ("RETENTION_HOURS", "0", "out of range; must be a number greater than 0 and at most 8784"),
    ("PING_SECONDS", "x", "not a number; must be a number from 0.1 to 86400"),
    ("PING_SECONDS", "inf", "out of range; must be a number from 0.1 to 86400"),
    ("AUTH_TIMEOUT_SECONDS", "nan", "out of range; must be a number from 0.1 to 3600"),
    ("DRAIN_SECONDS", "nan", "out of range; must be a number from 0 to 25"),
    ("DEFLATE", "perhaps", "must be on or off"),
    ("LOG_LEVEL", "loud", "must be debug, info, warning or error"),
    ("NAIVE_TIMESTAMPS", "CET", "must be UTC"),
    ("TOKEN_COOKIE", "a b", "must be letters, digits and any of !#$%&'*+-.^_`|~"),
    ("SSL_KEYFILE", "gone.pem", "no file gone.pem"),
    ("TRUSTED_PROXIES", "nginx", "'nginx' is not an address or a network such as 10.0.0.0/8"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.1/8 is a host in a network; write 10.0.0.0/8"),
    ("NATS_CREDENTIALS", "user.creds", "needs NOTIFIER_NATS_URL"),
    ("DATABASE_URL", "localhost/d", "must be like postgresql://user@host:port/database"),
]


@pytest.mark.parametrize(("name", "value", "line"), EXPECTED)
def test_a_variable_has_its_fault_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    assert refusal() == f"{PREFIX}{name}: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = true", "line 1: port: not a number; must be a whole number from 0 to 65535"),
        (
            "ping_seconds = true",
            "line 1: ping_seconds: not a number; must be a number from 0.1 to 86400",
        ),
        (
            "status_port = false",
            "line 1: status_port: not a number; must be a whole number from 0 to 65535",
        ),
        ("deflate = 3", "line 1: deflate: must be true or false"),
        ("host = 3", "line 1: host: must be text in quotes"),
        ("state = true", 'line 1: state: must be "on" or "off"'),
        ("allowed_origins = [3]", "line 1: allowed_origins: must be a list of texts in quotes"),
        ("[watch]", "line 1: watch: must be written as [[watch]], once for each"),
        ("watch = [3]", "line 1: [[watch]] 1: must be a table of options"),
        (
            f"{WATCH}key = []",
            "line 4: [[watch]] 1, key: must be text in quotes, or a list of one or more texts in quotes",
        ),
        (
            f"{WATCH}rename = 3",
            'line 4: [[watch]] 1, rename: must be a table such as { column = "text" }',
        ),
        (
            f'{WATCH}member = "u"\nmember_if = {{ a = 1.5 }}',
            "line 5: [[watch]] 1, member_if.a: must be true or false, or a whole number, or text in quotes",
        ),
        (
            '[[scope]]\nname = "a:b"',
            "line 2: [[scope]] 1, name: must be a letter, then letters, digits, _ and -, at most 60 characters",
        ),
        (
            WATCH * 2,
            (
                "line 6: [[watch]] 2, entity: T is also the entity of [[watch]] 1; only watches of two scopes"
                " may share one"
            ),
        ),
        (
            WATCH.replace('"T"', '"snapshot"') + 'company = "a_id -> a.company_id"',
            "line 3: [[watch]] 1, entity: snapshot is kept for the snapshot of a writer where `company` is a path",
        ),
        (
            f'{WATCH}updated = "Resync"',
            "line 4: [[watch]] 1, updated: Resync is a message of the protocol itself",
        ),
        (
            f'{WATCH}{WATCH.replace("T", "U")}deleted = "TCreated"',
            "line 7: [[watch]] 2, deleted: TCreated is also the type of messages of [[watch]] 1, another entity",
        ),
        (
            f'{WATCH}deleted = "UUpdated"\n{WATCH.replace("T", "U")}',
            "line 5: [[watch]] 2, updated: UUpdated is also the type of messages of [[watch]] 1, another entity",
        ),
        (
            '[[scope]]\nname = "a"\n[[scope]]\nname = "a"\n',
            "line 4: [[scope]] 2, name: a is also the name of [[scope]] 1",
        ),
        ("nats_credentials = 'x'", "line 1: nats_credentials: needs nats_url"),
        (
            "jwt_companies_claim = 'sub'",
            "line 1: jwt_companies_claim: names the same claim as jwt_user_claim",
        ),
        ("port = 1\nport = 2", "not valid TOML: Cannot overwrite a value (at end of document)"),
    ],
)
def test_a_setting_of_the_file_has_its_fault_and_what_is_allowed(text: str, line: str) -> None:
    assert in_file(text) == line


def test_settings_that_disagree_are_each_named_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("notifier.toml").write_text("jwt_user_claim = 'id'\nssl_certfile = 'notifier.toml'\n")
    monkeypatch.setenv("NOTIFIER_JWT_COMPANIES_CLAIM", "id")
    assert refusal() == "notifier.toml, line 2: ssl_certfile: needs ssl_keyfile"
    assert refusal(ssl_keyfile="notifier.toml") == (
        "notifier.toml, line 1: jwt_user_claim: names the same claim as NOTIFIER_JWT_COMPANIES_CLAIM"
    )


def test_an_argument_is_named_and_not_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_SSL_KEYFILE", "gone.key")
    assert refusal(ssl_keyfile="gone.pem") == "ssl_keyfile: no file gone.pem"
    assert refusal(ssl_keyfile=None) == "NOTIFIER_SSL_KEYFILE: no file gone.key"
    monkeypatch.delenv("NOTIFIER_SSL_KEYFILE")
    line = refusal(watch=[{"table": "t", "entity": "a b"}])
    assert str(line).startswith("[[watch]] 1, entity: must be a letter")


def test_an_option_of_the_command_line_is_named_as_it_was_written(nowhere: Path) -> None:
    (nowhere / "cert.pem").touch()
    with pytest.raises(SettingsError, match=r"^--ssl-certfile: needs --ssl-keyfile$"):
        serve_command(ssl_certfile=Path("cert.pem"))
    with pytest.raises(SettingsError, match=r"^--ssl-keyfile: no file gone\.pem$"):
        serve_command(ssl_certfile=Path("cert.pem"), ssl_keyfile=Path("gone.pem"))
    (nowhere / "notifier.toml").write_text('ssl_keyfile = "gone.pem"\n')
    with pytest.raises(SettingsError, match=r"^notifier\.toml, line 1: ssl_keyfile: no file"):
        serve_command(ssl_certfile=Path("cert.pem"))


def test_every_pattern_is_described_in_words() -> None:
    named = json.dumps(Settings.model_json_schema())
    assert set(re.findall(r'"pattern": ("[^"]*")', named)) == {
        json.dumps(each) for each in PATTERNS
    }


def test_the_file_is_named_as_in_notifier_config(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = nowhere / "production.toml"
    monkeypatch.setenv("NOTIFIER_CONFIG", str(file))
    file.write_text("port = 70000")
    assert str(refusal()).startswith(f"{file}, line 1: port: out of range")
    file.write_bytes(b"\xef\xbb\xbfport = 70000")  # as Windows' Notepad saves it
    assert str(refusal()).startswith(f"{file}, line 1: port: out of range")
    file.write_bytes(b"host = '\xff'")
    assert refusal() == f"{file}: must be UTF-8"
    monkeypatch.setenv("NOTIFIER_CONFIG", "x" * 300)
    assert refusal() == f"NOTIFIER_CONFIG: no file {'x' * 300}"
    monkeypatch.setenv("NOTIFIER_CONFIG", "/proc/self/mem")
    assert str(refusal()).startswith("/proc/self/mem: cannot be read: ")


@pytest.mark.parametrize("value", ["x", "[]", '[{"table": "t", "entity": "T"}]'])
def test_tables_of_options_are_not_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    expected = load().watch
    for section in SECTIONS:
        monkeypatch.setenv(f"{PREFIX}{section.upper()}", value)
    warnings: list[str] = []
    assert load(warn=warnings.append).watch == expected
    assert warnings == ["unknown settings are ignored: NOTIFIER_SCOPE, NOTIFIER_WATCH"]
