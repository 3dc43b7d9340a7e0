"""Connection strings as libpq takes them: URIs and `key=value` pairs.

Source: PostgreSQL manual, section "Connection Strings" of libpq. This is the syntax only;
`notifier.database.url` adds service files, PG* variables and defaults.

An error never repeats a piece of the text that may belong to a password: a special character that is
not percent-encoded moves the borders between user, password, host and database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import unquote

KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    application_name channel_binding client_encoding connect_timeout dbname
    fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer
    oauth_scope options passfile password port require_auth requirepeer scram_client_key
    scram_server_key service servicefile ssl_max_protocol_version ssl_min_protocol_version sslcert
    sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation
    sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout user
    """,
    )
)
"""The options of libpq 18, but for `replication`: a walsender takes none of our statements."""

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""The values of `sslmode`, from the weakest to the strongest."""

PORTS = range(1, 65536)

TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

_CHOICES: dict[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "gsslib": ("gssapi", "sspi"),
    "load_balance_hosts": ("disable", "random"),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "min_protocol_version": ("3.0", "3.2", "latest"),
    "ssl_max_protocol_version": TLS_VERSIONS,
    "ssl_min_protocol_version": TLS_VERSIONS,
    "sslcertmode": ("disable", "allow", "require"),
    "sslmode": MODES,
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
}

_NUMBERS = {
    "connect_timeout": "seconds",
    "keepalives": "0 or 1",
    "keepalives_count": "probes",
    "keepalives_idle": "seconds",
    "keepalives_interval": "seconds",
    "tcp_user_timeout": "milliseconds",
}

_VERIFY = "sslmode=verify-full proves which server gets the password"
_WEAK: dict[str, tuple[tuple[str, ...] | None, str]] = {
    "channel_binding": (
        ("require",),
        f"only demands TLS here, since the driver has no channel binding: {_VERIFY}",
    ),
    "min_protocol_version": (
        ("3.2", "latest"),
        "has no effect: the driver has version 3.0 of the protocol only",
    ),
    "require_auth": (
        None,
        f"has no effect: the driver authenticates as the server demands; {_VERIFY}",
    ),
    "requirepeer": (None, "has no effect: the driver does not see which user runs the server"),
    "sslcertmode": (
        ("require",),
        "has no effect: the driver does not see whether the server requests a certificate",
    ),
}
"""What would protect the connection and the driver cannot do, with the values (None: all) and what happens instead."""

WANTED = "must be like postgresql://user@host:port/database"
ENCODE = (
    "percent-encode the password: @ is %40, / is %2F, ? is %3F, : is %3A, % is %25"
    " (and so the user's and the database's name)"
)

_SCHEMES = ("postgresql://", "postgres://")
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WORD = re.compile(r"[a-z_]{1,40}")
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,10}\s*")
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]*))?")


class ConninfoError(ValueError):
    """The string cannot be used as it is. The text is one line without any part of a password."""


def parse(text: str) -> dict[str, str]:
    """The options that a connection string sets. Raises ConninfoError."""
    text = text.strip()  # a secret that was read from a file often ends in a newline
    if text.startswith(_SCHEMES):
        options = _uri(text.partition("://")[2])
    elif _ANY_SCHEME.match(text) or "=" not in text:
        raise ConninfoError(WANTED)
    else:
        options = _pairs(text)
    check(options)
    return options


def check(options: Mapping[str, str]) -> None:
    """Raises ConninfoError for a value that libpq refuses, and for GSS encryption, which the driver lacks."""
    for name, value in options.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ConninfoError(f"{name} must be one of {', '.join(_CHOICES[name])}")
        if name in _NUMBERS and not _is_number(value):
            wanted = _NUMBERS[name]
            number = "" if wanted[0].isdigit() else "a number of "
            raise ConninfoError(f"{name} must be {number}{wanted}")
    if options.get("gssencmode") == "require":
        raise ConninfoError("gssencmode=require: the driver has no GSS encryption")
    _check_pairs(options)


def _check_pairs(options: Mapping[str, str]) -> None:
    """Checks what depends on two options, where both are given."""
    mode = options.get("sslmode")
    if mode is not None:
        is_weak = MODES.index(mode) < MODES.index("require")
        if options.get("sslrootcert") == "system" and mode != "verify-full":
            raise ConninfoError(f"sslrootcert=system needs sslmode=verify-full, not {mode}")
        if options.get("sslnegotiation") == "direct" and is_weak:
            raise ConninfoError(
                f"sslnegotiation=direct needs sslmode=require or higher, not {mode}"
            )
        if options.get("channel_binding") == "require" and mode == "disable":
            raise ConninfoError(
                "channel_binding=require needs TLS, which sslmode=disable rules out"
            )
    versions = [
        TLS_VERSIONS.index(options[name])
        for name in ("ssl_min_protocol_version", "ssl_max_protocol_version")
        if name in options
    ]
    if versions != sorted(versions):
        raise ConninfoError("ssl_min_protocol_version is above ssl_max_protocol_version")
    _check_places(options)


def _check_places(options: Mapping[str, str]) -> None:
    """Checks hosts, addresses and ports, and that there are as many of each, as far as they are given."""
    hosts, addresses, ports = (
        options[name].split(",") if name in options else [] for name in ("host", "hostaddr", "port")
    )
    for address in addresses:
        try:
            _ = address and ip_address(address)
        except ValueError:
            raise ConninfoError("a hostaddr must be a numeric address such as 10.0.0.1") from None
    for port in ports:
        if port.strip() and not (_NUMBER.fullmatch(port) and int(port) in PORTS):
            raise ConninfoError("a port must be a number from 1 to 65535")
    for host in hosts:
        if host.startswith("@"):
            raise ConninfoError("abstract sockets are not supported")
        if host.startswith("/"):
            check_socket(options)
    if hosts and addresses and len(hosts) != len(addresses):
        raise ConninfoError(f"{len(hosts)} hosts do not match {len(addresses)} hostaddr")
    count = len(hosts or addresses)
    if count and len(ports) > 1 and len(ports) != count:
        raise ConninfoError(f"{len(ports)} ports do not match {count} hosts")


def check_socket(options: Mapping[str, str]) -> None:
    """Raises ConninfoError for what libpq refuses of a connection through a Unix-domain socket."""
    if options.get("channel_binding") == "require":
        raise ConninfoError("channel_binding=require needs TLS, which a socket does not have")


def weaknesses(options: Mapping[str, str]) -> Iterator[str]:
    """What the options demand for the connection's protection and do not get, a line each.

    They are not refused: every command takes the URL that libpq takes.
    """
    for name, (values, line) in _WEAK.items():
        if name not in options or (values is not None and options[name] not in values):
            continue
        if name == "channel_binding" and options.get("sslmode") == "verify-full":
            continue
        if name == "requirepeer" and not _has_socket(options):
            continue
        yield f"{name if values is None else f'{name}={options[name]}'} {line}"


def _has_socket(options: Mapping[str, str]) -> bool:
    hosts = options.get("host") or ("" if options.get("hostaddr") else "/")
    return any(host.startswith("/") for host in hosts.split(","))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(int(text)) < 2**31


def unknown_option(name: str) -> ConninfoError:
    """The error for an option that libpq does not have."""
    hint = ""
    if name in ("schema", "search_path", "currentSchema"):
        hint = "; for a server setting write options=-csearch_path%3DNAME"
    return ConninfoError(f'unknown connection option "{name}"{hint}')


def _uri(rest: str) -> dict[str, str]:
    """Parses the part after `postgresql://`: [user[:password]@][host[:port],...][/database][?option=value&...]."""
    options: dict[str, str] = {}
    before, at, after = rest.partition("@")
    if at and "/" not in before:  # libpq: an @ before the first slash ends the user's part
        user, colon, password = before.partition(":")
        options["user"] = _decoded(user)
        if colon:
            options["password"] = _decoded(password)
        rest = after
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    if "@" in authority or "@" in path:
        raise ConninfoError(ENCODE)
    if authority:
        hosts = [_HOST.fullmatch(host) for host in authority.split(",")]
        if not all(hosts):
            raise ConninfoError(f"{WANTED}; if the port is a part of the password: {ENCODE}")
        options["host"] = ",".join(_decoded(m["address"] or m["name"] or "") for m in hosts if m)
        if any(m["port"] for m in hosts if m):
            options["port"] = ",".join(m["port"] or "" for m in hosts if m)
    if path.removeprefix("/"):
        options["dbname"] = _decoded(path.removeprefix("/"))
    for pair in query.split("&") if query else ():
        name, value = _option(pair, query)
        options[name] = value
    return {name: value for name, value in options.items() if value}


def _option(pair: str, query: str) -> tuple[str, str]:
    """One `option=value` of a URI."""
    name, equals, value = pair.partition("=")
    if not equals or "=" in value or not _WORD.fullmatch(name) or re.search("@[^&]*/", query):
        hint = f"; {ENCODE}" if "@" in query else ""
        raise ConninfoError(f"what follows the ? is not option=value&option=value{hint}")
    value = _decoded(value)
    if name == "ssl":  # libpq takes JDBC's `ssl=true`, other drivers a mode
        return "sslmode", "require" if value == "true" else value
    if name not in KEYWORDS:
        if "@" in query:
            raise ConninfoError(f"unknown connection option; {ENCODE}")
        raise unknown_option(name)
    return name, value


def _decoded(text: str) -> str:
    if _NOT_ENCODED.search(text):
        raise ConninfoError(ENCODE)
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConninfoError("what is percent-encoded must be UTF-8") from None
    if "\0" in decoded:
        raise ConninfoError("%00 is not allowed")
    return decoded


def _pairs(text: str) -> dict[str, str]:
    """`key=value` pairs: a value with spaces stands in single quotes, \\ escapes."""
    options: dict[str, str] = {}
    before = ""
    for name, value in _scan(text):
        if name not in KEYWORDS:
            # After an unquoted password with a space this may be the rest of it.
            if "password" in before or not _WORD.fullmatch(name):
                raise ConninfoError("unknown connection option; quote values with spaces: 'a b'")
            raise unknown_option(name)
        options[name], before = value, name
    return {name: value for name, value in options.items() if value}


_PAIR = re.compile(
    r"""\s* (?P<name>[^\s=]+) \s* = \s*
        (?: '(?P<quoted>(?:[^'\\]|\\.)*)' | (?P<plain>(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)? ) (?=\s|$)""",
    re.VERBOSE | re.DOTALL,
)


def _scan(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ConninfoError("the string is not key=value; quote values with spaces: 'a b'")
        value = match["quoted"] if match["quoted"] is not None else match["plain"] or ""
        yield match["name"], re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = match.end()
