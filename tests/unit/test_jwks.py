"""Tokens by the keys of an identity provider, a real HTTP server: up, down, slow or odd."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from notifier.access.download import download
from notifier.access.jwks import MAX_JWKS_BYTES, Fetching
from notifier.access.tokens import Tokens
from notifier.errors import KeysUnavailable, SettingsError, TokenInvalid
from tests.servers import listening
from tests.waiting import DEADLINE_SECONDS

NOW = 1_800_000_000
RSA = rsa.generate_private_key(65537, 2048)
RSA_2 = rsa.generate_private_key(65537, 2048)
RSA_1024 = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALGORITHM = jwt.get_algorithm_by_name


def jwk(key: Any, kid: object = None, **other: object) -> dict[str, Any]:
    """The public half as a provider publishes it."""
    name = "RS256" if key in (RSA, RSA_2, RSA_1024) else "ES256" if key is EC else "EdDSA"
    about = {} if kid is None else {"kid": kid}
    return ALGORITHM(name).to_jwk(key.public_key(), as_dict=True) | about | other


def token(key: Any, algorithm: str = "RS256", kid: object = None, **header: object) -> str:
    about = header if kid is None else header | {"kid": kid}
    return jwt.encode({"sub": "u1", "exp": NOW + 600}, key, algorithm, headers=about)


def forged(header: dict[str, object], secret: bytes) -> str:
    """A token with an HMAC, and whatever header."""
    raw = [json.dumps(part).encode() for part in (header, {"sub": "u1", "exp": NOW + 600})]
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in raw]
    mac = hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


class Stopwatch:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Provider(ThreadingHTTPServer):
    """Publishes keys at `url`, or misbehaves. `requests` has every path that was requested."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.request_headers: dict[str, str] = {}
        self.status = 200
        self.body = b""
        self.location: str | None = None
        self.drips: str | None = None  # the "headers" or the "body" of the next answer never end
        self.was_requested = threading.Event()
        self.gate = threading.Event()  # while it is not set, there is no answer
        self.gate.set()
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks"

    def publish(self, *keys: object) -> None:
        self.status, self.body = 200, json.dumps({"keys": keys}).encode()

    def close(self) -> None:
        """Lets go of everybody who was kept waiting."""
        self.closing.set()
        self.gate.set()


class _Answer(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        provider = self.server
        provider.requests.append(self.path)
        provider.request_headers = dict(self.headers)
        provider.was_requested.set()
        provider.gate.wait()
        drips, provider.drips = provider.drips, None
        try:
            self.send_response(provider.status)
            if provider.location:
                self.send_header("Location", provider.location)
            if drips == "headers":
                self.drip()
            if drips != "body":
                self.send_header("Content-Length", str(len(provider.body)))
            self.end_headers()
            if drips == "body":
                self.drip()
            self.wfile.write(provider.body)
        except ConnectionError:
            pass  # the requester was cancelled

    do_CONNECT = do_GET  # noqa: N815 - as a proxy, by the name of the method

    def drip(self) -> None:
        self.flush_headers()
        while not self.server.closing.wait(0.01):
            self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
        pass


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:  # async: it lets go before the loop is closed
    with Provider() as server:
        server.publish(jwk(RSA, "one"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.close()
        server.shutdown()
        thread.join()


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def tokens(provider: Provider, stopwatch: Stopwatch) -> Tokens:
    return Tokens(jwks_url=provider.url, clock=lambda: NOW, stopwatch=stopwatch)


async def good(tokens: Tokens, text: str) -> bool:
    """Whether the token is let in. A refusal has one of two sentences."""
    try:
        identity = await tokens.verify(text)
    except TokenInvalid as refused:
        refusal = str(refused)
    else:
        return identity.user == "u1"
    assert refusal in ("the token is not valid", "the token cannot be checked now")
    return False


# --- which key


async def test_a_token_is_checked_with_the_key_that_it_names(
    provider: Provider, tokens: Tokens
) -> None:
    provider.publish(jwk(RSA, "one"), jwk(EC, "two"), jwk(ED, "three"), jwk(RSA_2, "four"))
    assert await good(tokens, token(RSA, kid="one"))
    assert await good(tokens, token(EC, "ES256", kid="two"))
    assert await good(tokens, token(ED, "EdDSA", kid="three"))
    assert await good(tokens, token(RSA_2, kid="four"))
    assert not await good(tokens, token(RSA, kid="four"))
    assert not await good(tokens, token(RSA, kid="two"))
    assert provider.requests == ["/jwks"]


async def test_a_token_without_a_key_id_is_verified_with_the_only_key(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    assert await good(tokens, token(RSA))
    provider.publish(jwk(RSA, "one"), jwk(RSA_2, "two"))
    stopwatch.advance(301)
    assert not await good(tokens, token(RSA))


async def test_a_provider_may_publish_its_only_key_without_a_name(
    provider: Provider, tokens: Tokens
) -> None:
    provider.publish(jwk(RSA))
    assert await good(tokens, token(RSA))
    assert not await good(tokens, token(RSA, kid="one"))


async def test_a_key_is_used_as_it_was_declared_and_no_other_way(
    provider: Provider, tokens: Tokens
) -> None:
    provider.publish(
        jwk(RSA, "any"),
        jwk(RSA, "rs", alg="RS256", use="sig"),
        jwk(RSA, "ps", alg="PS256"),
        jwk(RSA, "encryption", use="enc"),
        jwk(RSA, "oaep", alg="RSA-OAEP"),
    )
    for kid, algorithms in {"any": ("RS256", "PS256"), "rs": ("RS256",), "ps": ("PS256",)}.items():
        for algorithm in ("RS256", "PS256"):
            let_in = await good(tokens, token(RSA, algorithm, kid=kid))
            assert let_in == (algorithm in algorithms)
    assert not await good(tokens, token(RSA, kid="encryption"))
    assert not await good(tokens, token(RSA, kid="oaep"))


async def test_an_algorithm_that_was_not_chosen_is_refused(provider: Provider) -> None:
    provider.publish(jwk(RSA, "one"), jwk(EC, "two"))
    chosen = ["ES256", "PS256"]
    tokens = Tokens(jwks_url=provider.url, algorithms=chosen, clock=lambda: NOW)
    assert await good(tokens, token(RSA, "PS256", kid="one"))
    assert await good(tokens, token(EC, "ES256", kid="two"))
    assert not await good(tokens, token(RSA, "RS256", kid="one"))


async def test_keys_that_serve_no_chosen_algorithm_do_not_count(provider: Provider) -> None:
    provider.publish(jwk(RSA, "one"), jwk(EC, "two"))
    tokens = Tokens(jwks_url=provider.url, algorithms=["ES256"], clock=lambda: NOW)
    assert await good(tokens, token(EC, "ES256"))
    assert not await good(tokens, token(RSA))


async def test_a_published_secret_and_a_published_private_key_are_never_used(
    provider: Provider, tokens: Tokens
) -> None:
    secret = b"s" * 32
    private = ALGORITHM("RS256").to_jwk(RSA_2, as_dict=True) | {"kid": "private"}
    shared = ALGORITHM("HS256").to_jwk(secret, as_dict=True) | {"kid": "shared"}
    provider.publish(shared, private, jwk(RSA, "one"), jwk(RSA_1024, "weak"))
    assert await good(tokens, token(RSA, kid="one"))
    assert not await good(tokens, forged({"alg": "HS256", "kid": "shared"}, secret))
    assert not await good(tokens, token(RSA_2, kid="private"))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        weak = token(RSA_1024, kid="weak")
    assert not await good(tokens, weak)


async def test_a_published_key_is_never_an_hmac_secret(tokens: Tokens) -> None:
    public = RSA.public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(RSA, "one")).encode(),
        b"",
    ):
        for algorithm in ("HS256", "RS256", "none"):
            assert not await good(tokens, forged({"alg": algorithm, "kid": "one"}, secret))


async def test_one_unusable_key_leaves_the_others_usable(
    provider: Provider, tokens: Tokens
) -> None:
    provider.publish(
        {},
        {"kty": "moon"},
        {"kty": "RSA", "n": 1, "e": []},
        {"kty": ["RSA"]},
        {"kty": "EC", "crv": "P-256", "x": "", "y": ""},
        {"kty": "EC", "crv": ["P-256"]},
        jwk(RSA_2, 7),
        jwk(RSA_2, "one") | {"n": "!"},
        jwk(RSA_2, ["one"]),
        jwk(RSA, "one"),
        jwk(RSA_2, "one"),  # the first of a name has it
    )
    assert await good(tokens, token(RSA, kid="one"))


# --- C4: what a token says of keys


KIDS: list[str] = [
    *("", "two", "../../etc/passwd", "/dev/null", "' OR 1=1 --", "one\0", "ONE", "one "),
    *("http://127.0.0.1/jwks", "\ud800", "{}", "k" * 10_000),
]


async def test_c4_an_unknown_key_is_looked_for_once_and_never_elsewhere(
    provider: Provider, tokens: Tokens
) -> None:
    await tokens.warm_up()
    for kid in KIDS:
        assert not await good(tokens, token(RSA, kid=kid))
    assert not await good(tokens, token(RSA, kid="k" * 2**20))
    for odd in (1, None, True, ["one"], {"one": 1}):
        assert not await good(tokens, forged({"alg": "RS256", "kid": odd}, b""))
    assert provider.requests == ["/jwks"]


async def test_c4_a_flood_of_unknown_keys_is_one_fetch_in_a_cool_down(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    flood = [token(RSA, kid=f"kid {number}") for number in range(100)]
    for fetches in (1, 2, 3):
        assert not any(await asyncio.gather(*(good(tokens, each) for each in flood)))
        assert len(provider.requests) == fetches
        stopwatch.advance(9)
        assert not any(await asyncio.gather(*(good(tokens, each) for each in flood)))
        assert len(provider.requests) == fetches
        assert await good(tokens, token(RSA, kid="one"))
        stopwatch.advance(1)


async def test_c4_keys_that_a_token_brings_or_points_to_are_not_used(
    provider: Provider, tokens: Tokens
) -> None:
    with Provider() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        other.publish(jwk(RSA_2, "one"))
        for header in (
            {"jku": other.url},
            {"x5u": other.url},
            {"jwk": jwk(RSA_2, "one")},
            {"x5c": ["MIIB"]},
            {"jku": other.url, "x5u": other.url, "jwk": jwk(RSA_2)},
        ):
            assert not await good(tokens, token(RSA_2, kid="one", **header))
            assert not await good(tokens, token(RSA_2, kid="another", **header))
            assert not await good(tokens, token(RSA_2, **header))
            assert await good(tokens, token(RSA, kid="one", **header))
        other.shutdown()
        thread.join()
        assert other.requests == []
    assert provider.requests == ["/jwks"]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a.b.c", "\ud800", "e30.e30.", "W10.e30.AA"]
)
async def test_c4_text_that_is_no_token_causes_no_fetch(
    provider: Provider, tokens: Tokens, text: str
) -> None:
    await tokens.warm_up()
    assert not await good(tokens, text)
    assert provider.requests == ["/jwks"]


# --- C5: the provider


async def test_keys_are_fetched_once_by_all_who_need_them_first(
    provider: Provider, tokens: Tokens
) -> None:
    assert all(await asyncio.gather(*(good(tokens, token(RSA, kid="one")) for _ in range(50))))
    assert provider.requests == ["/jwks"]


async def test_after_a_warm_up_the_first_token_needs_no_fetch(
    provider: Provider, tokens: Tokens
) -> None:
    await tokens.warm_up()
    provider.gate.clear()
    assert await good(tokens, token(RSA, kid="one"))
    assert provider.requests == ["/jwks"]


async def test_a_fetch_does_not_hold_up_the_loop(provider: Provider, tokens: Tokens) -> None:
    provider.gate.clear()
    waiting = asyncio.create_task(good(tokens, token(RSA, kid="one")))
    await asyncio.to_thread(provider.was_requested.wait)  # the loop turns while the provider waits
    assert not waiting.done()
    provider.gate.set()
    assert await waiting


async def test_a_cancelled_verification_does_not_end_a_shared_fetch(
    provider: Provider, tokens: Tokens
) -> None:
    provider.gate.clear()
    first, second = (asyncio.create_task(good(tokens, token(RSA, kid="one"))) for _ in range(2))
    await asyncio.to_thread(provider.was_requested.wait)
    first.cancel()
    provider.gate.set()
    assert await second
    assert first.cancelled()
    assert provider.requests == ["/jwks"]


async def test_c5_a_new_key_is_found_when_a_token_names_it(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    assert await good(tokens, token(RSA, kid="one"))
    provider.publish(jwk(RSA, "one"), jwk(RSA_2, "two"))
    assert not await good(tokens, token(RSA_2, kid="two"))  # in the cool-down
    stopwatch.advance(10)
    assert await good(tokens, token(RSA_2, kid="two"))
    assert await good(tokens, token(RSA, kid="one"))
    assert len(provider.requests) == 2


async def test_c5_a_withdrawn_key_is_refused_after_the_next_refresh(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    assert await good(tokens, token(RSA, kid="one"))
    provider.publish(jwk(RSA_2, "two"))
    stopwatch.advance(300)
    assert await good(tokens, token(RSA, kid="one"))
    stopwatch.advance(1)
    assert not await good(tokens, token(RSA, kid="one"))
    assert await good(tokens, token(RSA_2, kid="two"))
    assert len(provider.requests) == 2


async def test_c5_a_key_that_is_replaced_under_its_name_is_refused_after_the_next_refresh(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    assert await good(tokens, token(RSA, kid="one"))
    provider.publish(jwk(RSA_2, "one"))
    stopwatch.advance(301)
    assert not await good(tokens, token(RSA, kid="one"))
    assert await good(tokens, token(RSA_2, kid="one"))


def big() -> bytes:
    return b" " * MAX_JWKS_BYTES + json.dumps({"keys": [jwk(RSA_2, "one")]}).encode()


ANSWERS: dict[str, tuple[int, bytes]] = {
    "an error": (500, b""),
    "not found": (404, json.dumps({"keys": [jwk(RSA_2, "one")]}).encode()),
    "a redirect": (302, b""),
    "nothing": (200, b""),
    "a page": (200, b"<html>sign in</html>"),
    "not UTF-8": (200, b"\xff\xfe"),
    "a list": (200, b"[]"),
    "null": (200, b"null"),
    "no list": (200, b"{}"),
    "no keys": (200, b'{"keys": []}'),
    "keys that are none": (200, b'{"keys": [1, null]}'),
    "keys that cannot be used": (200, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
    "a deep document": (200, b"[" * 100_000),
    "a deep key": (200, b'{"keys": [{"kty":' + b"[" * 100_000),
    "a big document": (200, big()),
}


@pytest.mark.parametrize(("status", "body"), ANSWERS.values(), ids=ANSWERS)
async def test_c5_the_keys_at_hand_go_on_when_the_provider_answers_oddly_and_fail_closed_at_last(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch, status: int, body: bytes
) -> None:
    assert await good(tokens, token(RSA, kid="one"))
    provider.status, provider.body = status, body
    provider.location = f"{provider.url}/elsewhere"
    with capture_logs() as logs:
        stopwatch.advance(1800)
        assert await good(tokens, token(RSA, kid="one"))
        assert not await good(tokens, token(RSA_2, kid="one"))
        stopwatch.advance(1800)
        assert await good(tokens, token(RSA, kid="one"))
        stopwatch.advance(1)
        with pytest.raises(KeysUnavailable):
            await tokens.verify(token(RSA, kid="one"))
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == len(provider.requests) - 1
    assert "eyJ" not in repr(logs)
    provider.publish(jwk(RSA, "one"))
    stopwatch.advance(10)
    assert await good(tokens, token(RSA, kid="one"))
    assert set(provider.requests) == {"/jwks"}


async def test_c5_while_a_provider_is_down_from_the_start_every_token_is_refused(
    provider: Provider, tokens: Tokens, stopwatch: Stopwatch
) -> None:
    provider.status = 503
    await tokens.warm_up()
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            await tokens.verify(token(RSA, kid="one"))
    assert provider.requests == ["/jwks"]  # no fetch for each token
    provider.status = 200
    stopwatch.advance(10)
    assert await good(tokens, token(RSA, kid="one"))


async def test_c5_a_refused_connection_is_a_provider_that_is_down(stopwatch: Stopwatch) -> None:
    with Provider() as gone:
        url = gone.url
    tokens = Tokens(jwks_url=url, stopwatch=stopwatch)
    await tokens.warm_up()
    with pytest.raises(KeysUnavailable):
        await tokens.verify(token(RSA, kid="one"))


@pytest.fixture
def hasty(provider: Provider, stopwatch: Stopwatch) -> Tokens:
    """Waits a twentieth of a second for the provider."""
    return Tokens(
        jwks_url=provider.url,
        fetching=Fetching(timeout_seconds=0.05),
        clock=lambda: NOW,
        stopwatch=stopwatch,
    )


@pytest.fixture
async def supplied(provider: Provider, hasty: Tokens, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """The same, with the provider's keys. A byte may take a minute: the threads of a busy machine may sleep."""
    patient = partial(_download_patiently, download)
    monkeypatch.setattr("notifier.access.jwks.download", patient)
    while not await good(hasty, token(RSA, kid="one")):
        pass
    provider.was_requested.clear()
    return hasty


async def requested(provider: Provider) -> None:
    """Returns when the provider has received another request."""
    assert await asyncio.to_thread(provider.was_requested.wait, DEADLINE_SECONDS)


async def test_c5_the_keys_at_hand_go_on_while_the_provider_hangs(
    provider: Provider, supplied: Tokens, stopwatch: Stopwatch
) -> None:
    provider.gate.clear()
    stopwatch.advance(301)
    assert await good(supplied, token(RSA, kid="one"))
    assert not await good(supplied, token(RSA_2, kid="two"))
    await requested(provider)
    assert len(provider.requests) == 2


async def test_c5_an_answer_that_never_begins_times_out_and_costs_one_thread(
    provider: Provider, supplied: Tokens, stopwatch: Stopwatch
) -> None:
    provider.drips = "headers"
    for _ in range(5):
        stopwatch.advance(301)
        assert await good(supplied, token(RSA, kid="one"))
    await requested(provider)
    assert len(provider.requests) == 2
    provider.close()


def _download_patiently(
    download: Callable[[str, float, int], bytes], url: str, _: float, most: int
) -> bytes:
    """Has a minute for each byte."""
    return download(url, 60.0, most)


async def test_a_provider_that_does_not_answer_is_retried(
    provider: Provider, hasty: Tokens, stopwatch: Stopwatch
) -> None:
    provider.gate.clear()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(provider.requests) < 2:
            with pytest.raises(KeysUnavailable):
                await hasty.verify(token(RSA, kid="one"))
            stopwatch.advance(10)


async def test_the_request_to_a_provider_has_user_agent_and_accept(provider: Provider) -> None:
    await Tokens(jwks_url=provider.url).warm_up()
    assert provider.request_headers["Accept"] == "application/json"
    assert provider.request_headers["User-Agent"] == "notifier"


@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
def test_a_providers_url_may_be_http_or_https(scheme: str) -> None:
    Tokens(jwks_url=f"{scheme}://issuer.example/jwks")  # or SettingsError


@pytest.mark.parametrize("user", ["user:secret", "secret", ":secret"])
def test_a_providers_url_may_have_no_password_which_would_be_logged(user: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Tokens(jwks_url=f"https://{user}@issuer.example/jwks")
    assert "no user and no password" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_c5_an_answer_that_never_ends_is_abandoned_and_retried(
    provider: Provider, stopwatch: Stopwatch, part: str
) -> None:
    """The library's timeout is that of each read, and the answer comes in single bytes, each within that time."""
    patient = Tokens(
        jwks_url=provider.url,
        fetching=Fetching(timeout_seconds=1),
        clock=lambda: NOW,
        stopwatch=stopwatch,
    )
    provider.drips = part
    with pytest.raises(KeysUnavailable):
        await patient.verify(token(RSA, kid="one"))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await good(patient, token(RSA, kid="one")):
            stopwatch.advance(10)
            await asyncio.sleep(0)
    assert len(provider.requests) > 1


async def test_c5_a_proxy_whose_answer_never_ends_is_abandoned(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read before the connection to the provider exists."""
    provider.drips = "headers"
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{provider.server_port}")
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TimeoutError, match="the answer is too slow"):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.to_thread(download, "https://issuer.example/jwks", 1.0, MAX_JWKS_BYTES)
    assert await asyncio.to_thread(provider.was_requested.wait, DEADLINE_SECONDS)
    assert provider.requests == ["issuer.example:443"]


async def test_nothing_is_computed_from_a_private_key_or_a_number_without_end(
    provider: Provider, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primes of an RSA key from its exponent: a minute for 20,000 bits, in which the process does nothing else."""
    private = ALGORITHM("RS256").to_jwk(RSA_2, as_dict=True)
    alone = {name: private[name] for name in ("kty", "n", "e", "d")} | {"kid": "alone"}
    long = jwk(RSA_2, "long") | {"n": "A" * 100_000}
    provider.publish(alone, long, jwk(RSA, "one"))
    computed: list[object] = []
    made = jwt.PyJWK

    def make(entry: dict[str, object]) -> jwt.PyJWK:
        computed.append(entry["kid"])
        return made(entry)

    monkeypatch.setattr(jwt, "PyJWK", make)
    assert await good(tokens, token(RSA, kid="one"))
    assert computed == ["one"]


@pytest.mark.parametrize("role", ["provider", "proxy"])
async def test_the_words_of_a_provider_and_of_a_proxy_are_logged_in_part(
    monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 " + b"x" * 60_000 + b"\r\n\r\n")

    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with listening(refuse) as port:
        place = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("https_proxy", place)
        url = f"{place}/jwks" if role == "provider" else "https://issuer.example/"
        with capture_logs() as logs:
            await Tokens(jwks_url=url).warm_up()
    assert [len(entry["error"]) for entry in logs] == [300]
