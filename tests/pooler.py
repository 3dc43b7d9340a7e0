"""PgBouncer in transaction mode, in front of a test's database."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.databases import Database
from tests.installed import skip
from tests.ports import free_port
from tests.waiting import until_accepting

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

# Any client may connect as any user of the list, without a password.
CONFIGURATION = """
[databases]
* = host={host} port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
logfile = {directory}/log
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = {ignored}
"""
USERS = """
"postgres" ""
"app" "app"
"""


class Pooler:
    """`async with Pooler(database) as pooler`: clients connect to `pooler.port`.

    `size` is the number of server connections for each user and database. `ignored` are the startup
    parameters that PgBouncer drops instead of refusing the client.
    """

    def __init__(self, database: Database, *, size: int = 5, ignored: str = "") -> None:
        if PROGRAM is None:
            skip("PgBouncer is not installed")
        self._database = database
        self._size = size
        self._ignored = ignored
        self._directory = tempfile.TemporaryDirectory(prefix="notifier-")
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()

    async def start(self) -> None:
        """Returns when it accepts connections."""
        directory = Path(self._directory.name)
        host, server = self._database.address
        (directory / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                host=host,
                server=server,
                port=self.port,
                directory=directory,
                size=self._size,
                ignored=self._ignored,
            )
        )
        (directory / "users").write_text(USERS)
        words = ["--quiet"]
        if os.geteuid() == 0:  # which it refuses to be
            words += ["--user", "nobody"]
            shutil.chown(directory, "nobody")
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *words,
            str(directory / "pgbouncer.ini"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await until_accepting(self._process, self.port, (directory / "log").read_text)

    async def kill(self) -> None:
        """Ends it with all its connections."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        self._directory.cleanup()
