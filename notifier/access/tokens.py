"""Access tokens: JSON Web Tokens (RFC 7519) that name a user.

A token is checked against exactly one source of keys, chosen by the settings and never by the
token: a shared secret (HS…), one public key, or the keys that an identity provider publishes (RS…,
PS…, ES…, EdDSA).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Annotated, cast

import jwt
import msgspec
import structlog
from msgspec import structs

from notifier.access.jwks import FETCHING, Fetching, KeySet
from notifier.access.keys import (
    ASYMMETRIC,
    HMAC,
    Key,
    algorithms_of,
    public_key,
    secret_key,
    select_algorithms,
    signatures,
)
from notifier.companies import canonical
from notifier.errors import KeysUnavailable, SettingsError, TokenExpired, TokenInvalid

MAX_TOKEN_CHARACTERS = 64 * 1024

LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999 in unix seconds: the latest `expires_at`, so that it can be formatted."""

USER_CLAIM, COMPANIES_CLAIM = "sub", "companies"

_TYPES = ("jwt", "at+jwt")
"""Accepted `typ` headers: a logout token or a proof of possession must not pass for an identity."""

_log = structlog.get_logger("notifier.tokens")


class Identity(msgspec.Struct, frozen=True):
    """The user of a valid token.

    `expires_at` is in unix seconds and finite; `companies` is None without such a claim.
    """

    user: str
    expires_at: float
    companies: frozenset[str] | None


class Tokens:
    """Verifies tokens with one secret, one public key or one provider's keys.

    `public_key` is PEM text or a file's path. `algorithms` narrows what the key allows. `issuer`
    and `audience` list the accepted ones; without `audience`, a token for a named audience is
    refused (RFC 7519, section 4.1.3). `user_claim` and `companies_claim` are the names of the claims
    that hold the user and the companies. `clock` returns unix seconds, `stopwatch` monotonic ones.

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
        user_claim: str = USER_CLAIM,
        companies_claim: str = COMPANIES_CLAIM,
        fetching: Fetching = FETCHING,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source: Key | KeySet
        match secret, public_key, jwks_url:
            case str(), None, None:
                allowed = select_algorithms(HMAC, algorithms)
                self._source = Key(secret_key(secret), allowed)
            case None, str(), None:
                self._source = _public_key(public_key, algorithms)
                allowed = self._source.algorithms
            case None, None, str():
                allowed = select_algorithms(ASYMMETRIC, algorithms)
                self._source = KeySet(jwks_url, allowed, fetching, stopwatch)
            case _:
                raise SettingsError(
                    "set exactly one of NOTIFIER_JWT_SECRET, NOTIFIER_JWT_PUBLIC_KEY"
                    " and NOTIFIER_JWKS_URL"
                )
        self._jws = signatures(allowed)
        self._issuers = _strings(issuer)
        self._audiences = _strings(audience)
        self._leeway = leeway_seconds
        self._decode_claims = _claims_decoder(user_claim, companies_claim)
        self._clock = clock

    async def warm_up(self) -> None:
        """Fetches a provider's keys before the first token needs them. A failure is only logged."""
        if isinstance(self._source, KeySet):
            await self._source.refresh()

    async def require_keys(self) -> None:
        """Raises KeysUnavailable where no token could be verified now."""
        if isinstance(self._source, KeySet):
            await self._source.require()

    async def verify(self, token: str) -> Identity:
        """The identity in a token.

        Raises TokenInvalid; TokenExpired when only its time is wrong; KeysUnavailable when the
        provider has not answered for too long. No error text contains anything of the token.
        """
        try:
            claims = self._claims(token, await self._key(token))
            identity = Identity(
                user=str(claims.user),
                expires_at=float(max(0, min(claims.exp, LAST_MOMENT))),
                companies=_companies(claims),
            )
        except KeysUnavailable:
            raise
        except Exception as error:  # any failure on a client's input means: not a valid token
            _log.debug("token refused", reason=type(error).__name__)
            raise TokenInvalid("the token is not valid") from None
        if claims.exp <= self._clock() - self._leeway:
            raise TokenExpired("the token has expired")
        return identity

    async def _key(self, token: str) -> Key:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise jwt.DecodeError
        if isinstance(self._source, Key):
            return self._source
        # Parse the header alone: without a key, the payload is not worth decoding.
        header = self._jws.get_unverified_header(f"{token.partition('.')[0]}..")
        return await self._source.find(header.get("kid"))

    def _claims(self, token: str, key: Key) -> _Claims:
        """The claims of a token with a good signature, meant for this service, already valid."""
        parts = self._jws.decode_complete(token, key.material, key.algorithms)
        kind = parts["header"].get("typ", "JWT")
        if kind.lower().removeprefix("application/") not in _TYPES:
            raise jwt.InvalidTokenError
        claims = self._decode_claims(parts["payload"])
        if self._issuers and claims.iss not in self._issuers:
            raise jwt.InvalidIssuerError
        audiences = _strings(claims.aud)
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
    user_claim: str = USER_CLAIM,
    companies_claim: str = COMPANIES_CLAIM,
) -> str:
    """A token for development. With None for `companies` it has no such claim.

    Raises SettingsError for a short secret, and for an algorithm that is not HS….
    """
    now = time.time()
    claims: dict[str, object] = {user_claim: user, "iat": int(now), "exp": int(now + ttl_seconds)}
    if companies is not None:
        claims[companies_claim] = list(companies)
    if issuer is not None:
        claims["iss"] = issuer
    if audience is not None:
        claims["aud"] = audience
    jws = signatures(select_algorithms(HMAC, [algorithm]))
    return jws.encode(msgspec.json.encode(claims), secret_key(secret), algorithm)


class _Claims(msgspec.Struct, kw_only=True):
    """The claims that are read, with the only types that they may have.

    Companies are a list of ids, or an object whose keys they are, such as one of roles by company.
    """

    user: Annotated[str, msgspec.Meta(pattern=r"\A[^\0]+\Z")] | int  # PostgreSQL's text has no NUL
    exp: int | float
    nbf: int | float = 0
    iat: int | float = 0
    iss: str | msgspec.UnsetType = msgspec.UNSET
    aud: str | list[str] = []
    companies: list[str | int] | dict[str, msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


def _claims_decoder(user_claim: str, companies_claim: str) -> Callable[[bytes], _Claims]:
    """Decodes claims, two of which have these names."""
    types = {field.name: field.type for field in structs.fields(_Claims)}
    named = msgspec.defstruct(
        "_NamedClaims",
        [("user", types["user"]), ("companies", types["companies"], msgspec.UNSET)],
        bases=(_Claims,),
        kw_only=True,
        rename={"user": user_claim, "companies": companies_claim},
    )
    return msgspec.json.Decoder(cast("type[_Claims]", named)).decode


def _companies(claims: _Claims) -> frozenset[str] | None:
    if isinstance(claims.companies, msgspec.UnsetType):
        return None
    return frozenset(canonical(str(company)) for company in claims.companies)


def _strings(given: str | Iterable[str] | None) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given or ())


def _public_key(given: str, algorithms: Iterable[str] | None) -> Key:
    key = public_key(given)
    return Key(key, select_algorithms(algorithms_of(key), algorithms))
