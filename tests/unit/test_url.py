"""From a URL to the servers to try: PG* variables, service and password files, hosts, TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from notifier.conninfo import ConninfoError
from notifier.database.url import DEFAULT_SECONDS, Target, describe, resolve

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def servers(target: Target) -> list[tuple[Any, ...]]:
    return [(s.arguments["host"], s.arguments["port"]) for s in target.servers]


def password(url: str) -> str:
    (server,) = resolve(url).servers
    return str(server.arguments["password"])


def refused(url: str) -> str:
    with pytest.raises(ConninfoError) as error:
        resolve(url)
    assert "\n" not in str(error.value)
    assert describe(url) == "(unreadable URL)"
    return str(error.value)


def test_hosts_are_tried_in_their_order_each_with_its_port() -> None:
    assert servers(resolve("postgresql://a:1,b,[::1]:3/d")) == [("a", 1), ("b", 5432), ("::1", 3)]
    assert servers(resolve("host=a,b port=6000 dbname=d")) == [("a", 6000), ("b", 6000)]
    assert str(resolve("postgresql://u:hidden@a:1,[::1]/d")) == "a:1,[::1]:5432/d"


def test_hosts_can_be_tried_in_random_order() -> None:
    orders = {
        tuple(servers(resolve("postgresql://a,b,c/d?load_balance_hosts=random")))
        for _ in range(100)
    }
    assert len(orders) > 1


def test_an_address_is_connected_to_and_the_host_is_verified(
    home: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(str(home / "root.crt"))
    url = f"host=db.example hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={home}/root.crt"
    (server,) = resolve(url).servers
    assert server.arguments["host"] == "127.0.0.1"
    connection = server.arguments["ssl"].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert connection.server_hostname == "db.example"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("host=a,b port=1,2,3", "3 ports do not match 2 hosts"),
        ("host=a,b hostaddr=127.0.0.1", "2 hosts do not match 1 hostaddr"),
        ("host=a port=0", "a port must be a number from 1 to 65535"),
        ("host=a port=70000", "a port must be a number from 1 to 65535"),
        ("host=a port=pass", "a port must be a number from 1 to 65535"),
        ("host=@abstract", "abstract sockets are not supported"),
        ("host=a sslmode=verify", "sslmode must be one of disable, allow, prefer"),
        ("host=a sslmode=verify-full", "set sslrootcert to a file or to system"),
        ("host=a sslmode=require sslrootcert=system", "needs sslmode=verify-full"),
        ("host=a sslmode=require sslrootcert=/none.crt", "sslrootcert /none.crt: no such file"),
        ("host=a sslcert=/none.crt", "sslcert /none.crt: no such file"),
        ("host=a sslmode=prefer sslnegotiation=direct", "needs sslmode=require or higher"),
        ("host=a ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version must be one of"),
        ("host=a target_session_attrs=master", "target_session_attrs must be one of any"),
        ("host=a connect_timeout=soon", "connect_timeout must be a number of seconds"),
        ("host=a load_balance_hosts=yes", "load_balance_hosts must be one of"),
        ("port=1,2", "2 ports do not match 0 hosts"),
        ("host=a sslmode=require ssl_max_protocol_version=TLSv1.1", "is above ssl_max_protocol"),
        ("host=a gssencmode=require", "gssencmode=require"),
        ("service=none", 'definition of service "none" not found'),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_option(url: str, line: str) -> None:
    assert line in refused(url)


def test_variables_fill_what_the_url_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGHOST": "a,b",
        "PGPORT": "1,2",
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGDATABASE": "d",
        "PGAPPNAME": "shop",
        "PGOPTIONS": "-c work_mem=8MB",
        "PGCONNECT_TIMEOUT": "9",
        "PGTARGETSESSIONATTRS": "prefer-standby",
        "PGSSLMODE": "disable",
    }.items():
        monkeypatch.setenv(name, value)
    target = resolve("postgresql://")
    assert str(target) == "a:1,b:2/d"
    assert target.application == "shop"
    assert target.seconds == 9
    assert target.passes == ("standby", "any")
    for server in target.servers:
        assert server.arguments["user"] == "u"
        assert server.arguments["password"] == "p"
        assert server.arguments["ssl"] is False
        assert server.arguments["server_settings"] == {"options": "-c work_mem=8MB"}
    given = resolve("postgresql://x:y@h:7/z?connect_timeout=0&application_name=own")
    assert str(given) == "h:7/z"
    assert given.application == "own"
    assert given.seconds == DEFAULT_SECONDS
    assert given.servers[0].arguments["password"] == "y"


def test_row_3_10_the_password_file_is_searched_as_libpq_does(home: Path) -> None:
    file = home / ".pgpass"
    file.write_text(
        "# comment\n"
        "other:5432:d:u:wrong\n"
        "h:5432:d:u:p\\:a\\\\b%?#&é:more\n"
        "h\\:x:*:*:*:colon\n"
        "*:7:*:*: spaces \r\n"
        "localhost:5432:*:*:socket\n"
        "/own/dir:*:*:*:own\n"
        "short:line\n"
    )
    file.chmod(0o600)
    assert password("postgresql://u@h/d") == "p:a\\b%?#&é"
    assert password("host=h:x user=u dbname=d") == "colon"
    assert password("postgresql://u@h:7/d") == " spaces "
    assert password("postgresql://u@%2Fvar%2Frun%2Fpostgresql/d") == "socket"
    assert password("postgresql://u@%2Fown%2Fdir:6/d") == "own"
    assert password("postgresql://u@none:8/d") == ""
    assert password("postgresql://u:own@h/d") == "own"


def test_each_host_has_its_own_password(home: Path) -> None:
    (home / "passwords").write_text("a:*:*:*:one\nb:*:*:*:two\n")
    (home / "passwords").chmod(0o600)
    target = resolve(f"postgresql://u@a,b/d?passfile={home}/passwords")
    assert [server.arguments["password"] for server in target.servers] == ["one", "two"]


def test_a_password_file_that_others_may_read_is_ignored_with_a_note(home: Path) -> None:
    (home / ".pgpass").write_text("*:*:*:*:hidden\n")
    (home / ".pgpass").chmod(0o644)
    target = resolve("postgresql://u@h/d")
    assert target.servers[0].arguments["password"] == ""
    assert any("chmod 600" in note for note in target.notes)


SERVICES = """
# comment
[first]
host=a
[shop]
host=b
port=6000
dbname=d
user=u
password=%(x)s 100%;#"'
sslmode=disable
application_name=my shop
[other]
host=c
"""


@pytest.mark.parametrize("how", ["variable", "url", "home", "system", "option"])
def test_case_f12_a_service_file_is_read_as_it_is(
    how: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://?service=shop"
    match how:
        case "variable":
            (home / "services").write_text(SERVICES)
            monkeypatch.setenv("PGSERVICEFILE", str(home / "services"))
            monkeypatch.setenv("PGSERVICE", "shop")
            url = "postgresql://"
        case "url":
            (home / "services").write_text(SERVICES)
            monkeypatch.setenv("PGSERVICEFILE", str(home / "services"))
        case "home":
            (home / ".pg_service.conf").write_text(SERVICES)
        case "system":
            (home / "pg_service.conf").write_text(SERVICES)
            monkeypatch.setenv("PGSYSCONFDIR", str(home))
        case "option":
            (home / "services").write_text(SERVICES)
            url = f"service=shop servicefile={home}/services"
    target = resolve(url)
    assert str(target) == "b:6000/d"
    assert target.servers[0].arguments["password"] == "%(x)s 100%;#\"'"
    assert target.application == "my shop"


def test_the_url_goes_before_the_service_and_that_before_the_variables(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".pg_service.conf").write_text(SERVICES)
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGSERVICE", "shop")
    assert str(resolve("postgresql://x@own/")) == "own:6000/d"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[s]\nhost", "line 2: must be option=value"),
        ("[s]\npasword=hidden", 'line 2: unknown connection option "pasword"'),
        ("[s]\nservice=t", "line 2: a service cannot name another"),
        ("[s]\nldap://host/x?y=z", "line 2: must be option=value"),
        ("[other]\nhost=a", 'definition of service "s" not found'),
        (b"[s]\npassword=\xff", "is not UTF-8"),
    ],
)
def test_a_wrong_service_file_is_one_line(home: Path, text: str | bytes, line: str) -> None:
    (home / ".pg_service.conf").write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal = refused("service=s")
    assert line in refusal
    assert "hidden" not in refusal


def test_a_service_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICEFILE", "/none.conf")
    assert 'service file "/none.conf" not found' in refused("service=s")


def test_row_3_9_tls_verifies_what_its_mode_demands(home: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(str(home / "root.crt"))

    def context(options: str) -> ssl.SSLContext:
        found = resolve(f"host=h {options}").servers[0].arguments["ssl"]
        assert isinstance(found, ssl.SSLContext)
        return found

    assert context("sslmode=require").verify_mode == ssl.CERT_NONE
    root = f"sslrootcert={home}/root.crt"
    for mode in ("require", "verify-ca"):
        assert context(f"sslmode={mode} {root}").verify_mode == ssl.CERT_REQUIRED
        assert not context(f"sslmode={mode} {root}").check_hostname
    assert context(f"sslmode=verify-full {root}").check_hostname
    assert context("sslrootcert=system").check_hostname
    assert context("sslrootcert=system").verify_mode == ssl.CERT_REQUIRED
    assert context("sslmode=require").minimum_version == ssl.TLSVersion.TLSv1_2
    assert context("sslmode=require ssl_min_protocol_version=TLSv1.3").minimum_version == (
        ssl.TLSVersion.TLSv1_3
    )
    assert context("sslmode=require ssl_max_protocol_version=TLSv1.2").maximum_version == (
        ssl.TLSVersion.TLSv1_2
    )


def test_tls_files_of_the_home_directory_are_used(home: Path, authority: trustme.CA) -> None:
    folder = home / ".postgresql"
    folder.mkdir()
    authority.cert_pem.write_to_path(str(folder / "root.crt"))
    (server,) = resolve("host=h sslmode=verify-full").servers
    assert server.arguments["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert server.arguments["ssl"].get_ca_certs()


def test_a_file_that_holds_no_certificate_is_named(home: Path, authority: trustme.CA) -> None:
    (home / "bad").write_text("nonsense")
    assert f"sslrootcert {home}/bad" in refused(f"host=h sslmode=require sslrootcert={home}/bad")
    assert f"sslcert {home}/bad" in refused(f"host=h sslcert={home}/bad")
    authority.cert_pem.write_to_path(str(home / "root.crt"))
    line = refused(f"host=h sslmode=require sslrootcert={home}/root.crt sslcrl={home}/bad")
    assert f"sslcrl {home}/bad" in line
    assert "sslcrldir /none: no such directory" in refused(
        f"host=h sslmode=require sslrootcert={home}/root.crt sslcrldir=/none"
    )


def test_an_encrypted_key_needs_its_password_and_never_a_terminal(
    home: Path, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert("client.example")
    certificate.cert_chain_pems[0].write_to_path(str(home / "client.crt"))
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    (home / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    url = f"host=h sslmode=require sslcert={home}/client.crt sslkey={home}/client.key"
    resolve(f"{url} sslpassword=sesame")
    for wrong in ("", "sslpassword=hidden"):
        line = refused(f"{url} {wrong}")
        assert f"sslcert {home}/client.crt" in line
        assert "hidden" not in line


def test_prefer_leaves_the_choice_of_tls_to_the_driver(home: Path) -> None:
    assert resolve("host=h").servers[0].arguments["dsn"] == "postgresql://?sslmode=prefer"
    assert "ssl" not in resolve("host=/tmp sslmode=require").servers[0].arguments


def test_options_without_effect_are_named_and_do_not_hinder() -> None:
    target = resolve(
        "postgresql://h/d?keepalives_idle=5&scram_client_key=eA%3D%3D&gssencmode=prefer&sslsni=1"
        "&fallback_application_name=x"
    )
    assert target.notes == (
        "connection option keepalives_idle has no effect here",
        "connection option scram_client_key has no effect here",
    )


def test_channel_binding_demands_tls_and_a_note_names_what_is_missing(
    home: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode in ("", "sslmode=allow", "sslmode=prefer", "sslmode=require"):
        target = resolve(f"host=h channel_binding=require {mode}")
        assert isinstance(target.servers[0].arguments["ssl"], ssl.SSLContext)
        assert "sslmode=verify-full" in target.notes[0]
    authority.cert_pem.write_to_path(str(home / "root.crt"))
    verified = f"sslmode=verify-full sslrootcert={home}/root.crt"
    assert resolve(f"host=h channel_binding=require {verified}").notes == ()
    assert "needs TLS" in refused("host=h channel_binding=require sslmode=disable")
    assert "needs TLS" in refused("host=/tmp channel_binding=require")
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    assert "sslmode=verify-full" in resolve("host=h").notes[0]
    monkeypatch.setenv("PGHOST", "/tmp")
    assert "needs TLS" in refused("postgresql://")


def test_what_variables_demand_is_refused_as_in_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, line in (
        ("PGGSSENCMODE", "require", "gssencmode=require: the driver has"),
        ("PGSSLMODE", "full", "sslmode must be one of"),
        ("PGCONNECT_TIMEOUT", "99999999999", "connect_timeout must be a number of seconds"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            assert line in refused("host=h")
            assert line in refused("host=/tmp")


def test_protection_that_the_driver_lacks_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, line in (
        ("PGREQUIREAUTH", "scram-sha-256", "require_auth has no effect"),
        ("PGSSLCERTMODE", "require", "sslcertmode=require has no effect"),
        ("PGMINPROTOCOLVERSION", "3.2", "min_protocol_version=3.2 has no effect"),
        ("PGREQUIREPEER", "postgres", "requirepeer has no effect"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            (note,) = resolve("host=/tmp").notes
            assert note.startswith(line)
    assert resolve("host=h requirepeer=postgres").notes == ()  # as libpq: it concerns sockets only


def test_without_a_host_local_sockets_are_tried_and_then_localhost() -> None:
    assert servers(resolve("postgresql:///d?port=4"))[-1] == ("localhost", 4)
