"""`wss://` on the same port, with a certificate of the tests' own."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import warnings
from pathlib import Path

import pytest
import trustme

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar, positions
from tests.service.http_streams import stream
from tests.services import Service
from tests.waiting import DEADLINE_SECONDS, until

AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class Secure:
    """A service with a certificate, and where its files are."""

    def __init__(self, service: Service, certfile: Path, keyfile: Path) -> None:
        self.service = service
        self.url = f"wss://127.0.0.1:{service.port}/"
        self.certfile = certfile
        self.keyfile = keyfile

    def serial(self) -> int:
        """The number of the certificate that it shows."""
        with (
            socket.create_connection(
                ("127.0.0.1", self.service.port), timeout=DEADLINE_SECONDS
            ) as plain,
            trusting().wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            shown = wrapped.getpeercert()
            assert shown is not None
            return int(str(shown["serialNumber"]), 16)


def issue(certfile: Path, keyfile: Path) -> None:
    certificate = AUTHORITY.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(keyfile)
    certificate.cert_chain_pems[0].write_to_path(certfile)


async def secured(database: Database, serve: Serve, place: Path, *options: str) -> Secure:
    certfile, keyfile = place / "cert.pem", place / "key.pem"
    issue(certfile, keyfile)
    service = await serve(
        database, *options, ready=False, ssl_certfile=certfile, ssl_keyfile=keyfile
    )
    service.http = service.http.replace("http:", "https:")
    await service.ready()
    return Secure(service, certfile, keyfile)


@pytest.fixture
async def secure(database: Database, serve: Serve, tmp_path: Path) -> Secure:
    return await secured(database, serve, tmp_path)


async def test_a_client_receives_changes_and_close_codes_through_tls(
    secure: Secure, database: Database, connect: Connect
) -> None:
    calendar = Calendar(database)
    company = await calendar.company("u1")
    client = await connect(secure.url, "u1", company, ssl=trusting())
    base = secure.url.replace("wss", "https").rstrip("/")
    async with stream(base, "u1", company, verify=trusting()) as events:
        await events.event()
        await calendar.event(company)
        created = await events.event()
    assert created.message == await client.expect("EventCreated")
    await calendar.events(company, 500, "x" * 1000)
    arrived = await client.received(lambda messages: messages[-1].get("Position") == 502)
    assert positions(arrived) == list(range(2, 503))
    await client.send(b"binary")
    assert await client.closed() == 1003
    big: Client = await connect(secure.url, "u1", ssl=trusting())
    await big.send("x" * 200_000)
    assert await big.closed() == 1009


async def test_tls_is_of_version_1_2_or_newer(secure: Secure, connect: Connect) -> None:
    old = trusting()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is old: that is the point
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(secure.url, ssl=old)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        new = trusting()
        new.minimum_version = new.maximum_version = version
        await (await connect(secure.url, ssl=new)).quiet()


async def test_a_renewed_certificate_is_shown_to_new_clients_and_keeps_the_old(
    secure: Secure, connect: Connect
) -> None:
    client = await connect(secure.url, "u1", ssl=trusting())
    before = await asyncio.to_thread(secure.serial)
    issue(secure.certfile, secure.keyfile)
    secure.service.send(signal.SIGHUP)

    async def renewed() -> bool:
        return await asyncio.to_thread(secure.serial) != before

    await until(renewed)
    await client.quiet()


async def test_each_worker_loads_the_certificate_on_sighup(
    database: Database, serve: Serve, tmp_path: Path
) -> None:
    """Also the one that has no handler yet when the signal comes."""
    service = (await secured(database, serve, tmp_path, "--workers", "2")).service
    service.send(signal.SIGHUP)

    async def loaded() -> bool:
        return service.log().count("certificate reloaded") == 2

    await until(loaded)


async def test_a_connection_without_tls_is_ended(secure: Secure) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.service.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert not (await reader.read()).startswith(b"HTTP")
    writer.close()


async def test_d3_a_silent_connection_is_ended_before_tls_too(secure: Secure) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.service.port)
    async with asyncio.timeout(DEADLINE_SECONDS):  # left to itself, asyncio waits for a minute
        assert await reader.read() == b""
    writer.close()
