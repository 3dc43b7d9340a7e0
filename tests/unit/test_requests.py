"""Requests for messages: addresses, headers, and the problems that they can have."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from notifier.transport.cors import Cors
from notifier.transport.problems import Problem
from notifier.transport.requests import (
    DEFAULT_WAIT,
    LONGEST_WAIT,
    POLL,
    STREAM,
    bearer_token,
    company_request,
    media_type,
)

NONE = Headers()
ANY = Cors(None, credentials=False)


def test_the_parameters_are_those_of_a_subscription() -> None:
    request, wait = company_request("a%2Fb", b"after=41&epoch=e&at=t&wait=3&other=1", NONE)
    assert (request.company_id, request.after, request.epoch, request.at) == ("a/b", 41, "e", "t")
    assert wait == 3


@pytest.mark.parametrize("plus", [b"+", b"%2B", b"%2b", b"%20"])
def test_the_offset_of_at_need_not_be_percent_encoded(plus: bytes) -> None:
    query = b"after=41&epoch=e&at=2026-11-22T18:00:00.123456" + plus + b"00:00"
    request, _ = company_request("c", query, NONE)
    assert request.at == "2026-11-22T18:00:00.123456+00:00"


def test_without_parameters_there_is_no_position() -> None:
    request, wait = company_request("7", b"", NONE)
    assert request.company_id == "7"
    assert (request.after, request.epoch, request.at) == (None, None, None)
    assert wait == DEFAULT_WAIT


def test_a_filter_has_entities_and_values() -> None:
    query = (
        b"entities=Event,Employee&entities=Company&where=%7B%22Event%22:%7B%22A%22:[1,null]%7D%7D"
    )
    request, _ = company_request("c", query, NONE)
    assert request.entities == ["Event", "Employee", "Company"]
    assert request.where == {"Event": {"A": [1, None]}}
    request, _ = company_request("c", b"", Headers({"Last-Event-ID": "e:7"}))
    assert (request.entities, request.where) == (None, None)
    request, _ = company_request("c", b"entities=&where=%5B%5D", NONE)
    assert (request.entities, request.where) == ([], [])


@pytest.mark.parametrize("where", [b"%7B", b"", b"%5B" * 20_000])
def test_values_that_are_not_json_are_a_bad_filter(where: bytes) -> None:
    with pytest.raises(Problem) as raised:
        company_request("c", b"where=" + where, NONE)
    assert (raised.value.status, raised.value.code) == (400, "bad_filter")


def test_the_last_event_id_takes_the_place_of_the_parameters() -> None:
    headers = Headers({"Last-Event-ID": "e:7:2026-11-22T18:00:00.123456+00:00"})
    request, _ = company_request("c", b"after=41&epoch=x&at=t", headers)
    assert (request.after, request.epoch) == (7, "e")
    assert request.at == "2026-11-22T18:00:00.123456+00:00"
    request, _ = company_request("c", b"at=t", Headers({"Last-Event-ID": "e:7"}))
    assert (request.after, request.epoch, request.at) == (7, "e", None)


def test_an_empty_last_event_id_is_none() -> None:
    request, _ = company_request("c", b"after=41&epoch=x", Headers({"Last-Event-ID": ""}))
    assert request.after == 41


@pytest.mark.parametrize("event_id", ["7", "e", "e:", ":7", "e:-1", "e:x", "e:٣", "e: 7", "e:07"])
def test_an_id_that_is_none_of_ours_is_a_problem(event_id: str) -> None:
    headers = Headers(raw=[(b"last-event-id", event_id.encode())])
    with pytest.raises(Problem) as raised:
        company_request("c", b"", headers)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "query",
    [
        b"after=x",
        b"after=-1",
        b"after=1.5",
        b"after=1.0",
        b"after=1e0",
        b"after=01",
        b"after=%D9%A3",
        b"after=1&after=2",
        b"wait=-1",
        b"wait=x",
        b"wait=%d" % (LONGEST_WAIT + 1),
        b"epoch=%FF",
        b"epoch=\xff",
        b"after=" + b"9" * 5000,
        b"&".join(b"a%d=1" % number for number in range(101)),
    ],
)
def test_a_parameter_that_is_not_valid_is_a_problem(query: bytes) -> None:
    with pytest.raises(Problem) as raised:
        company_request("c", query, NONE)
    assert raised.value.status == 400


@pytest.mark.parametrize("segment", ["", "%FF", "%00", "%ED%A0%80", "x" * 201])
def test_what_cannot_be_an_id_is_a_problem(segment: str) -> None:
    with pytest.raises(Problem) as raised:
        company_request(segment, b"", NONE)
    assert raised.value.status == 400


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "])
def test_the_token_is_in_authorization(value: str) -> None:
    assert bearer_token(Headers({"Authorization": value}), None, ANY) == "a.b.c"


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [b""],
        [b"a.b.c"],
        [b"Bearer"],
        [b"Bearer "],
        [b"Basic a"],
        [b"Bearer a", b"Bearer a"],
    ],
)
def test_without_a_bearer_token_the_request_is_unauthorized(raw: list[bytes]) -> None:
    headers = Headers(raw=[(b"authorization", value) for value in raw])
    with pytest.raises(Problem) as raised:
        bearer_token(headers, None, ANY)
    assert raised.value.status == 401
    assert raised.value.headers["WWW-Authenticate"] == "Bearer"


APP = "https://app.example"
LISTED = Cors((APP,), credentials=True)


@pytest.mark.parametrize(
    ("cors", "headers", "accepted"),
    [
        (LISTED, {"Origin": APP}, True),
        (LISTED, {"Origin": "https://evil.example"}, False),
        (LISTED, {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        (LISTED, {}, False),
        (LISTED, {"Sec-Fetch-Site": "same-origin"}, True),
        (LISTED, {"Sec-Fetch-Site": "same-site"}, False),
        (LISTED, {"Sec-Fetch-Site": "cross-site"}, False),
        (LISTED, {"Sec-Fetch-Site": "none"}, False),
        (ANY, {"Origin": APP}, False),
        (ANY, {"Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_the_cookie_is_accepted_from_pages_that_are_trusted(
    cors: Cors, headers: dict[str, str], accepted: bool
) -> None:
    given = Headers({"Cookie": "a=b; session=a.b.c", **headers})
    if accepted:
        assert bearer_token(given, "session", cors) == "a.b.c"
        return
    with pytest.raises(Problem) as raised:
        bearer_token(given, "session", cors)
    assert raised.value.status == 401


@pytest.mark.parametrize("cookie", ["session=a; session=b", "session=", "xsession=a", "Session=a"])
def test_a_cookie_of_another_name_or_two_of_this_one_are_none(cookie: str) -> None:
    headers = Headers({"Cookie": cookie, "Origin": APP})
    with pytest.raises(Problem):
        bearer_token(headers, "session", LISTED)


def test_no_cookie_is_read_unless_it_is_configured() -> None:
    headers = Headers({"Cookie": "session=a.b.c", "Sec-Fetch-Site": "same-origin"})
    with pytest.raises(Problem):
        bearer_token(headers, None, LISTED)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", POLL),
        ("*/*", POLL),
        ("application/json", POLL),
        ("application/*", POLL),
        ("text/event-stream", STREAM),
        ("Text/Event-Stream", STREAM),
        ("text/*", STREAM),
        ("text/event-stream, */*", STREAM),
        ("application/json, text/event-stream", POLL),
        ("application/json;q=0.5, text/event-stream", STREAM),
        ("application/json, text/event-stream;q=0.5", POLL),
        ("text/event-stream;q=0, */*", POLL),
        ("text/html,application/xhtml+xml,*/*;q=0.8", POLL),
    ],
)
def test_the_form_is_the_one_that_the_client_prefers(accept: str, kind: str) -> None:
    assert media_type(Headers({"Accept": accept})) == kind


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream;q=0", "*/*;q=0", "json"])
def test_a_client_that_accepts_neither_form_is_refused(accept: str) -> None:
    with pytest.raises(Problem) as raised:
        media_type(Headers({"Accept": accept}))
    assert raised.value.status == 406


def test_an_accept_header_may_be_as_long_as_programs_send_and_not_longer() -> None:
    """It is compared part by part before the token is looked at."""
    accept = "text/event-stream".rjust(1000, ",")
    assert media_type(Headers({"Accept": accept})) == STREAM
    for longer in (Headers({"Accept": f",{accept}"}), Headers(raw=[(b"accept", b"a")] * 1000)):
        with pytest.raises(Problem) as raised:
            media_type(longer)
        assert raised.value.status == 400
