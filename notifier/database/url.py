"""From a database URL to the servers to try: everything that libpq would use to connect.

An option comes from the URL, the service file or its PG* variable, in this order; a password also
from the password file. Source: PostgreSQL manual, chapter libpq, "Database Connection Control
Functions", "Environment Variables", "The Password File", "The Connection Service File".

Read again for each connection, so that a renewed password or certificate is used without a restart.
"""

from __future__ import annotations

import getpass
import os
import random
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from notifier.conninfo import (
    KEYWORDS,
    ConninfoError,
    check,
    check_socket,
    parse,
    unknown_option,
    weaknesses,
)
from notifier.database import tls

DEFAULT_SECONDS = 5.0
"""How long one server may take to accept a connection, without `connect_timeout`."""

_DEFAULT_PORT = 5432
_SOCKETS = ("/run/postgresql", "/var/run/postgresql", "/tmp")  # noqa: S108 - where servers put sockets
_SERVICE_FOLDERS = ("/etc/postgresql-common", "/etc/postgresql")

_VARIABLES = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "dbname": "PGDATABASE",
    "gssencmode": "PGGSSENCMODE",
    "gsslib": "PGGSSLIB",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "krbsrvname": "PGKRBSRVNAME",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "min_protocol_version": "PGMINPROTOCOLVERSION",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "password": "PGPASSWORD",
    "port": "PGPORT",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "sslcert": "PGSSLCERT",
    "sslcertmode": "PGSSLCERTMODE",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "user": "PGUSER",
}
"""Those that are used; the others have no effect here."""

_IGNORED = {
    "client_encoding": None,
    "gssdelegation": ("1",),
    "keepalives": None,
    "keepalives_count": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "max_protocol_version": None,
    "oauth_client_id": None,
    "oauth_client_secret": None,
    "oauth_issuer": None,
    "oauth_scope": None,
    "scram_client_key": None,
    "scram_server_key": None,
    "sslcompression": ("1",),
    "sslkeylogfile": None,
    "sslsni": ("0",),
    "tcp_user_timeout": None,
}
"""What the driver cannot do, or Notifier decides itself (dead links), with the values that would matter."""

_PASSES = {name: (name,) for name in ("any", "read-write", "read-only", "primary", "standby")} | {
    "prefer-standby": ("standby", "any")
}


class Server(NamedTuple):
    """One server to try. `arguments` are keyword arguments of `asyncpg.connect`."""

    place: str
    arguments: Mapping[str, Any]


class Target(NamedTuple):
    """The target of a URL. `passes`: the session attributes to look for, on all servers each."""

    servers: tuple[Server, ...]
    database: str
    passes: tuple[str, ...]
    seconds: float
    application: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Hosts, ports and database, which a message may contain."""
        return f"{','.join(server.place for server in self.servers)}/{self.database}"


def resolve(url: str) -> Target:
    """The servers that a URL or a `key=value` string leads to. Raises ConninfoError, in one line."""
    options = parse(url)
    _add_service(options)
    for name, variable in _VARIABLES.items():
        if name not in options and os.environ.get(variable):
            options[name] = os.environ[variable]
    check(options)
    notes = [*weaknesses(options)]
    for name, values in _IGNORED.items():
        if name in options and (values is None or options[name] in values):
            notes.append(f"connection option {name} has no effect here")
    user = options.get("user") or _system_user()
    database = options.get("dbname") or user
    arguments: dict[str, Any] = {
        "user": user,
        "database": database,
        "krbsrvname": options.get("krbsrvname"),
        "gsslib": options.get("gsslib"),
        "server_settings": {"options": options["options"]} if "options" in options else {},
    }
    servers = []
    for host, address, port in _addresses(options):
        password = options.get("password")
        if host.startswith("/"):
            check_socket(options)
        if password is None:
            wanted = (host or address, str(port), database, user)
            password = _from_file(options.get("passfile"), wanted, notes)
        servers.append(
            Server(
                _place(host or address, port),
                {
                    **arguments,
                    "host": address or host,
                    "port": port,
                    "password": password or "",
                    **({} if host.startswith("/") else tls.arguments(options, host or address)),
                },
            )
        )
    if options.get("load_balance_hosts") == "random":
        random.shuffle(servers)
    return Target(
        tuple(servers),
        database,
        _PASSES[options.get("target_session_attrs", "any")],
        _seconds(options),
        options.get("application_name"),
        tuple(dict.fromkeys(notes)),
    )


def describe(url: str) -> str:
    """Hosts, ports and database of a URL, for a message; never a password."""
    try:
        return str(resolve(url))
    except ConninfoError:
        return "(unreadable URL)"


def _seconds(options: Mapping[str, str]) -> float:
    seconds = int(options.get("connect_timeout", "0"))
    return float(seconds) if seconds > 0 else DEFAULT_SECONDS


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        raise ConninfoError("no user: set one in the URL or in PGUSER") from None


def _addresses(options: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Host (empty: none was given), numeric address (empty: look the host up), and port."""
    addresses = options["hostaddr"].split(",") if "hostaddr" in options else []
    hosts = options["host"].split(",") if "host" in options else [""] * len(addresses)
    ports = [_port(port) for port in options.get("port", "").split(",")]
    if len(ports) > 1 and not hosts:
        raise ConninfoError(f"{len(ports)} ports do not match 0 hosts")
    count = len(hosts) or 1
    hosts = hosts or [""]
    addresses = addresses or [""] * count
    ports = ports * count if len(ports) == 1 else ports
    for host, address, port in zip(hosts, addresses, ports, strict=True):
        if host or address:
            yield host, address, port
        else:
            for default in (*_SOCKETS, "localhost"):
                if default == "localhost" or Path(f"{default}/.s.PGSQL.{port}").exists():
                    yield default, "", port


def _port(text: str) -> int:
    return int(text) if text.strip() else _DEFAULT_PORT


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- the service file


def _add_service(options: dict[str, str]) -> None:
    """Adds the options of the chosen service that the URL does not set."""
    service = options.pop("service", None) or os.environ.get("PGSERVICE")
    if not service:
        return
    for path in _service_files(options.pop("servicefile", None)):
        found = _read_service(path, service)
        if found is not None:
            for name, value in found.items():
                options.setdefault(name, value)
            return
    raise ConninfoError(f'definition of service "{service}" not found')


def _service_files(given: str | None) -> Iterator[Path]:
    given = given or os.environ.get("PGSERVICEFILE")
    if given:
        if not Path(given).is_file():
            raise ConninfoError(f'service file "{given}" not found')
        yield Path(given)
    elif home := _home():
        yield home / ".pg_service.conf"
    for folder in (os.environ.get("PGSYSCONFDIR"), *_SERVICE_FOLDERS):
        if folder:
            yield Path(folder) / "pg_service.conf"


def _read_service(path: Path, service: str) -> dict[str, str] | None:
    """The options of a service, None where the file has no such service. Values are taken as they are."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConninfoError(f'service file "{path}" cannot be read: {_reason(error)}') from None
    found: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line == f"[{service}]" else None
        elif found is not None:
            name, equals, value = line.partition("=")
            where = f'service file "{path}", line {number}'
            if not equals or line.startswith("ldap"):
                raise ConninfoError(f"{where}: must be option=value")
            if name == "service":
                raise ConninfoError(f"{where}: a service cannot name another")
            if name not in KEYWORDS:
                raise ConninfoError(f"{where}: {unknown_option(name)}")
            found.setdefault(name, value)
    return {name: value for name, value in found.items() if value} if found is not None else None


# --- the password file

_FIELD = re.compile(r"((?:[^:\\]|\\.)*\\?)(?::|$)")
"""Up to a colon; a backslash escapes the next character."""


def _from_file(given: str | None, wanted: tuple[str, ...], notes: list[str]) -> str | None:
    """The password of the first line that matches host, port, database and user."""
    home = _home()
    path = Path(given) if given else home / ".pgpass" if home else None
    try:
        if path is None or not path.is_file():
            return None
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            notes.append(f"password file {path} is ignored: others may read it; chmod 600")
            return None
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"password file {path} is ignored: {_reason(error)}")
        return None
    local = "localhost" if wanted[0].startswith("/") else "*"
    for line in lines:
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line.rstrip("\r"))]
        if line.startswith("#") or len(fields) <= len(wanted):
            continue
        if fields[0] in ("*", local, wanted[0]) and all(
            field in ("*", each) for field, each in zip(fields[1:], wanted[1:], strict=False)
        ):
            return fields[len(wanted)]
    return None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
