"""TLS to PostgreSQL: libpq's ssl* options as keyword arguments of `asyncpg.connect`.

Source: PostgreSQL manual, section "SSL Support" of libpq. Each file that cannot be used is named.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from notifier.conninfo import TLS_VERSIONS, ConninfoError, check

_VERSIONS = {name: ssl.TLSVersion[name.replace(".", "_")] for name in TLS_VERSIONS}
_MINIMUM = "TLSv1.2"
_SYSTEM = "system"
_DEFAULTS = {
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
}
"""In ~/.postgresql, where libpq looks for them."""


class _Context(ssl.SSLContext):
    """Verifies the server by its name, also where only its address is used to connect."""

    server_name: str

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *_: Any, **__: Any) -> Any:
        return super().wrap_bio(incoming, outgoing, server_hostname=self.server_name)


def arguments(options: Mapping[str, str], host: str) -> dict[str, Any]:
    """`ssl` and what belongs to it, for one server. Raises ConninfoError."""
    system = options.get("sslrootcert") == _SYSTEM
    mode = options.get("sslmode") or ("verify-full" if system else "prefer")
    check({"ssl_min_protocol_version": _MINIMUM, **options, "sslmode": mode})
    if options.get("channel_binding") == "require" and mode in ("allow", "prefer"):
        mode = "require"  # there is no channel binding without TLS
    direct = {"direct_tls": options.get("sslnegotiation") == "direct"}
    if mode == "disable":
        return {"ssl": False, **direct}
    context = _context(options, mode, host)
    if mode not in ("allow", "prefer"):
        return {"ssl": context, **direct}
    # The driver falls back between TLS and none only where it makes the context itself.
    kept = (
        "sslcert",
        "sslkey",
        "sslpassword",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
    )
    wanted = {name: options[name] for name in kept if name in options}
    return {"dsn": f"postgresql://?{urlencode({'sslmode': mode, **wanted})}", **direct}


def _context(options: Mapping[str, str], mode: str, host: str) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = host
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if mode in ("require", "verify-ca", "verify-full"):
        _trust(context, options, mode)
    context.check_hostname = mode == "verify-full"
    if options.get("sslcertmode") != "disable" and (certificate := _file(options, "sslcert")):
        key = _file(options, "sslkey")
        password = options.get("sslpassword", "")
        try:
            # A function: the library would prompt for the password on the terminal.
            context.load_cert_chain(certificate, key, lambda: password)
        except (OSError, ValueError) as error:
            raise ConninfoError(f"sslcert {certificate}, sslkey {key}: {_reason(error)}") from None
    context.minimum_version = _version(options, "ssl_min_protocol_version", _MINIMUM)
    if "ssl_max_protocol_version" in options:
        context.maximum_version = _version(options, "ssl_max_protocol_version", "TLSv1.3")
    context.set_alpn_protocols(["postgresql"])
    return context


def _trust(context: ssl.SSLContext, options: Mapping[str, str], mode: str) -> None:
    """Root certificates and revocation lists. Without any, `require` verifies nothing."""
    if options.get("sslrootcert") == _SYSTEM:
        context.load_default_certs()
    elif root := _file(options, "sslrootcert"):
        _load(context, "sslrootcert", root)
    elif mode == "require":
        return
    else:
        raise ConninfoError(
            f"sslmode={mode} needs root certificates: set sslrootcert to a file or to system"
        )
    context.verify_mode = ssl.CERT_REQUIRED
    if revoked := _file(options, "sslcrl"):
        _load(context, "sslcrl", revoked)
    if folder := options.get("sslcrldir"):
        if not Path(folder).is_dir():
            raise ConninfoError(f"sslcrldir {folder}: no such directory")
        context.load_verify_locations(capath=folder)
    if revoked or folder:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load(context: ssl.SSLContext, option: str, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise ConninfoError(f"{option} {path}: {_reason(error)}") from None


def _file(options: Mapping[str, str], option: str) -> str | None:
    """The option's file, or libpq's default where there is one."""
    if given := options.get(option):
        if not Path(given).is_file():
            raise ConninfoError(f"{option} {given}: no such file")
        return given
    try:
        default = Path.home() / ".postgresql" / _DEFAULTS[option]
        return str(default) if default.is_file() else None
    except (RuntimeError, OSError):
        return None


def _version(options: Mapping[str, str], option: str, default: str) -> ssl.TLSVersion:
    return _VERSIONS[options.get(option, default)]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            "no certificate or key that can be read" if "PEM" in str(error) else str(error.reason)
        )
    return (isinstance(error, OSError) and error.strerror) or str(error)
