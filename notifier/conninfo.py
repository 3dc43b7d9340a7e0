"""Connection strings as libpq takes them: URIs and `key=value` pairs.

Source: PostgreSQL manual, section "Connection Strings" of libpq. This is the syntax only;
`notifier.database.url` adds service files, PG* variables and defaults.

An error never repeats a piece of the text that may belong to a password: a special character that is
not percent-encoded moves the borders between user, password, host and database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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

WANTED = "must be like postgresql://user@host:port/database"
ENCODE = (
    "percent-encode the password: @ is %40, / is %2F, ? is %3F, : is %3A, % is %25"
    " (and so the user's and the database's name)"
)

_SCHEMES = ("postgresql://", "postgres://")
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WORD = re.compile(r"[a-z_]{1,40}")
_NOT_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]*))?")


class ConninfoError(ValueError):
    """The string cannot be used as it is. The text is one line without any part of a password."""


def parse(text: str) -> dict[str, str]:
    """The options that a connection string sets. Raises ConninfoError."""
    text = text.strip()  # a secret that was read from a file often ends in a newline
    if text.startswith(_SCHEMES):
        return _uri(text.partition("://")[2])
    if _ANY_SCHEME.match(text) or "=" not in text:
        raise ConninfoError(WANTED)
    return _pairs(text)


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
