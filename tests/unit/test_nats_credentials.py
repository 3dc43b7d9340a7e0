"""The file of NATS_CREDENTIALS. The keys are those of the documentation of NATS, or made here."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from notifier.errors import SettingsError
from notifier.nats.credentials import Credentials


def seed_of(raw: bytes) -> str:
    """The seed of a user's NKey: prefixes of seed and user, the key, and its checksum."""
    raw = bytes([(18 << 3) | (20 << 3) >> 5, ((20 << 3) & 31) << 3]) + raw
    return (
        base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    )


SEED = seed_of(bytes(range(32)))
FILE = f"""-----BEGIN NATS USER JWT-----
eyJ0eXAi.eyJqdGki.c2ln_-
------END NATS USER JWT------

************************* IMPORTANT *************************
-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


def test_a_jwt_and_a_seed_are_read_and_sign(tmp_path: Path) -> None:
    path = tmp_path / "user.creds"
    path.write_text(FILE)
    credentials = Credentials(path)
    assert credentials.jwt == b"eyJ0eXAi.eyJqdGki.c2ln_-"
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert base64.b64decode(credentials.sign("nonce")) == key.sign(b"nonce")


def test_a_seed_alone_has_a_public_key(tmp_path: Path) -> None:
    path = tmp_path / "user.nk"
    path.write_text(SEED + "\n")
    credentials = Credentials(path)
    assert credentials.jwt is None
    raw = base64.b32decode(credentials.public_key)
    assert (credentials.public_key[0], len(credentials.public_key)) == ("U", 56)
    Ed25519PublicKey.from_public_bytes(raw[1:33]).verify(
        base64.b64decode(credentials.sign("n")), b"n"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "not a text file"),
        (b"", "no seed of a user"),
        (seed_of(bytes(32))[:-1].encode() + b"A", "damaged"),
        (SEED.replace("SU", "SA").encode(), "no seed of a user"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_in_one_line(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "user.creds"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=reason) as caught:
        Credentials(path)
    assert "\n" not in str(caught.value)
    assert SEED not in str(caught.value)
