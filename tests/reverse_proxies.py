"""nginx, HAProxy and Caddy in front of a service, with short configurations of what each does by default.

`/` is passed on as it is; `/strip` is removed from the path. A service with ROOT_PATH=/keep is reached
under `/keep` too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.installed import skip
from tests.ports import free_port
from tests.waiting import until_accepting


class Kind(NamedTuple):
    """A program, its arguments, and its configuration."""

    program: str
    arguments: tuple[str, ...]
    configuration: str


NGINX = Kind(
    "nginx",
    ("-p", "{directory}", "-c", "{file}", "-e", "{directory}/error.log"),
    # For other paths than WebSockets' it speaks HTTP/1.0, and buffers responses.
    """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
  uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
    location /strip/ {{ proxy_pass http://127.0.0.1:{upstream}/; }}
    location /gzip/ {{
      gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;
      proxy_http_version 1.1; proxy_pass http://127.0.0.1:{upstream}/;
    }}
    location = /socket {{
      proxy_pass http://127.0.0.1:{upstream}/; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}
""",
)
HAPROXY = Kind(
    "haproxy",
    ("-db", "-f", "{file}"),
    """
global
  maxconn 200
defaults
  mode http
  option abortonclose
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend web
  bind 127.0.0.1:{port}
  http-request replace-path /strip/(.*) /\\1
  http-request replace-path /gzip/(.*) /\\1
  http-request replace-path /socket /
  compression algo gzip
  compression type application/json text/event-stream
  default_backend service
backend service
  server a 127.0.0.1:{upstream}
""",
)
CADDY = Kind(
    "caddy",
    ("run", "--adapter", "caddyfile", "--config", "{file}"),
    """
{{
  admin off
  auto_https off
  storage file_system {directory}
}}
http://127.0.0.1:{port} {{
  handle_path /strip/* {{
    reverse_proxy 127.0.0.1:{upstream}
  }}
  handle_path /gzip/* {{
    encode gzip
    reverse_proxy 127.0.0.1:{upstream}
  }}
  handle_path /socket {{
    rewrite * /
    reverse_proxy 127.0.0.1:{upstream}
  }}
  reverse_proxy 127.0.0.1:{upstream}
}}
""",
)


class ReverseProxy:
    """`async with ReverseProxy(NGINX, service.port) as proxy`: clients connect to `proxy.port`."""

    def __init__(self, kind: Kind, upstream: int) -> None:
        found = shutil.which(kind.program) or shutil.which(kind.program, path="/usr/sbin")
        if found is None:
            skip(f"{kind.program} is not installed")
        self._program = found
        self._kind = kind
        self._upstream = upstream
        self._directory = tempfile.TemporaryDirectory(prefix="notifier-")
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        directory = Path(self._directory.name)
        file, log = directory / "configuration", directory / "log"
        values = {"directory": directory, "file": file, "port": self.port}
        file.write_text(self._kind.configuration.format(upstream=self._upstream, **values))
        with log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                *(word.format(**values) for word in self._kind.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "HOME": str(directory)},
                start_new_session=True,
            )
        await until_accepting(self._process, self.port, log.read_text)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._directory.cleanup()
