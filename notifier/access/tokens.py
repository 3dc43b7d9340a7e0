"""Who somebody is, by a signed token. The one place that knows PyJWT.

A token is checked against exactly one family of keys, chosen by the settings and never by the
token: a shared secret (HS…), one public key, or the keys that an identity provider publishes (RS…,
PS…, ES…, EdDSA).
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from notifier.companies import canonical
from notifier.errors import KeysUnavailable, SettingsError, TokenExpired, TokenInvalid

log = structlog.get_logger(__name__)

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
MAX_TOKEN_CHARACTERS = 16 * 1024
MAX_JWKS_BYTES = 1024 * 1024

LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999 in unix seconds: the latest `expires_at`, so that it can be printed."""

_HMAC = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_ASYMMETRIC = (*_RSA, *_CURVES.values(), "EdDSA")
_TYPES = ("jwt", "at+jwt")  # a logout token or a proof of possession must not pass for an identity

_PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class Identity(msgspec.Struct, frozen=True):
    """What a good token says.

    `expires_at` is in unix seconds and finite; `companies` is None without such a claim.
    """

    user: str
    expires_at: float
    companies: frozenset[str] | None


class Fetching(NamedTuple):
    """How a provider's keys are fetched.

    Keys older than `refresh_seconds` are not used before a fetch was tried. While the provider is
    away they go on up to `max_age_seconds`: tokens seldom live longer, and a key that was withdrawn
    because it was stolen is good for nothing after that. Whatever tokens come, a fetch begins no
    sooner than `cooldown_seconds` after the one before.
    """

    timeout_seconds: float = 3
    refresh_seconds: float = 300
    cooldown_seconds: float = 10
    max_age_seconds: float = 3600


FETCHING = Fetching()


class Tokens:
    """Verifies tokens by one secret, one public key or one provider's keys.

    `public_key` is PEM text or a file's path. `algorithms` narrows what the key allows. `issuer`
    and `audience` are what is accepted; a token for a named audience is refused when none is set,
    as RFC 7519 demands. `clock` tells unix seconds, `stopwatch` seconds that only grow.

    Raises SettingsError.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        public_key: str | None = None,
        jwks_url: str | None = None,
        algorithms: Iterable[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        audience: str | Iterable[str] | None = None,
        leeway_seconds: float = 10,
        fetching: Fetching = FETCHING,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source: _Key | _Provider
        match secret, public_key, jwks_url:
            case str(), None, None:
                allowed = _narrowed(_HMAC, algorithms)
                self._source = _Key(_secret(secret), allowed)
            case None, str(), None:
                key = _public(public_key)
                allowed = _narrowed(_family(key), algorithms)
                self._source = _Key(key, allowed)
            case None, None, str():
                allowed = _narrowed(_ASYMMETRIC, algorithms)
                self._source = _Provider(_http(jwks_url), allowed, fetching, stopwatch)
            case _:
                raise SettingsError(
                    "set exactly one of NOTIFIER_JWT_SECRET, NOTIFIER_JWT_PUBLIC_KEY"
                    " and NOTIFIER_JWKS_URL"
                )
        self._jws = _jws(allowed)
        self._issuers = _words(issuer)
        self._audiences = _words(audience)
        self._leeway = leeway_seconds
        self._clock = clock

    async def warm_up(self) -> None:
        """Fetches a provider's keys ahead of the first token. A failure is logged, no more."""
        if isinstance(self._source, _Provider):
            await self._source.refresh()

    async def verify(self, token: str) -> Identity:
        """Who the token says that somebody is.

        Raises TokenInvalid; TokenExpired when nothing but its time is wrong; KeysUnavailable when
        the provider could not be asked for too long. None of them says anything of the token.
        """
        try:
            claims = self._claims(token, await self._key(token))
            identity = Identity(
                user=claims.sub,
                expires_at=float(max(0, min(claims.exp, LAST_MOMENT))),
                companies=_companies(claims),
            )
        except KeysUnavailable:
            raise
        except Exception as error:  # whatever it is that a stranger sent: it is not a good token
            log.debug("token refused", reason=type(error).__name__)
            raise TokenInvalid("the token is not valid") from None
        if claims.exp <= self._clock() - self._leeway:
            raise TokenExpired("the token has expired")
        return identity

    async def _key(self, token: str) -> _Key:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise jwt.DecodeError
        if isinstance(self._source, _Key):
            return self._source
        # The header alone: without a key the rest is not worth a look.
        header = self._jws.get_unverified_header(f"{token.partition('.')[0]}..")
        return await self._source.find(header.get("kid"))

    def _claims(self, token: str, key: _Key) -> _Claims:
        """What a token says that is signed, meant for us, and has begun to be good."""
        parts = self._jws.decode_complete(token, key.material, key.algorithms)
        kind = parts["header"].get("typ", "JWT")
        if kind.lower().removeprefix("application/") not in _TYPES:
            raise jwt.InvalidTokenError
        claims = _decode_claims(parts["payload"])
        if self._issuers and claims.iss not in self._issuers:
            raise jwt.InvalidIssuerError
        audiences = _words(claims.aud)
        if (audiences or self._audiences) and audiences.isdisjoint(self._audiences):
            raise jwt.InvalidAudienceError
        if max(claims.nbf, claims.iat) > self._clock() + self._leeway:
            raise jwt.ImmatureSignatureError
        return claims


def sign(
    user: str,
    companies: Iterable[str] | None,
    ttl_seconds: float,
    secret: str,
    *,
    algorithm: str = "HS256",
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """A token for development. With None for `companies` it has no such claim.

    Raises SettingsError when the secret is too short or the algorithm is not an HS… one.
    """
    now = time.time()
    claims: dict[str, object] = {"sub": user, "iat": int(now), "exp": int(now + ttl_seconds)}
    if companies is not None:
        claims["companies"] = list(companies)
    if issuer is not None:
        claims["iss"] = issuer
    if audience is not None:
        claims["aud"] = audience
    jws = _jws(_narrowed(_HMAC, [algorithm]))
    return jws.encode(msgspec.json.encode(claims), _secret(secret), algorithm)


# --- claims


class _Claims(msgspec.Struct):
    """The claims that mean something here, with the only types that they may have."""

    sub: Annotated[str, msgspec.Meta(pattern=r"\A[^\0]+\Z")]  # PostgreSQL's text has no NUL
    exp: int | float
    nbf: int | float = 0
    iat: int | float = 0
    iss: str | msgspec.UnsetType = msgspec.UNSET
    aud: str | list[str] = []
    companies: list[str | int] | msgspec.UnsetType = msgspec.UNSET


_decode_claims = msgspec.json.Decoder(_Claims).decode


def _companies(claims: _Claims) -> frozenset[str] | None:
    if isinstance(claims.companies, msgspec.UnsetType):
        return None
    return frozenset(canonical(str(company)) for company in claims.companies)


def _words(given: str | Iterable[str] | None) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given or ())


# --- keys


class _Key(NamedTuple):
    """A key and the algorithms that may be used with it."""

    material: bytes | _PublicKey
    algorithms: tuple[str, ...]


class _Hmac(HMACAlgorithm):
    """HMAC with what `_secret` has looked at: PyJWT would look at it again for every token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else super().prepare_key(key)

    def check_key_length(self, key: bytes) -> str | None:
        return None


def _jws(algorithms: Iterable[str]) -> jwt.PyJWS:
    """PyJWT's checker of signatures, which knows these algorithms and no others."""
    jws = jwt.PyJWS(algorithms=())
    for name in algorithms:
        known = _Hmac(_HMAC[name]) if name in _HMAC else jwt.get_algorithm_by_name(name)
        jws.register_algorithm(name, known)
    return jws


def _narrowed(family: Iterable[str], wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The wanted algorithms, all of which must be of the key's family; all of it by default."""
    family = tuple(family)
    chosen = family if wanted is None else tuple(dict.fromkeys(wanted))
    if not chosen or not set(chosen) <= set(family):
        raise SettingsError(f"NOTIFIER_JWT_ALGORITHMS: this key goes with {', '.join(family)}")
    return chosen


def _family(key: object) -> tuple[str, ...]:
    """The algorithms for a public key; none when we do not take such keys."""
    match key:
        case RSAPublicKey(key_size=size) if size >= MIN_RSA_BITS:
            return _RSA
        case EllipticCurvePublicKey(curve=curve) if curve.name in _CURVES:
            return (_CURVES[curve.name],)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            return ()


def _secret(text: str) -> bytes:
    try:
        secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(text)
    except (jwt.InvalidKeyError, ValueError):
        raise SettingsError("NOTIFIER_JWT_SECRET: empty, or a key and not a secret") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"NOTIFIER_JWT_SECRET: {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed"
        )
    return secret


def _public(given: str) -> _PublicKey:
    """The public key in PEM text, in which a line may end with a spelled-out \\n, or in a file."""
    is_pem = "-----BEGIN" in given
    try:
        pem = given.replace("\\n", "\n").encode() if is_pem else Path(given).read_bytes()
    except (OSError, ValueError):
        raise SettingsError(
            "NOTIFIER_JWT_PUBLIC_KEY: neither PEM text nor a file that can be read"
        ) from None
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError("NOTIFIER_JWT_PUBLIC_KEY: not a public key in PEM form") from None
    if not isinstance(key, _PublicKey) or not _family(key):
        raise SettingsError(
            f"NOTIFIER_JWT_PUBLIC_KEY: RSA of {MIN_RSA_BITS} bits or more, P-256, P-384, P-521,"
            " Ed25519 or Ed448 is needed"
        )
    return key


# --- the keys of an identity provider


class _Provider:
    """The keys that are published at an address, as `Fetching` says, one fetch at a time."""

    def __init__(
        self,
        url: str,
        allowed: tuple[str, ...],
        fetching: Fetching,
        stopwatch: Callable[[], float],
    ) -> None:
        self._url = url
        self._allowed = allowed
        self._fetching = fetching
        self._stopwatch = stopwatch
        self._keys: dict[str | None, _Key] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> _Key:
        """The key of that id; the only one, when the token does not say.

        Raises KeysUnavailable, or PyJWT's InvalidKeyError when there is no such key.
        """
        key = self._key(kid)
        if key is None or self._age() > self._fetching.refresh_seconds:
            await self.refresh()
            key = self._key(kid)
        if self._age() > self._fetching.max_age_seconds:
            raise KeysUnavailable("the token cannot be checked now")
        if key is None:
            raise jwt.InvalidKeyError
        return key

    async def refresh(self) -> None:
        """Fetches the keys, or waits for the fetch under way. Does nothing in the cool-down."""
        if self._fetch is None:
            now = self._stopwatch()
            if now - self._tried < self._fetching.cooldown_seconds:
                return
            self._tried = now
            self._fetch = asyncio.create_task(self._fetch_keys())
        # The fetch outlives its waiters: a thread that hangs gets no second one beside it.
        await asyncio.wait([self._fetch], timeout=self._fetching.timeout_seconds)

    async def _fetch_keys(self) -> None:
        try:
            timeout = self._fetching.timeout_seconds
            body = await asyncio.to_thread(_download, self._url, timeout)
            self._keys = _published(body, self._allowed)
            self._fetched = self._tried
        except Exception as error:  # a provider fails in many ways; the keys at hand go on
            log.warning("signing keys were not fetched", error=f"{type(error).__name__}: {error}")
        finally:
            self._fetch = None

    def _age(self) -> float:
        return self._stopwatch() - self._fetched

    def _key(self, kid: str | None) -> _Key | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)


class _KeySet(msgspec.Struct):
    """A JWKS document. Its keys are looked at one by one."""

    keys: list[dict[str, Any]]


class _About(msgspec.Struct):
    """What a published key says of itself."""

    kid: str | None = None
    alg: str | None = None
    use: str | None = None


def _published(body: bytes, allowed: tuple[str, ...]) -> dict[str | None, _Key]:
    """The keys of a JWKS document, by id, that serve an allowed algorithm.

    Raises ValueError when there are none, msgspec's DecodeError when it is no such document.
    """
    keys: dict[str | None, _Key] = {}
    for entry in msgspec.json.decode(body, type=_KeySet).keys:
        try:
            about = msgspec.convert(entry, _About)
            key = jwt.PyJWK(entry).key
        except Exception as error:  # one odd key must not cost us the others
            log.debug("signing key not understood", reason=type(error).__name__)
            continue
        algorithms = tuple(
            name for name in _family(key) if name in allowed and about.alg in (None, name)
        )
        if algorithms and about.use in (None, "sig"):
            keys.setdefault(about.kid, _Key(key, algorithms))
    if not keys:
        raise ValueError("no key in the answer can be used")
    return keys


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The keys come from the address that was set, and from no other."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _http(url: str) -> str:
    """The address, when it is one for HTTP: urllib would also read files."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise SettingsError("NOTIFIER_JWKS_URL: an address with https:// or http:// is needed")
    return url


def _download(url: str, timeout: float) -> bytes:
    """What is at the address. Blocks, for `timeout` seconds or a little more."""
    deadline = time.monotonic() + timeout
    headers = {"Accept": "application/json", "User-Agent": "notifier"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `_http` looked at it
    body = bytearray()
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as response:
        while chunk := response.read1(64 * 1024):
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError("the answer is too big")
            if time.monotonic() > deadline:
                raise TimeoutError("the answer is too slow")
    return bytes(body)
