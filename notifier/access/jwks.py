"""The signing keys that an identity provider publishes: a JSON Web Key Set (RFC 7517).

Written here because PyJWT's `PyJWKClient` has no cool-down, no limit on the size of a response,
follows redirects, and blocks its caller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog

from notifier.access.download import download
from notifier.access.keys import Key, algorithms_of
from notifier.errors import KeysUnavailable, SettingsError

MAX_JWKS_BYTES = 1024 * 1024

REASON_CHARACTERS = 300
"""How much of the reason that a provider, or a proxy before it, gives is logged: a status line may have 64 KiB."""

_log = structlog.get_logger("notifier.tokens")


class Fetching(NamedTuple):
    """When a provider's keys are fetched, and for how long they are used.

    Keys older than `refresh_seconds` are used only after another fetch was tried. If that fails,
    they are used up to `max_age_seconds`: tokens rarely live longer, and a key that was withdrawn
    because it was stolen must end. Two fetches begin at least `cooldown_seconds` apart, whatever
    tokens arrive.
    """

    timeout_seconds: float = 3
    refresh_seconds: float = 300
    cooldown_seconds: float = 10
    max_age_seconds: float = 3600


FETCHING = Fetching()


class KeySet:
    """The keys at a URL, by `kid`. One fetch runs at a time. Raises SettingsError for a bad URL.

    `stopwatch` returns monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        allowed: tuple[str, ...],
        fetching: Fetching = FETCHING,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        _require_http(url)
        self._url = url
        self._allowed = allowed
        self._fetching = fetching
        self._stopwatch = stopwatch
        self._keys: dict[str | None, Key] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> Key:
        """The key with that id; without an id, the only key.

        Raises KeysUnavailable, or PyJWT's InvalidKeyError where there is no such key.
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
        """Fetches the keys, or waits for the fetch under way. Does nothing during the cool-down."""
        if self._fetch is None:
            now = self._stopwatch()
            if now - self._tried < self._fetching.cooldown_seconds:
                return
            self._tried = now
            self._fetch = asyncio.create_task(self._fetch_keys())
        # The fetch outlives its waiters, so that a hanging thread is never joined by a second one.
        await asyncio.wait([self._fetch], timeout=self._fetching.timeout_seconds)

    async def require(self) -> None:
        """Raises KeysUnavailable where there are no keys, or only ones that are too old to be used."""
        if not self._keys or self._age() > self._fetching.refresh_seconds:
            await self.refresh()
        if not self._keys or self._age() > self._fetching.max_age_seconds:
            raise KeysUnavailable("the signing keys cannot be fetched")

    async def _fetch_keys(self) -> None:
        try:
            timeout = self._fetching.timeout_seconds
            body = await asyncio.to_thread(download, self._url, timeout, MAX_JWKS_BYTES)
            self._keys = await asyncio.to_thread(_parse, body, self._allowed)
            self._fetched = self._tried
        except Exception as error:  # a provider fails in many ways; the present keys stay in use
            reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
            _log.warning("signing keys were not fetched", error=reason)
        finally:
            self._fetch = None

    def _age(self) -> float:
        return self._stopwatch() - self._fetched

    def _key(self, kid: str | None) -> Key | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)


class _Document(msgspec.Struct):
    """A JWKS document. Its keys are parsed one by one."""

    keys: list[dict[str, Any]]


class _Parameters(msgspec.Struct):
    """The parameters of a published key that decide on its use (RFC 7517, section 4)."""

    kid: str | None = None
    alg: str | None = None
    use: str | None = None


def _parse(body: bytes, allowed: tuple[str, ...]) -> dict[str | None, Key]:
    """The keys of a JWKS document that serve an allowed algorithm, by id.

    Raises ValueError where there are none, msgspec's DecodeError for another kind of document.
    """
    keys: dict[str | None, Key] = {}
    for entry in msgspec.json.decode(body, type=_Document).keys:
        if not entry.keys().isdisjoint(_PRIVATE) or _is_long(entry):
            continue
        try:
            parameters = msgspec.convert(entry, _Parameters)
            key = jwt.PyJWK(entry).key
        except Exception as error:  # one unusual key must not cost the others
            _log.debug("signing key not understood", reason=type(error).__name__)
            continue
        algorithms = tuple(
            name
            for name in algorithms_of(key)
            if name in allowed and parameters.alg in (None, name)
        )
        if algorithms and parameters.use in (None, "sig"):
            keys.setdefault(parameters.kid, Key(key, algorithms))
    if not keys:
        raise ValueError("no key in the answer can be used")
    return keys


_PRIVATE = {"d", "k"}
"""Parameters of private and secret keys. The library would compute the primes of an RSA key from `d`, which takes hours for a long one."""

MAX_PARAMETER = 4096
"""Characters of a number in a key: those of an RSA key of 24,576 bits."""


def _is_long(entry: dict[str, Any]) -> bool:
    return any(len(str(entry.get(name, ""))) > MAX_PARAMETER for name in ("n", "e", "x", "y"))


def _require_http(url: str) -> None:
    """Raises SettingsError for any other scheme, and for a password, which the errors of a fetch would show."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise SettingsError("NOTIFIER_JWKS_URL: must be an https:// or http:// URL")
    if "@" in parts.netloc:
        raise SettingsError("NOTIFIER_JWKS_URL: must have no user and no password")
