"""Tokens by a secret or a public key: what is let in, what is refused, how little is said."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from notifier.access.tokens import LAST_MOMENT, MAX_TOKEN_CHARACTERS, Identity, Tokens, sign
from notifier.errors import SettingsError, TokenInvalid

NOW = 1_800_000_000
SECRET = "a secret that is long enough: thirty-two bytes"
UUID = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
DELETE = object()

RSA = rsa.generate_private_key(65537, 2048)
ES256 = ec.generate_private_key(ec.SECP256R1())
ES384 = ec.generate_private_key(ec.SECP384R1())
ES512 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()


def pem(key: Any) -> str:
    """The public half as PEM text."""
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return str(public, "ascii")


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**other: Any) -> dict[str, Any]:
    """Good claims, with others; DELETE takes one out."""
    all_of_them = {"sub": "u1", "exp": NOW + 600, "iat": NOW} | other
    return {name: value for name, value in all_of_them.items() if value is not DELETE}


def signed(
    payload: object, header: object = None, *, key: str = SECRET, digest: str = "sha256"
) -> str:
    """A token with a true HMAC over whatever it says: bytes as they are, all else as JSON."""
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [
        b64(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, payload)
    ]
    mac = hmac.new(key.encode(), ".".join(parts).encode(), digest).digest()
    return ".".join([*parts, b64(mac)])


def tokens(**settings: Any) -> Tokens:
    if not settings.keys() & {"secret", "public_key"}:
        settings["secret"] = SECRET
    return Tokens(**({"clock": lambda: NOW} | settings))


async def refusal(verifier: Tokens, token: str) -> str:
    """The class's name and the text with which a token is refused."""
    with pytest.raises(TokenInvalid) as refused:
        await verifier.verify(token)
    return f"{refused.type.__name__}: {refused.value}"


INVALID = "TokenInvalid: the token is not valid"
EXPIRED = "TokenExpired: the token has expired"


# --- what is let in


async def test_a_valid_token_yields_user_and_expiry() -> None:
    identity = await tokens().verify(signed(claims()))
    assert identity == Identity(user="u1", expires_at=NOW + 600, companies=None)
    assert isinstance(identity.expires_at, float)


async def test_there_is_nothing_to_warm_up_for_a_secret() -> None:
    verifier = tokens()
    await verifier.warm_up()
    assert (await verifier.verify(signed(claims()))).user == "u1"


async def test_a_token_for_development_is_good() -> None:
    token = sign("u1", ["7", UUID], 60, SECRET)
    identity = await Tokens(secret=SECRET).verify(token)
    assert identity.user == "u1"
    assert identity.companies == frozenset(["7", UUID.lower()])
    assert identity.expires_at == pytest.approx(time.time() + 60, abs=5)
    output = jwt.decode(token, options={"verify_signature": False})
    assert output["exp"] - output["iat"] == 60


async def test_a_token_for_development_can_satisfy_every_setting() -> None:
    token = sign("u1", None, 60, SECRET, algorithm="HS512", issuer="me", audience="notifier")
    verifier = Tokens(secret=SECRET, algorithms=["HS512"], issuer="me", audience="notifier")
    assert (await verifier.verify(token)).companies is None


async def test_a_token_for_development_may_have_expired() -> None:
    assert await refusal(Tokens(secret=SECRET), sign("u1", None, -60, SECRET)) == EXPIRED


@pytest.mark.parametrize(
    ("sub", "user"),
    [(7, "7"), (0, "0"), (-1, "-1"), (2**70, str(2**70)), ("7", "7"), ("07", "07")],
)
async def test_a_user_may_be_a_number(sub: object, user: str) -> None:
    assert (await tokens().verify(signed(claims(sub=sub)))).user == user


async def test_user_and_companies_may_stand_in_claims_of_any_name() -> None:
    names = {"user_claim": "https://acme.example/uid", "companies_claim": "org_roles"}
    verifier = tokens(**names)
    given = {"https://acme.example/uid": 42, "org_roles": {"7": ["admin"]}, "companies": ["8"]}
    identity = await verifier.verify(signed(claims(sub="auth0|1", **given)))
    assert (identity.user, identity.companies) == ("42", frozenset(["7"]))
    assert (
        await tokens(clock=time.time, **names).verify(sign("42", None, 60, SECRET, **names))
    ).user == "42"
    assert await refusal(verifier, signed(claims())) == INVALID, "sub does not stand in for it"
    swapped = tokens(user_claim="companies", companies_claim="sub")
    identity = await swapped.verify(signed(claims(sub=["7"], companies="u1")))
    assert (identity.user, identity.companies) == ("u1", frozenset(["7"]))


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
async def test_a_secret_goes_with_every_hmac(digest: str) -> None:
    token = signed(claims(), {"alg": f"HS{digest[3:]}"}, digest=digest)
    assert (await tokens().verify(token)).user == "u1"


FAMILIES: list[tuple[str, Any]] = [
    *((name, RSA) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("ES256", ES256),
    ("ES384", ES384),
    ("ES512", ES512),
    ("EdDSA", ED25519),
    ("EdDSA", ED448),
]


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
async def test_a_public_key_goes_with_its_algorithms(algorithm: str, key: Any) -> None:
    token = jwt.encode(claims(), key, algorithm)
    assert (await tokens(public_key=pem(key)).verify(token)).user == "u1"


async def test_a_public_key_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(pem(ES256))
    token = jwt.encode(claims(), ES256, "ES256")
    assert (await tokens(public_key=str(path)).verify(token)).user == "u1"


async def test_a_public_key_may_be_on_one_line_as_environment_files_want_it() -> None:
    one_line = pem(ES256).replace("\n", "\\n")
    token = jwt.encode(claims(), ES256, "ES256")
    assert (await tokens(public_key=one_line).verify(token)).user == "u1"


# --- C2: the signature


ALGORITHMS: list[object] = [
    *("none", "None", "NONE", "nOnE", "", None, "null", "hs256", "HS255", " HS256", "HS256 "),
    *([], ["HS256"], {}, 0, 1, True, 1.5, "RS256", "ES256", "EdDSA", "A128KW", "dir"),
]
GOOD = signed(claims())
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
NONE = b64(b'{"alg":"none"}')
FORGED = {
    **{f"the algorithm is {name!r}": signed(claims(), {"alg": name}) for name in ALGORITHMS},
    "no algorithm": signed(claims(), {"typ": "JWT"}),
    "none, without a signature": f"{NONE}.{PAYLOAD}.",
    "none, in two parts": f"{NONE}.{PAYLOAD}",
    "no signature": f"{HEADER}.{PAYLOAD}.",
    "two parts": f"{HEADER}.{PAYLOAD}",
    "one part": HEADER,
    "nothing": "",
    "dots": "..",
    "half a signature": GOOD[:-20],
    "a signature and more": f"{GOOD}AAAA",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "an encrypted token": f"{GOOD}.{PAYLOAD}.{SIGNATURE}",
    "payload first": f"{PAYLOAD}.{HEADER}.{SIGNATURE}",
    "signature first": f"{SIGNATURE}.{HEADER}.{PAYLOAD}",
    "another's signature": f"{HEADER}.{PAYLOAD}.{signed(claims(sub='u2')).split('.')[2]}",
    "another's payload": f"{HEADER}.{signed(claims(sub='u2')).split('.')[1]}.{SIGNATURE}",
    "another secret": signed(claims(), key=SECRET[::-1]),
    "the digest of another algorithm": signed(claims(), digest="sha512"),
    "standard base64": GOOD[:-1] + "+",
    "a space in front": f" {GOOD}",
    "a line end behind": f"{GOOD}\n",
    "a scheme in front": f"Bearer {GOOD}",
    "a token in a token": signed(GOOD.encode(), {"alg": "HS256", "cty": "JWT"}),
    "a token as a string": signed(GOOD),
    "a detached payload": signed(claims(), {"alg": "HS256", "b64": False, "crit": ["b64"]}),
    "a payload that is not base64": f"{HEADER}.{json.dumps(claims())}.{SIGNATURE}",
    "b64 without crit": signed(claims(), {"alg": "HS256", "b64": False}),
    "an unknown critical header": signed(
        claims(), {"alg": "HS256", "crit": ["moon"], "moon": "full"}
    ),
    "an empty crit": signed(claims(), {"alg": "HS256", "crit": []}),
    "a header that is a list": signed(claims(), ["HS256"]),
    "a header that is a string": signed(claims(), "HS256"),
    "a header that is not JSON": signed(claims(), b"HS256"),
    "a header that is not UTF-8": signed(claims(), b'{"alg":"HS256","x":"\xff"}'),
    "a deep header": signed(claims(), b'{"alg":"HS256","x":' + b"[" * 5000),
    "a header with a huge number": signed(claims(), b'{"alg":"HS256","x":' + b"9" * 5000 + b"}"),
    "a kid that is a number": signed(claims(), {"alg": "HS256", "kid": 1}),
    "a lone surrogate": "\ud800",
    "a good token and a lone surrogate": GOOD + "\udfff",
    "not ASCII": GOOD.replace(".", "\uff0e"),
    "a NUL": f"\0{GOOD}",
    "a megabyte": "A" * 2**20,
    "a megabyte of dots": "." * 2**20,
    "a megabyte that is well signed": signed(claims(pad="x" * 2**20)),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_c2_a_token_that_is_not_ours_is_refused_always_in_the_same_words(
    forged: str,
) -> None:
    assert await refusal(tokens(), forged) == INVALID


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("key", [RSA, ES256, ED25519], ids=["rsa", "ec", "ed"])
async def test_c2_a_public_key_is_never_an_hmac_secret(key: Any, digest: str) -> None:
    header = {"alg": f"HS{digest[3:]}"}
    for text in (pem(key), pem(key).strip(), pem(key).replace("\n", "")):
        token = signed(claims(), header, key=text, digest=digest)
        assert await refusal(tokens(public_key=pem(key)), token) == INVALID


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
@pytest.mark.parametrize("other", [RSA, ES256, ES384, ED25519], ids=["rsa", "p256", "p384", "ed"])
async def test_c2_a_token_of_another_family_or_key_is_refused(
    algorithm: str, key: Any, other: Any
) -> None:
    if key is not other:
        token = jwt.encode(claims(), key, algorithm)
        assert await refusal(tokens(public_key=pem(other)), token) == INVALID
        assert await refusal(tokens(), token) == INVALID


async def test_c2_a_signature_does_not_pass_under_another_algorithm_of_its_key() -> None:
    _, payload, signature = jwt.encode(claims(), RSA, "RS256").split(".")
    for algorithm in ("PS256", "RS384", "HS256", "none"):
        header = b64(json.dumps({"alg": algorithm}).encode())
        token = f"{header}.{payload}.{signature}"
        assert await refusal(tokens(public_key=pem(RSA)), token) == INVALID


async def test_an_algorithm_that_was_not_chosen_is_refused() -> None:
    token = signed(claims(), {"alg": "HS512"}, digest="sha512")
    assert await refusal(tokens(algorithms=["HS256", "HS384"]), token) == INVALID
    token = jwt.encode(claims(), RSA, "RS256")
    assert await refusal(tokens(public_key=pem(RSA), algorithms=["PS256"]), token) == INVALID


LETTERS = st.sampled_from('abcXYZ0189-_.=+/ \n\0\x7fé\uff0e\ud800\udfff😀"\\{}[]')


@given(place=st.integers(0, len(GOOD) - 1), letter=LETTERS)
async def test_c2_no_character_of_a_token_can_be_changed(place: int, letter: str) -> None:
    if letter != GOOD[place]:
        assert await refusal(tokens(), GOOD[:place] + letter + GOOD[place + 1 :]) == INVALID


@given(st.text(LETTERS, max_size=300))
async def test_whatever_text_comes_is_refused_and_no_more(text: str) -> None:
    assert await refusal(tokens(), text) == INVALID


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**400), 1e308, -1e308, NOW, NOW - 10, NOW + 10, "u1", "", UUID])
    | st.text(LETTERS, max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(LETTERS, max_size=9), inner, max_size=3)
    ),
    max_leaves=4,
)
NAMES = ("sub", "exp", "iat", "nbf", "iss", "aud", "companies", "jti", "typ")


@given(
    payload=st.dictionaries(st.sampled_from(NAMES), JSON),
    header=st.dictionaries(
        st.sampled_from(["typ", "kid", "cty", "crit", "b64", "jku", "jwk", "x5u"]), JSON
    ),
)
async def test_any_signed_token_yields_an_identity_or_a_refusal(
    payload: dict[str, Any], header: dict[str, Any]
) -> None:
    token = signed(claims(**payload), {"alg": "HS256"} | header)
    try:
        identity = await tokens().verify(token)
    except TokenInvalid:
        return
    assert identity.user == str(payload.get("sub", "u1"))
    assert NOW - 10 < identity.expires_at <= LAST_MOMENT
    datetime.fromtimestamp(identity.expires_at, UTC)
    assert (identity.companies is None) == ("companies" not in payload)


@given(header=st.binary(max_size=60), payload=st.binary(max_size=60))
async def test_whatever_bytes_are_signed_are_refused_and_no_more(
    header: bytes, payload: bytes
) -> None:
    assert await refusal(tokens(), signed(payload, header)) == INVALID
    assert await refusal(tokens(), signed(payload)) == INVALID


# --- C3: the claims


ODD: dict[str, list[object]] = {
    "sub": ["", None, 1.5, True, ["u1"], {}, "u\0", "\ud800x"],
    "exp": [
        None,
        True,
        "",
        str(NOW + 600),
        "soon",
        [NOW + 600],
        {},
        *map(float, ("inf", "-inf", "nan")),
    ],
    "nbf": [None, True, str(NOW), [], float("nan")],
    "iat": [None, True, str(NOW), [], float("nan")],
    "iss": [None, 1, ["me"]],
    "aud": [None, 1, "", {"notifier": 1}],
}
REFUSED: dict[str, dict[str, Any]] = {
    "no sub": {"sub": DELETE},
    "no exp": {"exp": DELETE},
    "neither": {"sub": DELETE, "exp": DELETE},
    **{
        f"{name} is {value!r}".replace("\\", ""): {name: value}  # pytest finds no name with a \
        for name, values in ODD.items()
        for value in values
    },
    "nbf is to come": {"nbf": NOW + 11},
    "nbf is far to come": {"nbf": 10**400},
    "iat is to come": {"iat": NOW + 11},
    "to come, and expired before": {"nbf": NOW + 11, "exp": NOW - 11},
    "an audience though none is set": {"aud": "another"},
    "audiences though none is set": {"aud": ["another", "third"]},
}


@pytest.mark.parametrize("other", REFUSED.values(), ids=REFUSED)
async def test_c3_a_claim_that_is_wrong_is_a_refusal(other: dict[str, Any]) -> None:
    assert await refusal(tokens(), signed(claims(**other))) == INVALID


LET_IN: dict[str, dict[str, Any]] = {
    "exp at the leeway's end": {"exp": NOW - 9},
    "exp is a fraction": {"exp": NOW - 9.99},
    "nbf at the leeway's end": {"nbf": NOW + 10},
    "iat at the leeway's end": {"iat": NOW + 10},
    "nbf long ago": {"nbf": -(10**400)},
    "no iat": {"iat": DELETE},
    "claims that mean nothing here": {"scope": "a", "jti": 1, "deep": {"er": [None]}},
    "an empty list of audiences": {"aud": []},
    "an issuer though none is set": {"iss": "https://issuer.example"},
}


@pytest.mark.parametrize("other", LET_IN.values(), ids=LET_IN)
async def test_c3_a_claim_that_is_good_is_let_in(other: dict[str, Any]) -> None:
    assert (await tokens().verify(signed(claims(**other)))).user == "u1"


@pytest.mark.parametrize("exp", [NOW - 10, NOW - 10.0, NOW - 11, 0, -1, -1.5, -(10**400), -1e308])
async def test_c3_a_token_that_is_merely_too_old_is_expired(exp: float) -> None:
    assert await refusal(tokens(), signed(claims(exp=exp))) == EXPIRED


@pytest.mark.parametrize("exp", [10**15, 10**30, 10**400, 1e15, 1e308])
async def test_c3_an_expiry_beyond_all_calendars_is_the_last_moment(exp: float) -> None:
    identity = await tokens().verify(signed(claims(exp=exp)))
    assert identity.expires_at == LAST_MOMENT
    assert datetime.fromtimestamp(identity.expires_at, UTC).year == 9999


@pytest.mark.parametrize(
    "other",
    [{"sub": ""}, {"sub": DELETE}, {"iss": "another"}, {"aud": "another"}, {"companies": 1}],
    ids=["an empty sub", "no sub", "another iss", "another aud", "companies that are none"],
)
async def test_c3_a_token_with_more_wrong_than_its_age_is_not_called_expired(
    other: dict[str, Any],
) -> None:
    verifier = tokens(issuer="me", audience="notifier")
    old = claims(iss="me", aud="notifier", exp=NOW - 60)
    assert await refusal(verifier, signed(old)) == EXPIRED
    changed = {name: value for name, value in (old | other).items() if value is not DELETE}
    assert await refusal(verifier, signed(changed)) == INVALID
    assert await refusal(verifier, signed(old, key=SECRET[::-1])) == INVALID


async def test_c15_a_token_follows_the_clock_when_that_is_set() -> None:
    now = float(NOW)
    verifier = tokens(clock=lambda: now)
    token = signed(claims())
    await verifier.verify(token)
    now += 3600
    assert await refusal(verifier, token) == EXPIRED
    now -= 3600
    await verifier.verify(token)
    now -= 3600
    assert await refusal(verifier, token) == INVALID  # issued in the future


async def test_c3_no_leeway_is_none() -> None:
    verifier = tokens(leeway_seconds=0)
    await verifier.verify(signed(claims(exp=NOW + 1, nbf=NOW)))
    assert await refusal(verifier, signed(claims(exp=NOW))) == EXPIRED
    assert await refusal(verifier, signed(claims(nbf=NOW + 1))) == INVALID


@pytest.mark.parametrize("issuer", ["https://me.example", ["https://other", "https://me.example"]])
async def test_c3_an_issuer_must_be_an_accepted_one_to_the_letter(issuer: str | list[str]) -> None:
    verifier = tokens(issuer=issuer)
    await verifier.verify(signed(claims(iss="https://me.example")))
    for iss in (DELETE, None, "", "https://me.example/", "https://me.exampl", "HTTPS://me.example"):
        assert await refusal(verifier, signed(claims(iss=iss))) == INVALID
    assert await refusal(verifier, signed(claims(iss=["https://me.example"]))) == INVALID


@pytest.mark.parametrize("audience", ["notifier", ["other", "notifier"]])
async def test_c3_an_audience_must_be_an_accepted_one_or_one_of_several(
    audience: str | list[str],
) -> None:
    verifier = tokens(audience=audience)
    await verifier.verify(signed(claims(aud="notifier")))
    await verifier.verify(signed(claims(aud=["third", "notifier"])))
    for aud in (DELETE, None, "", [], "Notifier", "notifier ", "third", ["third"], ["notifier", 1]):
        assert await refusal(verifier, signed(claims(aud=aud))) == INVALID
    assert await refusal(verifier, signed(claims(aud={"notifier": 1}))) == INVALID


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_an_identity_comes_in_a_plain_or_an_access_token(typ: str) -> None:
    await tokens().verify(signed(claims(), {"alg": "HS256", "typ": typ}))
    await tokens().verify(signed(claims(), {"alg": "HS256"}))


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "", "JOSE", None, 1, []])
async def test_c3_a_token_made_for_something_else_is_no_identity(typ: object) -> None:
    assert await refusal(tokens(), signed(claims(), {"alg": "HS256", "typ": typ})) == INVALID


@pytest.mark.parametrize(
    ("claim", "spelled"),
    [
        ([], set()),
        (["7"], {"7"}),
        ([7, "7", 0, -1], {"7", "0", "-1"}),
        ([10**30], {"1" + "0" * 30}),
        ([UUID, UUID.lower()], {UUID.lower()}),
        (["Acme"], {"Acme"}),
        ({}, set()),
        ({"7": ["admin"], UUID: None}, {"7", UUID.lower()}),
    ],
)
async def test_companies_have_one_spelling(claim: object, spelled: set[str]) -> None:
    assert (await tokens().verify(signed(claims(companies=claim)))).companies == frozenset(spelled)


@pytest.mark.parametrize(
    "claim", [None, "7", 7, True, [True], [None], [1.5], [["7"]], [{}], ["7", None]]
)
async def test_a_list_of_companies_that_is_none_is_a_refusal(claim: object) -> None:
    assert await refusal(tokens(), signed(claims(companies=claim))) == INVALID


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"null", b"[]", b"1", b'"u1"', b"{", b"\xff", b"[" * 10_000),
        b'{"sub":"u1","exp":1800000600,"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"sub":"u1","exp":' + b"9" * 5000 + b"}",
        b'{"sub":"u1","exp":1e400}',
        b'{"sub":"\\ud800 and more","exp":1800000600}',
        b'{"sub":"\\udfff\\ud800","exp":1800000600}',
        b'\xef\xbb\xbf{"sub":"u1","exp":1800000600}',
        json.dumps(claims()).encode("utf-16"),
    ],
)
async def test_c3_a_payload_that_is_odd_is_a_refusal(payload: bytes) -> None:
    assert await refusal(tokens(), signed(payload)) == INVALID


async def test_a_token_may_be_long_to_a_limit() -> None:
    def padded(characters: int) -> str:
        return signed(claims(pad="x" * characters))

    length = 0
    while len(padded(length + 1)) <= MAX_TOKEN_CHARACTERS:
        length += max(1, (MAX_TOKEN_CHARACTERS - len(padded(length))) // 2)
    await tokens().verify(padded(length))
    assert await refusal(tokens(), padded(length + 2)) == INVALID


# --- nothing of a token is said


@pytest.mark.parametrize(
    "token",
    [
        signed(claims(sub="canary-user", iss="canary", companies=["canary"], exp=1)),
        signed(claims(sub="canary-user", iss="canary"), key=SECRET[::-1]),
        signed(claims(sub=["canary-user"], iss="canary")),
        signed(claims(sub="canary", iss="canary", aud="canary")),
        signed(claims(), {"alg": "canary"}),
        signed(claims(), {"alg": "HS256", "crit": ["canary"], "canary": 1}),
        signed(claims(), b'{"alg":"HS256","canary":}'),
        signed(b'{"canary":}'),
        "canary",
        "canary\ud800",
    ],
)
async def test_c14_no_text_and_no_log_has_anything_of_a_token(token: str) -> None:
    with capture_logs() as logs, pytest.raises(TokenInvalid) as refused:
        await tokens().verify(token)
    output = "".join(traceback.format_exception(refused.value)) + repr(refused.value) + repr(logs)
    assert "canary" not in output
    assert SECRET not in output
    for part in token.split("."):
        assert len(part) < 8 or part not in output


async def test_the_log_names_the_kind_of_a_refusal() -> None:
    with capture_logs() as logs:
        await refusal(tokens(issuer="me"), signed(claims(iss="you")))
    assert logs == [
        {"event": "token refused", "reason": "InvalidIssuerError", "log_level": "debug"}
    ]


# --- wrong settings


def private(key: Any) -> str:
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return str(raw, "ascii")


WEAK = rsa.generate_private_key(65537, 1024)
WRONG: dict[str, dict[str, Any]] = {
    "nothing is set": {},
    "a secret and a key": {"secret": SECRET, "public_key": pem(RSA)},
    "a secret and a provider": {"secret": SECRET, "jwks_url": "https://id.example/jwks"},
    "a key and a provider": {"public_key": pem(RSA), "jwks_url": "https://id.example/jwks"},
    "all of them": {"secret": SECRET, "public_key": pem(RSA), "jwks_url": "https://id.example"},
    "an empty secret": {"secret": ""},
    "a secret of 31 bytes": {"secret": "s" * 31},
    "a secret that is a public key": {"secret": pem(RSA)},
    "a secret that is a JWK": {"secret": json.dumps({"kty": "oct", "k": "s" * 64})},
    "a secret that is not text": {"secret": "\udcff" * 40},
    "an empty path": {"public_key": ""},
    "no such file": {"public_key": "/no/such/file.pem"},
    "no possible file": {"public_key": "x" * 5000},
    "half a PEM": {"public_key": pem(RSA)[:200]},
    "a PEM of nothing": {"public_key": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"},
    "a private key": {"public_key": private(RSA)},
    "an RSA key of 1024 bits": {"public_key": pem(WEAK)},
    "a DSA key": {"public_key": pem(dsa.generate_private_key(1024))},
    "a curve of no algorithm": {"public_key": pem(ec.generate_private_key(ec.SECP256K1()))},
    "no algorithm": {"secret": SECRET, "algorithms": []},
    "none": {"secret": SECRET, "algorithms": ["none"]},
    "none beside another": {"secret": SECRET, "algorithms": ["HS256", "none"]},
    "none for a key": {"public_key": pem(RSA), "algorithms": ["none"]},
    "none for a provider": {"jwks_url": "https://id.example", "algorithms": ["RS256", "none"]},
    "RS256 for a secret": {"secret": SECRET, "algorithms": ["RS256"]},
    "HS256 for a key": {"public_key": pem(RSA), "algorithms": ["RS256", "HS256"]},
    "HS256 for a provider": {"jwks_url": "https://id.example", "algorithms": ["HS256"]},
    "ES384 for a P-256 key": {"public_key": pem(ES256), "algorithms": ["ES384"]},
    "ES256 for an RSA key": {"public_key": pem(RSA), "algorithms": ["ES256"]},
    "lower case": {"secret": SECRET, "algorithms": ["hs256"]},
    "an address without a scheme": {"jwks_url": "id.example/jwks"},
    "an address of a file": {"jwks_url": "file:///etc/passwd"},
    "an address without a host": {"jwks_url": "https://"},
    "an address that is none": {"jwks_url": "https://[half"},
    "an empty address": {"jwks_url": ""},
}


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_one_readable_line(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as wrong:
        Tokens(**settings)
    output = str(wrong.value)
    assert "NOTIFIER_J" in output
    assert "\n" not in output
    assert len(output) < 200
    for value in settings.values():
        assert not isinstance(value, str) or len(value) < 10 or value not in output


def test_a_secret_of_32_bytes_is_long_enough_in_whatever_letters() -> None:
    Tokens(secret="s" * 32)
    Tokens(secret="ß" * 16)


def test_a_weak_secret_signs_nothing() -> None:
    with pytest.raises(SettingsError):
        sign("u1", None, 60, "s" * 31)


def test_nothing_but_hmac_signs_with_a_secret() -> None:
    with pytest.raises(SettingsError):
        sign("u1", None, 60, SECRET, algorithm="none")


def test_the_hmac_of_the_tests_is_the_one_of_the_standard() -> None:
    # RFC 7515 A.1 gives a token and its key: the forgeries above are well made.
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    header = b'{"typ":"JWT",\r\n "alg":"HS256"}'
    payload = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
    signing_input = f"{b64(header)}.{b64(payload)}".encode()
    assert b64(hmac.new(key, signing_input, hashlib.sha256).digest()) == (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
