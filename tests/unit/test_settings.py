"""Settings: where they come from, and the one line that names a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from notifier.commands import COMMANDS
from notifier.errors import SettingsError
from notifier.messages import PROTOCOL_TYPES, ServerMessage
from notifier.settings import PREFIX, Settings, load
from notifier.watches import CALENDAR, clashes

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a `notifier.toml`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wrong(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as error:
        load()
    refusal = str(error.value)
    assert "\n" not in refusal
    return refusal


def test_the_readme_names_every_setting_and_no_other() -> None:
    table = README.read_text().split("## Settings")[1].split("Other tables")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name.lower() for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == (set(Settings.model_fields) - {"watch", "scope"}) | {"config"}


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_ALLOWED_ORIGINS", "https://a.example, https://b.example,")
    assert load().allowed_origins == ("https://a.example", "https://b.example")


def test_the_claims_of_user_and_companies_are_two_and_have_no_other_meaning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusal = wrong(monkeypatch, JWT_USER_CLAIM="aud")
    assert refusal.startswith("NOTIFIER_JWT_USER_CLAIM: aud has another meaning in a token")
    assert wrong(monkeypatch, JWT_USER_CLAIM="companies") == (
        "NOTIFIER_JWT_USER_CLAIM: names the same claim as NOTIFIER_JWT_COMPANIES_CLAIM"
    )


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_RETENTION_HOURS", "")
    assert load().retention_hours == 24


def test_the_doorbell_is_turned_off_by_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_DOORBELL", "off")
    assert load().doorbell is False


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_PORT", "9000")
    assert load(port=9001).port == 9001
    assert load(port=None).port == 9000


def test_case_2_unknown_variables_are_one_warning_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFIER_PROT", "9000")
    monkeypatch.setenv("NOTIFIER_SERVICE_HOST", "10.96.12.3")
    warnings: list[str] = []
    assert load(warn=warnings.append).port == 8181
    assert warnings == [
        (
            "unknown settings are ignored: NOTIFIER_PROT (did you mean NOTIFIER_PORT?),"
            " NOTIFIER_SERVICE_HOST"
        )
    ]


def test_a_warning_is_a_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFIER_COLOUR", "red")
    load()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "notifier: warning: unknown settings are ignored: NOTIFIER_COLOUR\n"


SERVICE_LINKS = {
    "SERVICE_HOST": "10.96.12.3",
    "SERVICE_PORT": "8181",
    "SERVICE_PORT_HTTP": "8181",
    "PORT": "tcp://10.96.12.3:8181",
    "PORT_8181_TCP": "tcp://10.96.12.3:8181",
    "PORT_8181_TCP_PROTO": "tcp",
    "PORT_8181_TCP_PORT": "8181",
    "PORT_8181_TCP_ADDR": "10.96.12.3",
    "STATUS_SERVICE_HOST": "10.96.12.4",
    "STATUS_PORT": "udp://10.96.12.4:53",
    "METRICS_PORT": "tcp://[fd00::1]:9090",
}


def test_case_2_the_variables_of_a_service_called_notifier_set_nothing(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(PREFIX + name, value)
    warnings: list[str] = []
    settings = load(warn=warnings.append)
    assert (settings.port, settings.status_port, settings.host) == (8181, None, "0.0.0.0")
    assert len(warnings) == 1
    assert load(port=9000, warn=warnings.append).port == 9000
    (nowhere / "notifier.toml").write_text("port = 9001\nstatus_port = 9002\n")
    settings = load(warn=warnings.append)
    assert (settings.port, settings.status_port) == (9001, 9002)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LOG_LEVEL", "INFO", "info"),
        ("LOG_LEVEL", "Warning", "warning"),
        ("LOG_FORMAT", "JSON", "json"),
        ("AUTHORIZATION", "Claim", "claim"),
        ("ROOT_PATH", "/", ""),
        ("ROOT_PATH", "realtime/", "/realtime"),
        ("ROOT_PATH", "/a/b.c", "/a/b.c"),
    ],
)
def test_spellings_that_mean_the_same_are_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    assert getattr(load(), name.lower()) == expected


def words() -> Iterator[tuple[str, str]]:
    """Each setting that takes one of some words, with each word."""
    for name, field in Settings.model_fields.items():
        for each in (field.annotation, *get_args(field.annotation)):
            if get_origin(each) is Literal:
                yield from ((name, word) for word in get_args(each))


@pytest.mark.parametrize(("name", "word"), [*words()])
def test_a_word_may_be_written_in_any_case(
    monkeypatch: pytest.MonkeyPatch, name: str, word: str
) -> None:
    for spelling in (word.upper(), word.lower(), word.title()):
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", spelling)
        settings = load()
        assert getattr(settings, name) == word
        if name == "naive_timestamps":
            assert {watch.naive_timestamps for watch in settings.watch} == {word}


def test_the_zone_in_another_case_is_that_of_every_watch(nowhere: Path) -> None:
    (nowhere / "notifier.toml").write_text(
        'naive_timestamps = "Utc"\n[[watch]]\ntable = "t"\nentity = "T"\n'
    )
    assert [watch.naive_timestamps for watch in load().watch] == ["UTC"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("STATE", "perhaps"),
        ("PORT", "65536"),
        ("RETENTION_HOURS", "0"),
        ("RETENTION_HOURS", "nan"),
        ("BULK_LIMIT", "0"),
        ("MAX_LOG_BYTES", "1"),
        ("AUTHORIZATION", "everybody"),
        ("SSL_CERTFILE", "there-is-none.pem"),
        ("AUTH_TIMEOUT_SECONDS", "-1"),
        ("DATABASE_URL", "localhost/calendar"),
        ("LISTEN_DATABASE_URL", "mysql://localhost/calendar"),
        ("PORT", "http://10.0.0.1:80"),
        ("LOG_LEVEL", "loud"),
        ("ROOT_PATH", "https://a.example/x"),
        ("ROOT_PATH", "/a/../b"),
        ("ROOT_PATH", "/a b"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting_or_its_file(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    refusal = wrong(monkeypatch, **{name: value})
    assert name in refusal


def is_number(kind: object) -> bool:
    return kind in (int, float) or any(map(is_number, get_args(kind)))


NUMBERS = [name for name, field in Settings.model_fields.items() if is_number(field.annotation)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_bounds(name: str, monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    for value in ("inf", "-inf", "nan", "-1", "1e400", "1e30", "9" * 30, "9" * 5000, "true"):
        assert wrong(monkeypatch, **{name.upper(): value}).startswith(f"NOTIFIER_{name.upper()}: ")
    monkeypatch.delenv(PREFIX + name.upper())
    for value in ("inf", "nan", "-1", "1e30", "9" * 19, "true"):
        (nowhere / "notifier.toml").write_text(f"{name} = {value}\n")
        refusal = wrong(monkeypatch)
        assert refusal.startswith("notifier.toml, line 1: ")
        assert "must be" in refusal


def test_no_value_of_a_setting_is_ever_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_JWT_SECRET", "a secret that must not be repeated")
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", "postgresql://u:hidden@localhost/d")
    assert "secret that" not in repr(load())
    assert "hidden" not in repr(load())
    assert "zzz" not in wrong(monkeypatch, PING_SECONDS="zzz")


def test_watched_tables_come_from_the_file(nowhere: Path) -> None:
    (nowhere / "notifier.toml").write_text(
        '[[watch]]\ntable = "crm.members"\nentity = "Member"\ncompany = "tenant_id"\n'
        'exclude = ["password"]\ndeleted = "MemberLeft"\ncreated = ""\n'
    )
    (watch,) = load().watch
    assert watch.names == (None, "MemberUpdated", "MemberLeft")
    assert watch.exclude == ("password",)


def test_without_a_file_the_calendar_is_watched() -> None:
    assert load().watch == CALENDAR
    assert [watch.names for watch in CALENDAR] == [
        ("EventCreated", "EventUpdated", "EventDeleted"),
        ("EmployeeAdded", "EmployeeUpdated", "EmployeeRemoved"),
        (None, "CompanyUpdated", "CompanyDeleted"),
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("port = ", "notifier.toml"),
        ("colour = 1", "colour"),
        ('[[watch]]\ntable = "t"', "entity"),
        ('[[watch]]\ntable = "t"\nentity = "A B"', "entity"),
        ('[[watch]]\ntable = "t"\nentity = "T"\nexclude = ["id"]', "id"),
        ('[[watch]]\ntable = "t"\nentity = "T"\ncolour = "red"', "colour"),
        ('[[watch]]\ntable = "t"\nentity = "T"\nmember = "u"\ndeleted = ""', "members"),
        (
            '[[watch]]\ntable = "t"\nentity = "T"\n[[watch]]\ntable = "s"\nentity = "T"',
            "entity of [[watch]] 1",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_error(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, text: str, word: str
) -> None:
    (nowhere / "notifier.toml").write_text(text)
    assert word in wrong(monkeypatch)


HEAD = """\
# watches
naive_timestamps = "UTC"

[[watch]]  # the first
table = "a"
entity = "A"

[[watch]]
table = "b"
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 8: [[watch]] 2, entity: missing; must be a letter"),
        ('entity = "B"\nkey = 3', "line 11: [[watch]] 2, key: must be text in quotes, or a list"),
        (
            'entity = "B"\n"compny" = "x"',
            "line 11: [[watch]] 2, compny: there is no such option; did you mean company?",
        ),
        ('entity = "B"\ncolour = "x"', "line 11: [[watch]] 2, colour: there is no such option"),
        (
            'entity = "B"\nexclude = ["id"]',
            "line 8: [[watch]] 2: exclude names id, which is needed",
        ),
        ('entity = "B"\n[watch.rename]\na = 1', "line 11: [[watch]] 2, rename.a: must be text"),
        (
            """entity = "B"\ncompany = '"a" -> "B"'""",
            'line 8: [[watch]] 2: company "a" -> "B" is no path: write a column of the table, then -> TABLE.COLUMN',
        ),
        (
            'entity = "B"\n[[wach]]\ntable = "c"',
            "line 11: wach: there is no such option; did you mean watch?",
        ),
        ('entity = "B"\n[[watch]]\ntable = "c"', "line 11: [[watch]] 3, entity: missing"),
        ('entity = "B', "not valid TOML: Illegal character '\\n' (at line 10, column 12)"),
    ],
)
def test_an_error_in_the_file_names_the_line_and_a_near_miss(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    (nowhere / "notifier.toml").write_text(f"{HEAD}{text}\n")
    refusal = wrong(monkeypatch)
    assert refusal.removeprefix("notifier.toml").lstrip(",: ").startswith(line), refusal


def test_a_setting_that_is_wrong_names_the_variable_or_the_line_that_it_comes_from(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "notifier.toml").write_text('host = "::"\nport = "x"\n')
    assert wrong(monkeypatch).startswith("notifier.toml, line 2: port: ")
    assert wrong(monkeypatch, PORT="y").startswith("NOTIFIER_PORT: ")


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere.toml" in wrong(monkeypatch, CONFIG="nowhere.toml")


@pytest.mark.parametrize("proxy", ["nginx", "*", "10.0.0.1/8", "10.0.0.1:80"])
def test_a_trusted_proxy_is_an_address_or_a_network(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    refusal = wrong(monkeypatch, TRUSTED_PROXIES=f"10.0.0.0/8, {proxy}")
    assert refusal.startswith("NOTIFIER_TRUSTED_PROXIES: ")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"NATS_URL": "nats.example.com:4222"}, "NOTIFIER_NATS_URL: must be like nats://host:4222"),
        ({"NATS_URL": "http://s3cret@host"}, "NOTIFIER_NATS_URL: must be like"),
        ({"NATS_URL": "nats://s3cret@:4222"}, "NOTIFIER_NATS_URL: must be like"),
        ({"NATS_URL": "nats://host:s3cret"}, "NOTIFIER_NATS_URL: the port"),
        ({"NATS_URL": "nats://host:99999"}, "NOTIFIER_NATS_URL: the port"),
        ({"NATS_URL": "nats://host,tls://other/subject"}, "NOTIFIER_NATS_URL: only a server"),
        ({"NATS_URL": ","}, "NOTIFIER_NATS_URL: names no server"),
        ({"NATS_CREDENTIALS": "user.creds"}, "NOTIFIER_NATS_CREDENTIALS: needs NOTIFIER_NATS_URL"),
        ({"NATS_PREFIX": "a b"}, "NOTIFIER_NATS_PREFIX: must be words"),
        ({"NATS_PREFIX": "a.*"}, "NOTIFIER_NATS_PREFIX: must be words"),
        ({"NATS_PREFIX": ".a"}, "NOTIFIER_NATS_PREFIX: must be words"),
    ],
)
def test_servers_of_nats_are_named_by_urls(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], reason: str
) -> None:
    line = wrong(monkeypatch, **settings)
    assert line.startswith(reason)
    assert "s3cret" not in line


def test_several_servers_of_nats_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_NATS_URL", " nats://one , tls://user:p%2Cw@[::1]:4223 ")
    settings = load()
    assert [(each.scheme, each.hostname, each.port) for each in settings.nats_servers] == [
        ("nats", "one", None),
        ("tls", "::1", 4223),
    ]
    assert "p%2Cw" not in repr(settings)
    assert load().nats_prefix == "notifier"


def test_no_change_has_the_type_of_a_message_of_the_protocol() -> None:
    own = {each.__struct_config__.tag for each in ServerMessage.__subclasses__()}
    assert own - {None} | {"Resync"} == PROTOCOL_TYPES
    answers = {answer.__struct_config__.tag for _, answer in COMMANDS.values()}
    for kind in (*answers, "Error", "Disconnect", "Skipped", "State", "Resync"):
        fault = f"{kind} is a message of the protocol itself"
        watches = [replace(CALENDAR[0], created=str(kind))]
        assert list(clashes(watches)) == [(0, "created", fault)]
