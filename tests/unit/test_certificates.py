"""TLS certificates: their expiry, encrypted keys, and the lines about both."""

from __future__ import annotations

import asyncio
import datetime as dt
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

DAY = 86_400.0


class Files(NamedTuple):
    certfile: Path
    keyfile: Path
    expires: float


@pytest.fixture
def issue(tmp_path: Path) -> Callable[..., Files]:
    """Issues a certificate that is valid for so many days from now, or was."""

    def issue(days: float, *, password: bytes | None = None) -> Files:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", not_after=end)
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
