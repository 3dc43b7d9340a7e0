"""nginx, HAProxy, Caddy, Traefik and Envoy in front of a service, with short configurations of what each does by default.

`/` is passed on as it is; `/strip` is removed from the path. A service with ROOT_PATH=/keep is reached
under `/keep` too. `/socket` is for WebSockets. Under `/buffer`, nginx lets none through and
holds back streams, whatever the service requests.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sysconfig
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import httpx

from tests.installed import skip
from tests.ports import free_port
from tests.waiting import until, until_accepting


class Kind(NamedTuple):
    """A program, its arguments, and its configuration.

    `file`: the name of the configuration's file, of which some programs read the format; `others`: names and texts
    of files beside it. `probe`: a page that must be there before the proxy is used, for a program that reads its
    configuration when it listens already.
    """

    program: str
    arguments: tuple[str, ...]
    configuration: str
    file: str = "configuration"
    others: tuple[tuple[str, str], ...] = ()
    probe: str = ""


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
    location /buffer/ {{
      proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_pass http://127.0.0.1:{upstream}/;
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

TRAEFIK = Kind(
    "traefik",
    ("--configfile={file}",),
    """
global:
  checkNewVersion: false
entryPoints:
  web:
    address: 127.0.0.1:{port}
providers:
  file:
    filename: {directory}/dynamic.yml
""",
    "traefik.yml",
    (
        (
            "dynamic.yml",
            """
http:
  routers:
    all:
      rule: PathPrefix(`/`)
      service: notifier
    strip:
      rule: PathPrefix(`/strip/`)
      middlewares: [strip]
      service: notifier
    gzip:
      rule: PathPrefix(`/gzip/`)
      middlewares: [strip, gzip]
      service: notifier
    socket:
      rule: Path(`/socket`)
      priority: 100  # a rule's default is its length, and that of PathPrefix(`/`) is the same
      middlewares: [root]
      service: notifier
  middlewares:
    strip:
      stripPrefix:
        prefixes: [/strip, /gzip]
    gzip:
      compress:
        minResponseBodyBytes: 1
    root:
      replacePath:
        path: /
  services:
    notifier:
      loadBalancer:
        servers:
          - url: http://127.0.0.1:{upstream}
""",
        ),
    ),
    "http://127.0.0.1:{port}/asyncapi.json",
)
ENVOY = Kind(
    "envoy",
    ("-c", "{file}", "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
    """
static_resources:
  listeners:
    - address:
        socket_address: {{address: 127.0.0.1, port_value: {port}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: web
                upgrade_configs: [{{upgrade_type: websocket}}]
                http_filters:
                  - name: compressor
                    disabled: true
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
                      compressor_library:
                        name: gzip
                        typed_config:
                          "@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
                      response_direction_config:
                        common_config:
                          min_content_length: 1
                          content_type: [application/json, text/event-stream]
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{path: /socket}}
                          route: {{cluster: notifier, prefix_rewrite: /}}
                        - match: {{prefix: /strip/}}
                          route: {{cluster: notifier, prefix_rewrite: /, timeout: 0s}}
                        - match: {{prefix: /gzip/}}
                          route: {{cluster: notifier, prefix_rewrite: /, timeout: 0s}}
                          typed_per_filter_config:
                            compressor:
                              "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig
                              config: {{}}
                        - match: {{prefix: /}}
                          route: {{cluster: notifier, timeout: 0s}}
  clusters:
    - name: notifier
      type: STATIC
      load_assignment:
        cluster_name: notifier
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {{address: 127.0.0.1, port_value: {upstream}}}
""",
    "envoy.yaml",
)


async def _shows(page: str) -> bool:
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=30) as client:
        with suppress(httpx.TransportError):
            return (await client.get(page)).is_success
        return False


def _program(name: str) -> str:
    """Its path: a program of Debian, or of a wheel in this environment."""
    places = (None, "/usr/sbin", sysconfig.get_path("scripts"))
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if found is None:
        skip(f"{name} is not installed")
    return found


class ReverseProxy:
    """`async with ReverseProxy(NGINX, service.port) as proxy`: clients connect to `proxy.port`."""

    def __init__(self, kind: Kind, upstream: int) -> None:
        self._program = _program(kind.program)
        self._kind = kind
        self._upstream = upstream
        self._directory = tempfile.TemporaryDirectory(prefix="notifier-")
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Returns when it accepts connections; always on the same port."""
        directory = Path(self._directory.name)
        file, log = directory / self._kind.file, directory / "log"
        values = {"directory": directory, "file": file, "port": self.port}
        for name, text in ((self._kind.file, self._kind.configuration), *self._kind.others):
            (directory / name).write_text(text.format(upstream=self._upstream, **values))
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
        if self._kind.probe:
            await until(partial(_shows, self._kind.probe.format(port=self.port)))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        self._directory.cleanup()

    async def kill(self) -> None:
        """Ends it, with all its connections."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
