"""Every command takes every URL that libpq takes: a server with TLS, passwords and a local socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    closing,
    contextmanager,
    suppress,
)
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import quote

import asyncpg
import pytest
import trustme

from notifier.check.findings import Finding
from notifier.check.links import check
from notifier.database.connections import connect, is_shutting_down
from notifier.database.proposal import propose
from notifier.database.schema import migrate, uninstall
from notifier.demo.postgres import EmbeddedPostgres
from notifier.errors import Misplaced, Unreachable
from notifier.settings import load
from notifier.types.columns import read
from notifier.why.explanation import explain
from notifier.why.question import Question
from tests import databases, scratch
from tests.conftest import Serve
from tests.databases import Database
from tests.ports import free_port
from tests.servers import listening
from tests.services import SECRET, run
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("home")

PASSWORD = "p@ss/w:rd?#%&= ü'\\"
"""Every character that has a meaning in a URL or in a key=value string."""

HBA = """
local   all  all                    scram-sha-256
host    all  postgres  127.0.0.1/32 trust
host    all  certified 127.0.0.1/32 trust
host    all  all       127.0.0.1/32 scram-sha-256
"""
ENCRYPTION_WANTED = b'SFATAL\0C28000\0Mno pg_hba.conf entry for host "127.0.0.1", no encryption\0\0'
SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class Front:
    """Stands before a server without TLS and speaks TLS for it. `count`: connections with TLS."""

    def __init__(self, server: int, context: ssl.SSLContext, *, direct: bool = False) -> None:
        self.port = free_port()
        self.count = 0
        self._server = server
        self._context = context
        self._direct = direct

    def listen(self) -> AbstractAsyncContextManager[int]:
        context = self._context if self._direct else None
        return listening(self._accept, self.port, context)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            if not self._direct:
                if await reader.readexactly(8) != SSL_REQUEST:
                    size = (len(ENCRYPTION_WANTED) + 4).to_bytes(4, "big")
                    writer.write(b"E" + size + ENCRYPTION_WANTED)
                    await writer.drain()
                    return
                writer.write(b"S")
                await writer.start_tls(self._context)
            self.count += 1
            back, forth = await asyncio.open_connection("127.0.0.1", self._server)
            await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()


class Secured(NamedTuple):
    """A server, its socket's directory, files for clients, and what speaks TLS for it."""

    server: EmbeddedPostgres
    socket: Path
    files: Path
    tls: Front
    certified: Front
    direct: Front

    def url(self, template: str) -> str:
        """`template` with ports, socket and files, and the password as URLs have it."""
        return template.format(
            plain=self.server.port,
            tls=self.tls.port,
            certified=self.certified.port,
            direct=self.direct.port,
            socket=self.socket,
            sock=quote(str(self.socket), safe=""),
            files=self.files,
            encoded=quote(PASSWORD, safe=""),
            quoted="'" + PASSWORD.replace("\\", "\\\\").replace("'", "\\'") + "'",
        )

    @property
    def encrypted(self) -> int:
        """Connections with TLS up to now."""
        return self.tls.count + self.certified.count + self.direct.count


def _contexts(files: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server with a certificate, and for one that wants the client's as well."""
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(files / "root.crt"))
    other.cert_pem.write_to_path(str(files / "other.crt"))
    client = ca.issue_cert(common_name="certified")
    client.cert_chain_pems[0].write_to_path(str(files / "client.crt"))
    client.private_key_pem.write_to_path(str(files / "client.key"))
    contexts = []
    for _ in range(2):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["postgresql"])
        ca.issue_cert("localhost", "db.example").configure_cert(context)
        contexts.append(context)
    ca.configure_trust(contexts[1])
    contexts[1].verify_mode = ssl.CERT_REQUIRED
    return contexts[0], contexts[1]


async def _prepare(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn())
    quoted = PASSWORD.replace("'", "''")
    for role in ("owner", "certified"):
        await connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{quoted}'")
    await connection.execute("CREATE DATABASE app")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """The server. Its database `app` has no schema `notifier` yet."""
    with scratch.directory() as root:
        for folder in ("socket", "files"):
            (root / folder).mkdir()
            (root / folder).chmod(0o777)
        server = EmbeddedPostgres(
            root / "data",
            databases.programs(),
            free_port(),
            {**databases.OPTIONS, "unix_socket_directories": str(root / "socket")},
            durable=False,
        )
        with server:
            (root / "data" / "cluster" / "pg_hba.conf").write_text(HBA)
            asyncio.run(_prepare(server))
            plain, mutual = _contexts(root / "files")
            fronts = [
                Front(server.port, plain),
                Front(server.port, mutual),
                Front(server.port, plain, direct=True),
            ]
            with _running(fronts):
                yield Secured(server, root / "socket", root / "files", *fronts)


@contextmanager
def _running(fronts: list[Front]) -> Iterator[None]:
    """The fronts listen, in a thread of their own: each test has its own event loop."""
    loop: Future[asyncio.AbstractEventLoop] = Future()
    ended = asyncio.Event()

    async def run() -> None:
        async with AsyncExitStack() as listening_fronts:
            try:
                for front in fronts:
                    await listening_fronts.enter_async_context(front.listen())
            except OSError as error:
                loop.set_exception(error)
                return
            loop.set_result(asyncio.get_running_loop())
            await ended.wait()

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        loop.result()  # they listen
        yield
    finally:
        loop.result().call_soon_threadsafe(ended.set)
        thread.join()


URLS = {
    "sslmode=prefer": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=prefer",
    "sslmode=prefer, without TLS": "postgresql://owner:{encoded}@localhost:{plain}/app?sslmode=prefer",
    "sslmode=require": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=require",
    "sslmode=allow": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=allow",
    "sslmode=disable": "postgresql://owner:{encoded}@localhost:{plain}/app?sslmode=disable",
    "verify-ca": "postgres://owner:{encoded}@127.0.0.1:{tls}/app?sslmode=verify-ca&sslrootcert={files}/root.crt",
    "verify-full": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=verify-full&sslrootcert={files}/root.crt",
    "hostaddr": "postgresql://owner:{encoded}@db.example:{tls}/app?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={files}/root.crt",
    "certificate": "postgresql://certified@localhost:{certified}/app?sslmode=require&sslcert={files}/client.crt&sslkey={files}/client.key",
    "certificate, prefer": "postgresql://certified@localhost:{certified}/app?sslcert={files}/client.crt&sslkey={files}/client.key",
    "minimum version": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=require&ssl_min_protocol_version=TLSv1.3",
    "direct": "postgresql://owner:{encoded}@localhost:{direct}/app?sslmode=require&sslnegotiation=direct",
    "jdbc": "postgresql://owner:{encoded}@localhost:{tls}/app?ssl=true",
    "as managed services print it": "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=require&channel_binding=require&connect_timeout=10&gssencmode=prefer",
    "application_name": "postgresql://owner:{encoded}@localhost:{tls}/app?application_name=my%20shop",
    "options": "postgresql://owner:{encoded}@localhost:{tls}/app?options=-c%20work_mem%3D8MB%20-clock_timeout%3D1s",
    "keepalives": "postgresql://owner:{encoded}@localhost:{tls}/app?keepalives=1&keepalives_idle=60&tcp_user_timeout=5000",
    "several hosts": "postgresql://owner:{encoded}@127.0.0.1:1,localhost:{tls}/app?target_session_attrs=read-write",
    "prefer-standby": "postgresql://owner:{encoded}@127.0.0.1:1,localhost:{tls}/app?target_session_attrs=prefer-standby",
    "random host": "postgresql://owner:{encoded}@localhost:1,localhost:{tls}/app?load_balance_hosts=random",
    "socket as host": "postgresql://owner:{encoded}@{sock}:{plain}/app",
    "socket in the query": "postgresql://owner:{encoded}@/app?host={socket}&port={plain}",
    "all in the query": "postgresql://?host=localhost&port={plain}&user=owner&password={encoded}&dbname=app",
    "key=value": "host=localhost port={tls} user=owner password={quoted} dbname=app sslmode=require",
    "key=value, socket": "host={socket} port={plain} user=owner password={quoted} dbname=app",
}


@pytest.mark.parametrize("shape", URLS)
async def test_cases_1_and_3_8_every_command_takes_it(secured: Secured, shape: str) -> None:
    url = secured.url(URLS[shape])
    await migrate(url, calendar=True)
    findings = await check(load({}, database_url=url, jwt_secret=SECRET))
    assert not [finding for finding in findings if finding.sound is False]
    settings = load({}, database_url=url, jwt_secret=SECRET)
    assert (await explain(settings, Question(company="1", position=1))).facts
    assert [table.watch.entity for table in await read(settings)]
    assert "[[watch]]" in await propose(url, None)
    before = secured.encrypted
    connection = await connect(url, "test")
    name = await connection.fetchval("SELECT current_setting('application_name')")
    connection.terminate()
    assert name == ("my shop: notifier test" if shape == "application_name" else "notifier test")
    without = "socket" in url or f":{secured.server.port}" in url or "port={plain}" in URLS[shape]
    assert (secured.encrypted > before) is not without
    await uninstall(url)


@pytest.mark.parametrize("shape", ["verify-full", "several hosts", "key=value", "application_name"])
async def test_serve_takes_it(secured: Secured, shape: str, serve: Serve) -> None:
    url = secured.url(URLS[shape])
    await migrate(url, calendar=True)
    service = await serve(url)
    assert PASSWORD not in service.log()
    await service.stop()
    await uninstall(url)


@pytest.mark.parametrize("how", ["PG*", "password file", "service", "PGSERVICE"])
async def test_the_environment_gives_what_the_url_leaves_open(
    secured: Secured, how: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://owner@localhost:{secured.server.port}/app"
    match how:
        case "PG*":
            for name, value in {
                "PGHOST": "localhost",
                "PGPORT": str(secured.tls.port),
                "PGUSER": "owner",
                "PGPASSWORD": PASSWORD,
                "PGDATABASE": "app",
                "PGSSLMODE": "verify-full",
                "PGSSLROOTCERT": str(secured.files / "root.crt"),
            }.items():
                monkeypatch.setenv(name, value)
            url = "postgresql://"
        case "password file":
            escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
            (home / ".pgpass").write_text(f"localhost:*:app:owner:{escaped}\n")
            (home / ".pgpass").chmod(0o600)
        case _:
            (home / ".pg_service.conf").write_text(
                f"[shop]\nhost=localhost\nport={secured.tls.port}\nuser=owner\ndbname=app\n"
                f"password={PASSWORD}\nsslmode=require\n"
            )
            url = "postgresql://?service=shop"
            if how == "PGSERVICE":
                monkeypatch.setenv("PGSERVICE", "shop")
                url = "postgresql://"
    await migrate(url, calendar=True)
    findings = await check(load({}, database_url=url, jwt_secret=SECRET))
    assert not [finding for finding in findings if finding.sound is False]
    await uninstall(url)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("postgresql://owner:hidden@localhost:{plain}/app", "password authentication failed"),
        ("postgresql://owner@localhost:{plain}/app", "password authentication failed"),
        ("postgresql://owner:hidden@localhost:{tls}/app?sslmode=disable", "no encryption"),
        (
            "postgresql://owner:{encoded}@localhost:{tls}/app?sslmode=verify-ca&sslrootcert={files}/other.crt",
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            "postgresql://owner:{encoded}@127.0.0.1:{tls}/app?sslmode=verify-full&sslrootcert={files}/root.crt",
            "IP address mismatch",
        ),
        (
            "postgresql://owner:{encoded}@other.example:{tls}/app?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={files}/root.crt",
            "Hostname mismatch",
        ),
        (
            "postgresql://owner:{encoded}@localhost:{tls}/app?sslrootcert=system",
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            "postgresql://owner:{encoded}@localhost:{plain}/app?target_session_attrs=standby",
            "None of the hosts match the target attribute",
        ),
        ("postgresql://owner:{encoded}@127.0.0.1:1,127.0.0.1:2/app", "127.0.0.1:2: "),
        ("postgresql://owner:hidden@{sock}:1/app", "No such file or directory"),
        ("postgresql://owner:hidden@{}/app".replace("{}", "a" * 300), "cannot reach the database"),
        ("postgresql://owner:hidden@localhost:{plain}/none", "password authentication failed"),
    ],
)
async def test_what_does_not_connect_is_one_line_without_the_password(
    secured: Secured, template: str, line: str
) -> None:
    for attempt in (migrate, uninstall, lambda url: connect(url, "test")):
        with pytest.raises(Unreachable) as error:
            await attempt(secured.url(template))
        reported = str(error.value)
        assert line in reported
        assert "\n" not in reported
        for secret in ("hidden", PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in reported


async def test_a_password_file_that_is_ignored_is_named_where_the_password_is_missed(
    secured: Secured, home: Path
) -> None:
    (home / ".pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (home / ".pgpass").chmod(0o644)
    with pytest.raises(Unreachable, match="chmod 600"):
        await connect(f"postgresql://owner@localhost:{secured.server.port}/app", "test")


UNUSABLE = [
    "postgresql://owner:s3cr3t@ret/42@localhost:{plain}/app",
    "postgresql://owner:s3cr3t/ret@localhost:{plain}/app",
    "host=localhost port={plain} password=my s3cr3t user=owner",
    "postgresql://owner:s3cr3t@localhost:{plain}/app?pgbouncer=true",
    "postgresql://owner:s3cr3t@localhost:{tls}/app?sslrootcert=system&sslmode=require",
    "postgresql://owner:s3cr3t@localhost:{plain}/app?sslcert=/none",
    "postgresql://owner:s3cr3t@localhost:{plain}/app?service=none",
]


@pytest.mark.parametrize(
    ("command", "url"),
    [
        *(("migrate", url) for url in UNUSABLE),
        *(
            ("serve --port 0", url) for url in UNUSABLE[:4]
        ),  # it tries again where a file is missing
        *((command, UNUSABLE[0]) for command in ("check", "uninstall --yes")),
        *((command, UNUSABLE[-1]) for command in ("check", "uninstall --yes")),
    ],
)
async def test_the_command_line_ends_with_one_line_and_no_part_of_a_password(
    command: str, url: str, tmp_path: Path, secured: Secured
) -> None:
    status, output = await run(
        tmp_path, *command.split(), database_url=secured.url(url), jwt_secret=SECRET
    )
    assert status == (1 if "/none" in url or "service" in url else 2)
    assert len(output.splitlines()) <= 2
    assert "Traceback" not in output
    assert "s3cr3t" not in output
    assert "ret" not in output.replace("secret", "")


async def test_a_node_shows_no_part_of_a_password(secured: Secured, serve: Serve) -> None:
    """/readyz shows the error's text to everybody."""
    service = await serve(
        f"postgresql://owner:s3cr3t@localhost:{secured.server.port}/app", ready=False
    )

    async def refused() -> bool:
        return "password authentication failed" in service.log()

    await until(refused)
    page = await service.get("/readyz")
    assert page.status_code == 503
    assert "password authentication failed" in page.text
    for text in (page.text, service.log()):
        assert "s3cr3t" not in text


async def test_a_pooler_that_refuses_settings_is_called_one() -> None:
    """As PgBouncer answers where `ignore_startup_parameters` does not name a setting."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length == 8:  # SSLRequest
            await reader.readexactly(4)
            writer.write(b"N")
            length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        body = b"SFATAL\0C08P01\0Munsupported startup parameter: tcp_keepalives_idle\0\0"
        writer.write(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
        await writer.drain()

    async with listening(refuse) as port:
        with pytest.raises(Misplaced, match="set NOTIFIER_LISTEN_DATABASE_URL"):
            await connect(f"postgresql://u@127.0.0.1:{port}/d", "test")


@pytest.mark.parametrize("answer", [b"N", b"SR\0\0\0\x08\0\0\0\x03", b"HTTP/1.1 400\r\n"])
@pytest.mark.parametrize("mode", ["require", "verify-full&sslrootcert=system"])
async def test_tls_that_is_demanded_is_never_given_up(answer: bytes, mode: str) -> None:
    """A server in between refuses it, or adds a plain request for the password (CVE-2021-23222)."""
    received = b""
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readexactly(8)  # SSLRequest
        writer.write(answer)
        received += await reader.read()
        ended.set()

    async with listening(refuse) as port:
        with pytest.raises(Unreachable) as caught:
            await connect(f"postgresql://u:s3cr3t@127.0.0.1:{port}/d?sslmode={mode}", "test")
        await ended.wait()
    assert received == b""
    assert "\n" not in str(caught.value)


async def test_check_names_the_options_that_have_no_effect(database: Database) -> None:
    url = f"{database.dsn}?keepalives_idle=5"
    findings = await check(load({}, database_url=url, jwt_secret=SECRET))
    assert Finding(None, "connection option keepalives_idle has no effect here") in findings


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_standby_that_starts_is_no_shutdown_of_a_primary_that_does_not_answer(
    is_answered: bool,
) -> None:
    """The node ended its sessions on the primary."""
    refusal = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is shutting down\0\0"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal)

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        listening(refuse) as starting,
        listening(refuse if is_answered else hang) as primary,
    ):
        url = (
            f"postgresql://u@127.0.0.1,127.0.0.1/d?port={starting},{primary}"
            "&sslmode=disable&connect_timeout=2"
        )
        assert await is_shutting_down(url) is is_answered
