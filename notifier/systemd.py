"""Reports the state of the process to systemd (Type=notify).

The protocol is sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names. Without it nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"


def report(state: str) -> None:
    """Sends a state; a failure is ignored, since the service works without systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address.startswith("@"):  # a name without a file (unix(7), abstract)
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), address)


def leave_to_parent() -> None:
    """Makes this process report nothing: only the main process of a service does."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        os.environ.pop(name, None)


def interval() -> float | None:
    """How often this process must show that it lives, in seconds; None: never.

    Half of WatchdogSec, as sd_watchdog_enabled(3) recommends.
    """
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 2e6 or None


async def keep_alive() -> None:
    """Reports for ever that the event loop runs. Never returns."""
    seconds = interval()
    while seconds is not None:
        report("WATCHDOG=1")
        await asyncio.sleep(seconds)
    await asyncio.Event().wait()
