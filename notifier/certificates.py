"""The TLS certificate of a node: loaded, and replaced without a restart when it was renewed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from pathlib import Path

import structlog

CHECK_SECONDS = 10.0
"""How often the files are checked for changes; SIGHUP checks them at once."""

_log = structlog.get_logger("notifier.certificates")


async def reload_renewed(
    context: ssl.SSLContext | None, certfile: Path | None, keyfile: Path | None
) -> None:
    """Loads the certificate again whenever its files were written, and on SIGHUP. Never returns."""
    hangup = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    if context is None or certfile is None or keyfile is None:
        await asyncio.Event().wait()
        return
    loaded = _modified(certfile, keyfile)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await hangup.wait()
        now = _modified(certfile, keyfile)
        if now == loaded and not hangup.is_set():
            continue
        hangup.clear()
        try:
            context.load_cert_chain(certfile, keyfile)
            loaded = now
            _log.info("certificate reloaded")
        except (OSError, ssl.SSLError) as error:
            _log.error("certificate cannot be loaded, the old one stays in use", error=str(error))


def _modified(*paths: Path) -> tuple[float, ...]:
    return tuple(path.stat().st_mtime if path.exists() else 0.0 for path in paths)
