"""Connection strings: what libpq takes is understood, and no error repeats a part of a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.conninfo import KEYWORDS, ConninfoError, parse
from notifier.errors import SettingsError
from notifier.settings import load


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("postgresql://", {}),
        ("postgres://localhost", {"host": "localhost"}),
        (
            "postgresql://u:p@h:5433/d",
            {"user": "u", "password": "p", "host": "h", "port": "5433", "dbname": "d"},
        ),
        ("postgresql:///d?host=/tmp&port=5433", {"dbname": "d", "host": "/tmp", "port": "5433"}),
        (
            "postgresql://u@%2Frun%2Fpg:5433/d",
            {"user": "u", "host": "/run/pg", "port": "5433", "dbname": "d"},
        ),
        (
            "postgresql://[2001:db8::1]:5433/d",
            {"host": "2001:db8::1", "port": "5433", "dbname": "d"},
        ),
        ("postgresql://[::1]/d", {"host": "::1", "dbname": "d"}),
        (
            "postgresql://h1:1,h2,[::1]:3/d?target_session_attrs=primary",
            {"host": "h1,h2,::1", "port": "1,,3", "dbname": "d", "target_session_attrs": "primary"},
        ),
        ("postgresql://h/?dbname=d&user=a@b", {"host": "h", "dbname": "d", "user": "a@b"}),
        ("postgresql://h/d?host=other", {"host": "other", "dbname": "d"}),
        (
            "postgresql://u:p%40s%2Fs%23%3F%3A%25%20@h/d",
            {"user": "u", "password": "p@s/s#?:% ", "host": "h", "dbname": "d"},
        ),
        ("postgresql://u:a:b#c?d&e=f+g@h", {"user": "u", "password": "a:b#c?d&e=f+g", "host": "h"}),
        (
            "postgresql://u:p[w]d@h/d",
            {"user": "u", "password": "p[w]d", "host": "h", "dbname": "d"},
        ),
        ("postgresql://h/d?ssl=true", {"host": "h", "dbname": "d", "sslmode": "require"}),
        ("postgresql://h/d?ssl=prefer", {"host": "h", "dbname": "d", "sslmode": "prefer"}),
        (
            "postgresql://h/d?options=-c%20a%3D1+2&application_name=my%20app",
            {"host": "h", "dbname": "d", "options": "-c a=1+2", "application_name": "my app"},
        ),
        ("postgresql://h/d\n", {"host": "h", "dbname": "d"}),
        ("postgresql://h/d?password=", {"host": "h", "dbname": "d"}),
        ("host=h  port = 5433 dbname=d", {"host": "h", "port": "5433", "dbname": "d"}),
        (r"host=h password='a b\'c\\d' user=u", {"host": "h", "password": r"a b'c\d", "user": "u"}),
        (r"password=a\ b@c/d#e user='' host=h", {"password": "a b@c/d#e", "host": "h"}),
        ("service=x", {"service": "x"}),
    ],
)
def test_what_libpq_takes_is_understood(text: str, options: dict[str, str]) -> None:
    assert parse(text) == options


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("localhost/d", "must be like postgresql://user@host:port/database"),
        ("mysql://u:hidden@h/d?a=b", "must be like postgresql://user@host:port/database"),
        ("postgresql+asyncpg://u:hidden@h/d?a=b", "must be like"),
        ("postgresql://h/d?sslmod=require", 'unknown connection option "sslmod"'),
        ("postgresql://h/d?schema=crm", 'unknown connection option "schema"'),
        (
            "postgresql://h/d?pgbouncer=true&sslmode=require",
            'unknown connection option "pgbouncer"',
        ),
        ("postgresql://h/d?replication=database", 'unknown connection option "replication"'),
        ("host=h dbnam=d", 'unknown connection option "dbnam"'),
        ("postgresql://h/d?sslmode", "option=value"),
        ("postgresql://h/d?sslmode=a=b", "option=value"),
        ("postgresql://h/d%2", "percent-encode"),
        ("postgresql://h/%00", "%00"),
        ("postgresql://h/%ff", "UTF-8"),
        ("postgresql://[::1/d", "must be like"),
    ],
)
def test_what_libpq_does_not_take_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ConninfoError) as error:
        parse(text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert "hidden" not in str(error.value)


UNENCODED = [
    "postgresql://owner:s3cr3t@ret/42@localhost:8430/app",
    "postgresql://owner:s3cr3t/ret@localhost:8430/app",
    "postgresql://owner:12/s3cr3t@localhost:8430/app",
    "postgresql://owner:12/s3cr3t@localhost:8430/app?sslmode=require",
    "postgresql://owner:s3cr3t@ret@localhost/app",
    "postgresql://owner:s3cr3t%ret@localhost/app",
    "postgresql://owner:42?s3cr3t=1/x@localhost/app",
    "postgresql://owner:42@h?s3cr3t=1/x@localhost/app",
    "postgresql://owner:s3cr3t?a/x@localhost/app",
    "postgresql://owner:42@s3cr3t:x@localhost/app",
    "postgresql://owner:1,s3cr3t/2@localhost/app",
    "postgresql://owner:/s3cr3t@localhost/app",
    "postgresql://owner:42@/s3cr3t@localhost/app",
    "postgresql://owner:[s3cr3t/]@localhost/app",
    "host=localhost password=my s3cr3t user=x",
    "host=localhost password=my s3cr3t=1 user=x",
    "host=localhost password='my's3cr3t' user=x",
    "host=localhost user=x password='s3cr3t",
]


@pytest.mark.parametrize("url", UNENCODED)
def test_case_f13_a_password_that_is_not_encoded_is_one_line_and_no_part_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", url)
    with pytest.raises(SettingsError) as error:
        load()
    line = str(error.value)
    assert line.startswith("NOTIFIER_DATABASE_URL: ")
    assert "percent-encode the password" in line or "quote values" in line
    assert "s3cr3t" not in line
    assert "ret" not in line
    assert "\n" not in line


SPECIAL = st.text(st.sampled_from("@/:?#%&=+[],;' \\\"<>|aZ9é\t"), min_size=1, max_size=12)


@given(SPECIAL)
def test_no_password_of_special_characters_changes_where_a_url_leads(password: str) -> None:
    """As it is, it is taken as libpq takes it or refused: never as another host or database."""
    try:
        options = parse(f"postgresql://owner:{password}@localhost:8430/app")
    except ConninfoError:
        return
    assert (options["host"], options["port"], options["dbname"]) == ("localhost", "8430", "app")
    assert options.get("password", "") == password.strip("\0")


@given(SPECIAL)
def test_any_password_can_be_quoted_in_a_key_value_string(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"password='{quoted}' host=h") == {"password": password, "host": "h"}


ANY: tuple[tuple[str, ...], tuple[str, ...]] = (("any",), ())
NUMBER = (("0", "-1", "60"), ("soon", "1.5", "1e3", "2147483648", "nan"))
VERSION = (("TLSv1", "TLSv1.2", "TLSv1.3"), ("SSLv3", "1.2"))

OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # The options of libpq 18 that are used, with values that are accepted and values that are refused.
    "application_name": ANY,
    "connect_timeout": NUMBER,
    "dbname": ANY,
    "gsslib": (("gssapi",), ("other",)),
    "host": (("a", "a,b", "/tmp"), ("@abstract",)),
    "hostaddr": (("127.0.0.1", "::1", "127.0.0.1,::1"), ("db.example", "127.0.0")),
    "krbsrvname": ANY,
    "load_balance_hosts": (("disable", "random"), ("yes",)),
    "options": ANY,
    "passfile": ANY,
    "password": ANY,
    "port": (("5432", "1,2"), ("0", "65536", "pass", "-1")),
    "service": ANY,
    "servicefile": ANY,
    "ssl_max_protocol_version": VERSION,
    "ssl_min_protocol_version": VERSION,
    "sslcert": ANY,
    "sslcertmode": (("disable", "allow", "require"), ("no",)),
    "sslcrl": ANY,
    "sslcrldir": ANY,
    "sslkey": ANY,
    "sslmode": (
        ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        ("full", "REQUIRE", "true"),
    ),
    "sslnegotiation": (("postgres", "direct"), ("tls",)),
    "sslpassword": ANY,
    "sslrootcert": ANY,
    "target_session_attrs": (("any", "read-write", "prefer-standby"), ("master",)),
    "user": ANY,
    # Those without effect: they protect nothing, or concern what the driver does not do.
    "client_encoding": ANY,
    "fallback_application_name": ANY,
    "gssdelegation": ANY,
    "keepalives": NUMBER,
    "keepalives_count": NUMBER,
    "keepalives_idle": NUMBER,
    "keepalives_interval": NUMBER,
    "max_protocol_version": (("3.0", "3.2", "latest"), ("4.0",)),
    "oauth_client_id": ANY,
    "oauth_client_secret": ANY,
    "oauth_issuer": ANY,
    "oauth_scope": ANY,
    "scram_client_key": ANY,
    "scram_server_key": ANY,
    "sslcompression": ANY,
    "sslkeylogfile": ANY,
    "sslsni": ANY,
    "tcp_user_timeout": NUMBER,
    # Those that would protect the connection in a way that the driver lacks.
    "channel_binding": (("disable", "prefer", "require"), ("yes",)),  # the last demands TLS
    "gssencmode": (("disable", "prefer"), ("require", "yes")),
    "min_protocol_version": (("3.0", "3.2", "latest"), ("4.0",)),
    "require_auth": ANY,
    "requirepeer": ANY,
}


def test_every_option_of_libpq_has_its_row() -> None:
    assert OPTIONS.keys() == KEYWORDS


@pytest.mark.parametrize("name", OPTIONS)
def test_each_value_that_libpq_refuses_or_the_driver_cannot_honour_is_a_wrong_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted, refused = OPTIONS[name]
    for value in accepted:
        url = f"postgresql://?{name}={value}"
        assert parse(url) == {name: value}
        load({}, database_url=url, listen_database_url=url)
    for value in refused:
        for variable in ("NOTIFIER_DATABASE_URL", "NOTIFIER_LISTEN_DATABASE_URL"):
            with monkeypatch.context() as environment:
                environment.setenv(variable, f"{name}={value}")
                with pytest.raises(SettingsError) as error:
                    load()
            assert str(error.value).startswith(f"{variable}: ")
            assert name in str(error.value) or value == "@abstract"
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sslmode=require sslrootcert=system", "sslrootcert=system needs sslmode=verify-full"),
        ("sslmode=prefer sslnegotiation=direct", "needs sslmode=require or higher"),
        ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "is above"),
        ("host=a,b port=1,2,3", "3 ports do not match 2 hosts"),
        ("host=a,b hostaddr=127.0.0.1", "2 hosts do not match 1 hostaddr"),
        ("sslmode=disable channel_binding=require", "needs TLS"),
    ],
)
def test_options_that_exclude_each_other_are_a_wrong_setting(text: str, line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load({}, database_url=text)


def test_protection_that_the_driver_lacks_is_a_warning() -> None:
    def warnings(url: str) -> list[str]:
        found: list[str] = []
        load({}, found.append, database_url=url)
        return found

    for option in (
        *("channel_binding=require", "min_protocol_version=3.2", "require_auth=scram-sha-256"),
        *("requirepeer=postgres", "sslcertmode=require"),
    ):
        host = "/tmp" if option.startswith("requirepeer") else "h"
        (line,) = warnings(f"host={host} {option}")
        assert line.startswith(
            f"NOTIFIER_DATABASE_URL: {option.removesuffix('=postgres').removesuffix('=scram-sha-256')} "
        )
    assert not warnings("postgresql://h/d?channel_binding=require&sslmode=verify-full")
    assert not warnings("host=h requirepeer=postgres")
    assert not warnings("host=h channel_binding=prefer min_protocol_version=3.0 sslcertmode=allow")
