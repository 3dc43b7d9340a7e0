"""NATS_CREDENTIALS: a user's JWT with the seed of its NKey, or the seed alone.

Formats: docs.nats.io, "NKeys" and "Credentials files"; a seed is Ed25519's (RFC 8032).
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from notifier.errors import SettingsError

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_.=-]+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"(?<![A-Z2-7])SU[A-Z2-7]{56}(?![A-Z2-7])")
_USER = 20 << 3
"""The first byte of a user's public key, which makes it begin with U."""


class Credentials:
    """The credentials of the connection. Raises SettingsError where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "not a text file"
            raise SettingsError(f"NOTIFIER_NATS_CREDENTIALS: {path}: {reason}") from None
        seed, jwt = _SEED.search(text), _JWT.search(text)
        if seed is None:
            raise SettingsError(f"NOTIFIER_NATS_CREDENTIALS: {path}: no seed of a user (SU…) in it")
        self._key = Ed25519PrivateKey.from_private_bytes(_decoded(seed[0], path))
        self._jwt = jwt[1] if jwt else None

    @property
    def jwt(self) -> bytes | None:
        """The user's JWT, None where the file has only a seed."""
        return None if self._jwt is None else self._jwt.encode()

    @property
    def public_key(self) -> str:
        """The user's public NKey."""
        raw = bytes([_USER]) + self._key.public_key().public_bytes_raw()
        raw += _checksum(raw).to_bytes(2, "little")
        return base64.b32encode(raw).rstrip(b"=").decode()

    def sign(self, nonce: str) -> bytes:
        """The signature of a server's nonce, in base 64."""
        return base64.b64encode(self._key.sign(nonce.encode()))


def _decoded(seed: str, path: Path) -> bytes:
    """The 32 bytes of the private key: two bytes of prefix come before, two of CRC after them."""
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    if _checksum(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise SettingsError(f"NOTIFIER_NATS_CREDENTIALS: {path}: the seed in it is damaged")
    return raw[2:-2]


def _checksum(raw: bytes) -> int:
    """CRC-16/XMODEM."""
    return binascii.crc_hqx(raw, 0)
