"""The TLS certificate of a node: its key, its expiry, and its renewal without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import time
from pathlib import Path
from typing import Any, Self

import structlog
from cryptography import x509

from notifier import metrics
from notifier.errors import SettingsError

CHECK_SECONDS = 10.0
"""How often the files are checked for changes; SIGHUP checks them at once."""

EXPIRING_SECONDS = 14 * 86_400.0
"""A certificate that expires within this time is reported."""

REPORT_SECONDS = 86_400.0
"""How often an expired or expiring certificate is reported while it is in use."""

_log = structlog.get_logger("notifier.certificates")


def require_plain_key(certfile: Path, keyfile: Path) -> None:
    """Raises SettingsError for an encrypted key, for which OpenSSL would prompt on the terminal."""
    with contextlib.suppress(OSError):  # which the loading of the certificate reports
        RenewableContext.load(certfile, keyfile)


class RenewableContext(ssl.SSLContext):
    """A context that another one replaces for new connections, once there is a renewed certificate.

    Not by a callback for the name that a client requests: Python prints a traceback for each name that is not ASCII.
    """

    renewed: ssl.SSLContext | None = None

    @classmethod
    def load(cls, certfile: Path, keyfile: Path) -> Self:
        """Raises OSError where the files cannot be used, SettingsError for an encrypted key."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # a client could cause signatures without end
        context.load_cert_chain(certfile, keyfile, _password)
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        if self.renewed is not None:
            return self.renewed.wrap_bio(*arguments, **options)
        return super().wrap_bio(*arguments, **options)


def _password() -> str:
    raise SettingsError(
        "NOTIFIER_SSL_KEYFILE: the key is encrypted; decrypt it: openssl pkey -in FILE -out FILE"
    )


def expiry(certfile: Path) -> float:
    """When the first certificate of a PEM file expires, in unix seconds. Raises ValueError, OSError."""
    return x509.load_pem_x509_certificates(certfile.read_bytes())[0].not_valid_after_utc.timestamp()


def problem(certfile: Path, now: float) -> str | None:
    """A line about a certificate that has expired or will soon; None where it is valid for long."""
    left = expiry(certfile) - now
    if left <= 0:
        return f"the certificate {certfile} has expired"
    if left <= EXPIRING_SECONDS:
        return f"the certificate {certfile} expires in {left / 86_400:.1f} days"
    return None


def _report(certfile: Path) -> None:
    """Sets the metric, and logs a problem."""
    try:
        metrics.CERTIFICATE_EXPIRY.set(expiry(certfile))
        line = problem(certfile, time.time())
    except (OSError, ValueError) as error:
        line = f"the certificate {certfile} cannot be read: {error}"
    if line is not None:
        _log.warning(line)


async def reload_renewed(
    context: ssl.SSLContext | None, certfile: Path | None, keyfile: Path | None
) -> None:
    """Loads the certificate again whenever its files were written, and on SIGHUP. Never returns."""
    hangup = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # which workers.py has blocked
    if not isinstance(context, RenewableContext) or certfile is None or keyfile is None:
        await asyncio.Event().wait()
        return
    loaded = _modified(certfile, keyfile)
    _report(certfile)
    reported = time.monotonic()
    while True:
        if time.monotonic() - reported > REPORT_SECONDS:
            _report(certfile)
            reported = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await hangup.wait()
        now = _modified(certfile, keyfile)
        if now == loaded and not hangup.is_set():
            continue
        hangup.clear()
        try:
            # Not into `context`: there OpenSSL drops the former key before it refuses a certificate that does not
            # fit, and keeps a former certificate with another kind of key beside the new one.
            context.renewed = RenewableContext.load(certfile, keyfile)
            loaded = now
            _log.info("certificate reloaded")
            _report(certfile)
        except (OSError, SettingsError) as error:
            _log.error("certificate cannot be loaded, the old one stays in use", error=str(error))


def _modified(*paths: Path) -> tuple[float, ...]:
    """When the files were written; 0 for one that is not there, or cannot be reached, such as while it is replaced."""
    return tuple(map(_written, paths))


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
