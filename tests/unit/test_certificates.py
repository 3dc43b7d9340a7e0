"""TLS certificates: their expiry, encrypted keys, and the lines about both."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from structlog.testing import capture_logs

from notifier import certificates, server
from notifier.errors import SettingsError
from notifier.settings import load
from notifier.transport.refusals import Refusals
from tests.waiting import until

DAY = 86_400.0


class Files(NamedTuple):
    certfile: Path
    keyfile: Path
    expires: float


@pytest.fixture
def issue(tmp_path: Path) -> Callable[..., Files]:
    """Issues a certificate that is valid for so many days from now, or was."""

    def issue(
        days: float,
        *,
        password: bytes | None = None,
        kind: trustme.KeyType = trustme.KeyType.ECDSA,
    ) -> Files:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", not_after=end, key_type=kind)
        files = Files(tmp_path / "cert.pem", tmp_path / "key.pem", int(end.timestamp()))
        issued.cert_chain_pems[0].write_to_path(files.certfile)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        if password is not None:
            files.keyfile.write_bytes(
                key.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
                )
            )
        else:
            issued.private_key_pem.write_to_path(files.keyfile)
        return files

    return issue


@pytest.mark.parametrize(
    ("days", "word"), [(-1, "has expired"), (3, "expires in 3.0 days"), (60, None)]
)
async def test_the_expiry_is_a_metric_and_a_near_one_is_logged(
    issue: Callable[..., Files], days: float, word: str | None
) -> None:
    files = issue(days)
    context = server.configuration(
        load({}, ssl_certfile=files.certfile, ssl_keyfile=files.keyfile), Starlette(), Refusals()
    ).ssl
    with capture_logs() as logs:
        task = asyncio.create_task(
            certificates.reload_renewed(context, files.certfile, files.keyfile)
        )
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    shown = REGISTRY.get_sample_value("notifier_certificate_expiry_timestamp_seconds")
    assert shown == pytest.approx(files.expires, abs=1)
    lines = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert [word in line for line in lines] == ([True] if word else [])


@pytest.mark.parametrize("password", [b"x", b"another one"])
def test_an_encrypted_key_is_one_line_that_names_the_remedy(
    issue: Callable[..., Files], password: bytes
) -> None:
    files = issue(60, password=password)
    settings = load({}, ssl_certfile=files.certfile, ssl_keyfile=files.keyfile)
    with pytest.raises(SettingsError, match="NOTIFIER_SSL_KEYFILE: the key is encrypted"):
        server.configuration(settings, Starlette(), Refusals())


def test_a_file_that_is_no_certificate_is_one_line(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
    settings = load({}, ssl_certfile=tmp_path / "cert.pem", ssl_keyfile=tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="NOTIFIER_SSL_CERTFILE"):
        server.configuration(settings, Starlette(), Refusals())


def shown(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a client gets in a handshake, without a network."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    theirs = context.wrap_bio(up, down, server_side=True)
    for end in (ours, theirs) * 3:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ours.getpeercert(binary_form=True)


async def reload(context: ssl.SSLContext, files: Files, change: Callable[[], object]) -> str:
    """What is logged when the files were changed and SIGHUP was sent."""
    with capture_logs() as logs:
        task = asyncio.create_task(
            certificates.reload_renewed(context, files.certfile, files.keyfile)
        )
        await asyncio.sleep(0)
        change()
        signal.raise_signal(signal.SIGHUP)

        async def logged() -> str | None:
            assert not task.done(), task
            events = [line["event"] for line in logs]
            return next((event for event in events if event.startswith("certificate ")), None)

        try:
            return str(await until(logged))
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def used(files: Files) -> ssl.SSLContext:
    """The context of a service with this certificate."""
    settings = load({}, ssl_certfile=files.certfile, ssl_keyfile=files.keyfile)
    context = server.configuration(settings, Starlette(), Refusals()).ssl
    assert context is not None
    return context


@pytest.mark.parametrize("old", ["certfile", "keyfile"])
async def test_a_certificate_and_a_key_that_do_not_belong_together_leave_the_former_ones_in_use(
    issue: Callable[..., Files], old: str
) -> None:
    files = issue(60)
    context = used(files)
    before, file = shown(context), getattr(files, old)
    kept = file.read_bytes()

    def replace_one() -> None:
        issue(60)
        file.write_bytes(kept)

    event = await reload(context, files, replace_one)
    assert event == "certificate cannot be loaded, the old one stays in use"
    assert shown(context) == before
    assert await reload(context, files, lambda: issue(60)) == "certificate reloaded"
    assert shown(context) != before


async def test_a_file_that_cannot_be_reached_leaves_the_former_ones_in_use(
    issue: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system of the network, or where a directory is replaced."""
    files = issue(60)
    context, stat = used(files), Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path == files.certfile:
            raise PermissionError
        return stat(path, **options)

    def replace_all() -> None:
        issue(60)
        monkeypatch.setattr(Path, "stat", refuse)

    assert await reload(context, files, replace_all) == "certificate reloaded"


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
async def test_a_certificate_with_another_kind_of_key_replaces_the_former_one(
    issue: Callable[..., Files], kind: trustme.KeyType
) -> None:
    (other,) = set(trustme.KeyType) - {kind}
    files = issue(60, kind=other)
    context = used(files)
    before = shown(context)
    assert await reload(context, files, lambda: issue(60, kind=kind)) == "certificate reloaded"
    renewed = ssl.PEM_cert_to_DER_cert(files.certfile.read_text())
    assert shown(context) == renewed != before


async def test_a_name_that_is_no_ascii_is_answered_like_any_other_after_a_renewal(
    issue: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prints a traceback for each where a context has a callback for the name."""
    files = issue(60)
    context = used(files)
    assert await reload(context, files, lambda: issue(60)) == "certificate reloaded"
    reports: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    hello, up, down = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client.wrap_bio(down, hello, server_hostname="localhost").do_handshake()
    up.write(hello.read().replace(b"localhost", b"local\xffost"))
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(up, down, server_side=True).do_handshake()
    assert reports == []


async def test_no_client_renegotiates_also_after_a_renewal(issue: Callable[..., Files]) -> None:
    files = issue(60)
    context = used(files)
    assert await reload(context, files, lambda: issue(60)) == "certificate reloaded"
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    for each in (context, connection.context):
        assert each.options & ssl.OP_NO_RENEGOTIATION
        assert each.minimum_version == ssl.TLSVersion.TLSv1_2
    assert connection.context is not context
