"""The proxies and the pooler of deploy/, driven with the real programs.

Messages pass the proxies over TLS, below their prefix, and the status pages do not.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme

from tests import pooler
from tests.blocks import ROOT, blocks
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.reverse_proxies import CADDY, ENVOY, HAPROXY, NGINX, TRAEFIK, Kind, ReverseProxy
from tests.service.calendars import Calendar
from tests.services import SECRET, run, token

DEPLOY = ROOT / "deploy"


def adapted(file: str, *changes: tuple[str, str]) -> str:
    """A configuration as a format string. Each change is a pattern, which must be found."""
    text = (DEPLOY / file).read_text().replace("{", "{{").replace("}", "}}")
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, pattern
    return text


def nginx(certificate: Path) -> Kind:
    temporary = " ".join(
        f"{name}_temp_path {{directory}}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = adapted(
        "proxies/nginx.conf",
        (r"^worker_rlimit_nofile .*$", ""),
        (r"worker_connections 20000;", "worker_connections 256;"),
        (r"^http \{\{", f"http {{{{ access_log off; {temporary}"),
        (r"listen 443 ssl;", "listen 127.0.0.1:{port} ssl;"),
        (r"/etc/ssl/\S+;", f"{certificate};"),
        (r"10\.0\.0\.11:8181", "127.0.0.1:{upstream}"),
        (r"^ +server 10\.0\.0\.12:8181;\n", ""),
    )
    head = "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n"
    return NGINX._replace(configuration=head + configuration)


def haproxy(certificate: Path) -> Kind:
    configuration = adapted(
        "proxies/haproxy.cfg",
        (r"maxconn 20000", "maxconn 200"),
        (r"bind :443 ssl crt \S+", f"bind 127.0.0.1:{{port}} ssl crt {certificate}"),
        (r"10\.0\.0\.11:8181", "127.0.0.1:{upstream}"),
        (r"^ +server b .*\n", ""),
    )
    return HAPROXY._replace(configuration=configuration)


def caddy(certificate: Path) -> Kind:
    configuration = adapted(
        "proxies/Caddyfile",
        (
            r"^example\.com \{\{",
            f"https://localhost:{{port}} {{{{\n\ttls {certificate} {certificate}",
        ),
        (r"10\.0\.0\.11:8181 10\.0\.0\.12:8181", "127.0.0.1:{upstream}"),
        (r"^\t+stream_close_delay .*\n", ""),  # Debian's Caddy is older
    )
    options = "admin off\nauto_https off\ndefault_bind 127.0.0.1\nstorage file_system {directory}"
    return CADDY._replace(configuration=f"{{{{\n{options}\n}}}}\n{configuration}")


def traefik(certificate: Path) -> Kind:
    static = adapted(
        "proxies/traefik.yml",
        (r"^entryPoints:", "global: {{checkNewVersion: false}}\nentryPoints:"),
        (r'address: ":443"', "address: 127.0.0.1:{port}"),
        (r"/etc/traefik/traefik-dynamic.yml", "{directory}/traefik-dynamic.yml"),
    )
    dynamic = adapted(
        "proxies/traefik-dynamic.yml",
        (r"/etc/ssl/[\w./]+", str(certificate)),
        (r"10\.0\.0\.11:8181", "127.0.0.1:{upstream}"),
        (r"^ +- url: http://10\.0\.0\.12:8181\n", ""),
    )
    return TRAEFIK._replace(
        configuration=static,
        others=(("traefik-dynamic.yml", dynamic),),
        probe="https://127.0.0.1:{port}/realtime/asyncapi.json",
    )


def envoy(certificate: Path) -> Kind:
    configuration = adapted(
        "proxies/envoy.yaml",
        (r"0\.0\.0\.0, port_value: 443", "127.0.0.1, port_value: {port}"),
        (r"/etc/ssl/[\w./]+", str(certificate)),
        (r"10\.0\.0\.11, port_value: 8181", "127.0.0.1, port_value: {upstream}"),
        (r"^ +- endpoint: .*10\.0\.0\.12.*\n", ""),
    )
    return ENVOY._replace(configuration=configuration)


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("nginx", "nginx.conf"),
        ("HAProxy", "haproxy.cfg"),
        ("Caddy", "Caddyfile"),
        ("Traefik", "traefik-dynamic.yml"),
        ("Envoy", "envoy.yaml"),
    ],
)
def test_deploy_md_shows_lines_of_the_configuration(heading: str, file: str) -> None:
    shown = [each.text for each in blocks(ROOT / "docs" / "deploy.md") if each.heading == heading]
    lines = {line.strip() for line in (DEPLOY / "proxies" / file).read_text().splitlines()}
    (text,) = shown
    assert {line.strip() for line in text.splitlines()} <= lines | {""}


async def hides(client: httpx.AsyncClient, authority: str) -> None:
    """No spelling of their paths reaches the status pages."""
    for page in ("metrics", "livez", "readyz"):
        encoded = f"%{ord(page[0]):02X}{page[1:]}"
        with_root_path = (f"realtime/{page}", f"realtime/{encoded}", f"%72ealtime/{page}")
        below = (
            page,
            encoded,
            f"{page}/",
            f"/{page}",
            f"./{page}",
            f"x/../{page}",
            *with_root_path,
        )
        for path in (*(f"/realtime/{each}" for each in below), f"/realtime{page}"):
            url = httpx.URL(f"https://{authority}").copy_with(raw_path=path.encode())
            answer = await client.get(url)
            assert "notifier_" not in answer.text, path
            assert "live" not in answer.text, path
            assert "ready" not in answer.text, path
        plain = await client.get(f"https://{authority}/realtime/{page}")
        assert plain.status_code == 404


@pytest.mark.parametrize(
    "kind", [nginx, haproxy, caddy, traefik, envoy], ids=lambda kind: kind.__name__
)
async def test_a_socket_and_a_stream_pass_the_configuration(
    database: Database,
    serve: Serve,
    connect: Connect,
    tmp_path: Path,
    kind: Callable[[Path], Kind],
) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "example.com.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        certificate
    )
    certificate.chmod(0o644)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    service = await serve(database, trusted_proxies="127.0.0.1", root_path="/realtime")
    calendar = Calendar(database)
    company = await calendar.company("u1")
    async with ReverseProxy(kind(certificate), service.port) as proxy:
        address = f"localhost:{proxy.port}/realtime/"
        socket = await connect(f"wss://{address}", "u1", company, ssl=trusting)
        await calendar.event(company)
        created = await socket.expect("EventCreated")
        async with httpx.AsyncClient(verify=trusting, trust_env=False, timeout=30) as client:
            await hides(client, f"localhost:{proxy.port}")
            assert (await client.get(f"https://{address}asyncapi.json")).is_success
            headers = {"Authorization": f"Bearer {token('u1')}", "Accept": "text/event-stream"}
            messages = f"https://{address}companies/{company}/messages"
            async with client.stream("GET", messages, headers=headers) as events:
                lines = events.aiter_lines()
                while '"Type":"SubscribeResult"' not in await anext(lines):
                    pass
                await calendar.event(company)
                while f'"Position":{created["Position"] + 1}' not in await anext(lines):
                    pass


async def test_a_node_may_query_through_the_configured_pooler(
    database: Database, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = adapted(
        "pgbouncer/pgbouncer.ini",
        (r"^app = .*$", "* = host={host} port={server}"),
        (r"^listen_addr = .*$", "listen_addr = 127.0.0.1"),
        (
            r"^listen_port = .*$",
            "listen_port = {port}\nunix_socket_dir =\nlogfile = {directory}/log",
        ),
        (r"^auth_type = .*$", "auth_type = trust"),
        (r"^auth_file = .*$", "auth_file = {directory}/users"),
    )
    monkeypatch.setattr(pooler, "CONFIGURATION", configuration)
    async with pooler.Pooler(database) as running:
        urls = {
            "database_url": database.through(running.port),
            "listen_database_url": database.dsn,
            "jwt_secret": SECRET,
        }
        status, output = await run(tmp_path, "check", **urls)
        assert status == 0, output
        assert "ok: NOTIFIER_DATABASE_URL answers too" in output
        await serve(urls["database_url"], listen_database_url=database.dsn)
