"""Further nodes of the demo, and a NATS server between all of them, as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr

from notifier import server
from notifier.demo.programs import dismiss, guard, start
from notifier.settings import Settings

CONFIG = Path(__file__).with_name("notifier.toml")
"""The configuration of all nodes of the demo."""

STOP_SECONDS = 30.0
"""How long a process may take to end: a node's drain, and more."""


def free_port(wanted: int) -> int:
    """`wanted`, or any free port for 0. Raises NotifierError where it is in use."""
    with server.bind("127.0.0.1", wanted) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def nats() -> Iterator[SecretStr | None]:
    """The URL of a new NATS server; None where the program is not installed."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    program = shutil.which("nats-server", path=places)
    if program is None:
        yield None
        return
    port = free_port(0)
    with _running([program, "--addr", "127.0.0.1", "--port", str(port)], quiet=True):
        yield SecretStr(f"nats://127.0.0.1:{port}")


@contextmanager
def further(settings: Settings, ports: list[int]) -> Iterator[None]:
    """Runs a node on each port, with the settings of this one."""
    assert settings.jwt_secret is not None
    variables = {
        "NOTIFIER_DATABASE_URL": settings.database,
        "NOTIFIER_LISTEN_DATABASE_URL": settings.listen_database,
        "NOTIFIER_JWT_SECRET": settings.jwt_secret.get_secret_value(),
        "NOTIFIER_STATE": settings.state,
        "NOTIFIER_CONFIG": str(CONFIG),
        "NOTIFIER_LOG_LEVEL": "warning",
    }
    if settings.nats_url is not None:
        variables["NOTIFIER_NATS_URL"] = settings.nats_url.get_secret_value()
    serve = [sys.executable, "-m", "notifier", "serve", "--host", "127.0.0.1", "--port"]
    with ExitStack() as running:
        for port in ports:
            running.enter_context(_running([*serve, str(port)], variables))
        yield


@contextmanager
def _running(
    command: list[str],
    variables: dict[str, str] | None = None,
    *,
    quiet: bool = False,
) -> Iterator[None]:
    """Runs a process beside the demo, which ends it; it does not outlive a demo that is killed."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    process = start(
        command,
        {},
        cwd=None,
        env=kept | (variables or {}),
        stderr=subprocess.DEVNULL if quiet else None,
    )
    guarding = guard(process, {})
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        dismiss(guarding)
