"""The connection to real NATS servers: who may connect, TLS, failures; and what `check` finds."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from notifier.check.nats import findings
from notifier.nats import link as links
from notifier.nats.client import NatsClient
from notifier.nats.credentials import Credentials
from notifier.nats.link import Link, Unusable
from notifier.nats.payloads import SIGNATURE
from notifier.settings import load
from tests.natsd import NatsServer
from tests.waiting import DEADLINE_SECONDS, until

Start = Callable[..., Awaitable[NatsServer]]


class Witness:
    """A listener that records."""

    def __init__(self) -> None:
        self.connections = self.losses = 0
        self.messages: list[tuple[str, bytes]] = []
        self.headers = b""

    def connected(self) -> None:
        self.connections += 1

    def lost(self) -> None:
        self.losses += 1

    def received(self, subject: str, payload: bytes, headers: bytes) -> None:
        self.messages.append((subject, payload))
        self.headers = headers


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    servers: list[NatsServer] = []

    async def start_one(options: str = "", scheme: str = "nats") -> NatsServer:
        server = NatsServer(tmp_path, options, scheme)
        servers.append(server)
        await server.start()
        return server

    yield start_one
    for server in servers:
        await server.stop()


@pytest.fixture
async def open_link() -> AsyncIterator[Callable[..., tuple[Link, Witness]]]:
    running: list[asyncio.Task[None]] = []

    def open_one(*urls: str, credentials: Credentials | None = None) -> tuple[Link, Witness]:
        link, witness = Link([urlparse(url) for url in urls], credentials, "test"), Witness()
        link.add(witness)
        running.append(asyncio.create_task(link.run()))
        return link, witness

    yield open_one
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def connected(witness: Witness, times: int = 1) -> None:
    async def is_connected() -> bool:
        return witness.connections >= times

    await until(is_connected)


async def lost(witness: Witness, times: int = 1) -> None:
    async def is_lost() -> bool:
        return witness.losses >= times

    await until(is_lost)


async def talks(link: Link, witness: Witness, payload: bytes) -> None:
    """A message of its own comes back, after a round trip at most."""
    await link.subscribe("n.company.%20")
    await link.flush()
    await link.publish("n.company.%20", payload, "abc")

    async def has_come() -> bool:
        return ("n.company.%20", payload) in witness.messages

    await until(has_come)
    assert f"{SIGNATURE}: abc".encode() in witness.headers


async def test_a_link_returns_after_a_killed_and_a_frozen_server(
    start: Start, open_link: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PING_SECONDS", 0.1)
    monkeypatch.setattr(links, "PONG_SECONDS", 5)
    first, second = await start(), await start()
    link, witness = open_link(first.url, second.url)
    await connected(witness)
    await talks(link, witness, b"x" * 500_000)
    await first.kill()
    await lost(witness)
    with suppress(Unusable):
        await link.publish("n", b"", "")
    await connected(witness, 2)
    await talks(link, witness, b"two")
    second.freeze()
    await lost(witness, 2)
    await first.start()
    await connected(witness, 3)
    await talks(link, witness, b"three")
    second.thaw()


async def test_a_server_that_is_too_slow_refuses_more_instead_of_using_memory(
    start: Start, open_link: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ROOM_SECONDS", 0.05)
    server = await start()
    link, witness = open_link(server.url)
    await connected(witness)
    server.freeze()

    async def flood() -> None:
        for _ in range(100):
            await link.publish("n", b"x" * 1_000_000, "")
            await asyncio.sleep(0)

    with pytest.raises(Unusable):
        await flood()
    server.thaw()


USERS = """
authorization {
    users = [
        { user: relay, password: "p@ss:w/rd" }
        { user: guest, password: guest, permissions: { publish: "none", subscribe: "none" } }
    ]
}
"""


async def test_users_passwords_tokens_and_permissions(start: Start, open_link: Any) -> None:
    server = await start(USERS)
    place = server.url.removeprefix("nats://")
    link, witness = open_link(f"nats://relay:p%40ss%3Aw%2Frd@{place}")
    await connected(witness)
    await talks(link, witness, b"hello")
    _, refused = open_link(f"nats://relay:wrong@{place}")
    guest, restricted = open_link(f"nats://guest:guest@{place}")
    await connected(restricted)
    await guest.subscribe("n.company.c")
    await lost(restricted)  # a link that may not do its work is none
    assert refused.connections == 0
    token = await start('authorization { token: "s3cret" }')
    link, witness = open_link(token.url.replace("nats://", "nats://s3cret@"))
    await connected(witness)


@pytest.mark.parametrize("method", ["connect", "abort"])
async def test_a_link_ends_though_the_library_does_not_pass_its_cancellation_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """`asyncio.wait_for` of Python 3.11 does not where it has a result by then (python/cpython#86296)."""
    server, waits = await start(), asyncio.Event()
    original = getattr(NatsClient, method)

    async def with_a_result(*arguments: Any, **options: Any) -> None:
        await original(*arguments, **options)
        waits.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(NatsClient, method, with_a_result)
    link, witness = Link([urlparse(server.url)], None, "test"), Witness()
    link.add(witness)
    running = asyncio.create_task(link.run())
    if method == "abort":
        await connected(witness)
        await server.kill()
    await waits.wait()
    running.cancel()
    await asyncio.wait([running], timeout=DEADLINE_SECONDS)
    assert running.cancelled()


def nkey(prefix: int, raw: bytes) -> str:
    raw = bytes([prefix]) + raw
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode()


async def test_a_seed_authenticates(start: Start, open_link: Any, tmp_path: Path) -> None:
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    server = await start(
        f"authorization {{ users = [ {{ nkey: {nkey(20 << 3, public).rstrip('=')} }} ] }}"
    )
    file = tmp_path / "user.nk"
    file.write_text(
        nkey((18 << 3) | (20 << 3) >> 5, bytes([((20 << 3) & 31) << 3]) + seed).rstrip("=")
    )
    link, witness = open_link(server.url, credentials=Credentials(file))
    await connected(witness)
    await talks(link, witness, b"hello")


async def test_tls_is_verified_by_ssl_cert_file_and_never_given_up(
    start: Start, open_link: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    certificate.cert_chain_pems[0].write_to_path(str(files["cert"]))
    certificate.private_key_pem.write_to_path(str(files["key"]))
    server = await start(
        f'tls {{ cert_file: "{files["cert"]}", key_file: "{files["key"]}" }}', "tls"
    )
    plain = await start()
    refused = [
        open_link(server.url),
        open_link(plain.url.replace("nats://", "tls://user:password@")),
    ]

    async def has_failed() -> bool:
        return all(link._reported for link, _ in refused)

    await until(has_failed)
    monkeypatch.setenv("SSL_CERT_FILE", str(files["ca"]))
    link, witness = open_link(server.url)
    await connected(witness)
    await talks(link, witness, b"hello")
    assert [witness.connections for _, witness in refused] == [0, 0]
    assert "password" not in plain.log()


async def test_check_reports_whether_each_server_can_be_used_and_by_whom(
    start: Start, tmp_path: Path
) -> None:
    anonymous, guarded = await start(), await start(USERS)
    gone = await start()
    await gone.stop()
    place = guarded.url.removeprefix("nats://")
    settings = load(
        nats_url=f"{anonymous.url},nats://relay:p%40ss%3Aw%2Frd@{place},{gone.url},nats://guest:guest@{place}"
    )
    found = [(each.sound, each.fact) async for each in findings(settings)]
    names = [f"NATS at {server.netloc.rpartition('@')[2]}" for server in settings.nats_servers]
    assert [sound for sound, _ in found] == [True, None, True, True, False, False]
    assert [
        fact.startswith(names[index])
        for index, (_, fact) in zip((0, 0, 1, 1, 2, 3), found, strict=True)
    ] == [True] * 6
    assert "anonymous" in found[1][1]
    assert "Permissions Violation".lower() in found[5][1].lower()
    assert not any("guest" in fact or "p@ss" in fact for _, fact in found)
    broken = tmp_path / "user.creds"
    broken.write_text("nothing")
    settings = load(nats_url=anonymous.url, nats_credentials=broken)
    assert [each.sound async for each in findings(settings)] == [False]


async def test_what_is_published_after_a_flush_reaches_the_subscriptions_before_it(
    start: Start, open_link: Any
) -> None:
    """PONG comes after the commands before it: a subscription that was flushed gets everything."""
    server = await start()
    link, witness = open_link(server.url)
    other, publishing = open_link(server.url)
    await connected(witness)
    await connected(publishing)
    subjects = [f"n.company.{number}" for number in range(200)]
    for subject in subjects:
        await link.subscribe(subject)
        await link.flush()
        await other.publish(subject, b"1", "abc")

    async def have_come() -> bool:
        return len(witness.messages) == len(subjects)

    await until(have_come)
    assert [subject for subject, _ in witness.messages] == subjects
