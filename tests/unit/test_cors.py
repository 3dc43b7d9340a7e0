"""CORS: which origins are allowed, and the headers that allow them."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from notifier.transport.cors import Cors

APP = "https://app.example"
LISTED = Cors((APP,), credentials=True)


def test_a_listed_origin_is_allowed_by_name() -> None:
    headers = Headers({"Origin": APP})
    assert LISTED.allows(headers)
    answer = LISTED.headers(headers)
    assert answer["Access-Control-Allow-Origin"] == APP
    assert answer["Access-Control-Allow-Credentials"] == "true"
    assert answer["Vary"] == "Origin"
    assert "Retry-After" in answer["Access-Control-Expose-Headers"]


def test_credentials_are_allowed_only_where_a_cookie_is_configured() -> None:
    answer = Cors((APP,), credentials=False).headers(Headers({"Origin": APP}))
    assert "Access-Control-Allow-Credentials" not in answer


@pytest.mark.parametrize(
    "raw",
    [
        [b"https://evil.example"],
        [b"https://app.example.evil.example"],
        [b"https://app.example:444"],
        [b"null"],
        [APP.encode(), APP.encode()],
    ],
)
def test_another_origin_is_refused_and_not_named(raw: list[bytes]) -> None:
    headers = Headers(raw=[(b"origin", value) for value in raw])
    assert not LISTED.allows(headers)
    assert LISTED.headers(headers) == {"Vary": "Origin"}


def test_a_program_without_an_origin_is_allowed() -> None:
    assert LISTED.allows(Headers())
    assert LISTED.headers(Headers()) == {"Vary": "Origin"}


def test_any_origin_is_never_allowed_credentials() -> None:
    unrestricted = Cors(None, credentials=True)
    headers = Headers({"Origin": APP})
    assert unrestricted.allows(headers)
    answer = unrestricted.headers(headers)
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer
    assert not unrestricted.allows_cookie(headers)


def test_the_origin_null_is_allowed_where_it_is_listed_and_never_with_a_cookie() -> None:
    """Any site can make a page whose origin is null."""
    listed = Cors(("null",), credentials=True)
    headers = Headers({"Origin": "null"})
    assert listed.allows(headers)
    answer = listed.headers(headers)
    assert answer["Access-Control-Allow-Origin"] == "null"
    assert "Access-Control-Allow-Credentials" not in answer
    assert not listed.allows_cookie(headers)
