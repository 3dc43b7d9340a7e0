"""The accepted signing keys of tokens, each with its algorithms.

An algorithm is chosen by the key and the settings, never by a token: a token that names HS256 is
never checked against the bytes of a public key (RFC 8725, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from notifier.errors import SettingsError

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048

_HASHES = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

HMAC = tuple(_HASHES)
"""The algorithms of a shared secret."""

ASYMMETRIC = (*_RSA, *_CURVES.values(), "EdDSA")
"""The algorithms of a public key."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class Key(NamedTuple):
    """A key and the algorithms that it may be used with."""

    material: bytes | PublicKey
    algorithms: tuple[str, ...]


def select_algorithms(family: Iterable[str], wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The wanted algorithms, which must all belong to the key's family; None selects the family.

    Raises SettingsError.
    """
    family = tuple(family)
    chosen = family if wanted is None else tuple(dict.fromkeys(wanted))
    if not chosen or not set(chosen) <= set(family):
        raise SettingsError(f"NOTIFIER_JWT_ALGORITHMS: this key goes with {', '.join(family)}")
    return chosen


def algorithms_of(key: object) -> tuple[str, ...]:
    """The algorithms for a public key; empty for a kind or a size that is not accepted."""
    match key:
        case RSAPublicKey(key_size=size) if size >= MIN_RSA_BITS:
            return _RSA
        case EllipticCurvePublicKey(curve=curve) if curve.name in _CURVES:
            return (_CURVES[curve.name],)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            return ()


def secret_key(text: str) -> bytes:
    """The bytes of a shared secret. Raises SettingsError for a short one, and for PEM text."""
    try:
        secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(text)
    except (jwt.InvalidKeyError, ValueError):
        raise SettingsError("NOTIFIER_JWT_SECRET: empty, or a key and not a secret") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"NOTIFIER_JWT_SECRET: {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed"
        )
    return secret


def public_key(given: str) -> PublicKey:
    """A public key from PEM text, where a line may end with a literal \\n, or from a PEM file.

    Raises SettingsError.
    """
    is_pem = "-----BEGIN" in given
    try:
        pem = given.replace("\\n", "\n").encode() if is_pem else Path(given).read_bytes()
    except (OSError, ValueError):
        raise SettingsError(
            "NOTIFIER_JWT_PUBLIC_KEY: neither PEM text nor a readable file"
        ) from None
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError("NOTIFIER_JWT_PUBLIC_KEY: not a public key in PEM form") from None
    if not isinstance(key, PublicKey) or not algorithms_of(key):
        raise SettingsError(
            f"NOTIFIER_JWT_PUBLIC_KEY: must be RSA of at least {MIN_RSA_BITS} bits, P-256, P-384,"
            " P-521, Ed25519 or Ed448"
        )
    return key


def signatures(algorithms: Iterable[str]) -> jwt.PyJWS:
    """PyJWT's signing and verifying for these algorithms and no others."""
    jws = jwt.PyJWS(algorithms=())
    for name in algorithms:
        known = _Hmac(_HASHES[name]) if name in _HASHES else jwt.get_algorithm_by_name(name)
        jws.register_algorithm(name, known)
    return jws


class _Hmac(HMACAlgorithm):
    """HMAC with a key that `secret_key` has checked: PyJWT would check it again for every token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else super().prepare_key(key)

    def check_key_length(self, key: bytes) -> str | None:
        return None
