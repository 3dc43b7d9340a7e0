"""What a client says and what it is answered: the exact words of the protocol."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.clients import Client
from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar
from tests.service.raw import CLOSE, Raw, frame, handshake
from tests.services import Service, token

UTC_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def keys(message: dict[str, Any]) -> list[str]:
    return list(message)


async def last_words(client: Client) -> dict[str, Any]:
    """The Disconnect that came before the close, whose codes agree; without its sentence."""
    code = await client.closed()
    sent_message = client.messages[-1]
    assert keys(sent_message) == ["Type", "Data"]
    assert sent_message["Type"] == "Disconnect"
    assert sent_message["Data"]["Code"] == code
    assert sent_message["Data"]["Reason"] == client.socket.close_reason
    return {name: value for name, value in sent_message["Data"].items() if name != "Reason"}


# --- authenticate


async def test_a_valid_token_is_answered_with_user_and_expiry(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    expires = int(time.time()) + 3600
    answer = await client.authenticate("u1", exp=expires)
    assert keys(answer) == ["Type", "Success", "Data"]
    assert answer["Success"] is True
    assert keys(answer["Data"]) == ["UserId", "ExpiresAt"]
    assert answer["Data"]["UserId"] == "u1"
    assert answer["Data"]["ExpiresAt"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))


@pytest.mark.parametrize("bad", ["", "x", "a.b.c", "🗝", "\0", token("u1")[:-4] + "AAAA"])
async def test_a_bad_token_is_refused_and_closed_with_4401(
    service: Service, connect: Connect, bad: str
) -> None:
    client = await connect(service)
    answer = await client.authenticate(token=bad)
    assert keys(answer) == ["Type", "Success", "Error"]
    assert answer["Success"] is False
    assert keys(answer["Error"]) == ["Code", "Message"]
    assert answer["Error"]["Code"] == "token_invalid"
    assert await last_words(client) == {"Code": 4401, "Reconnect": False}


async def test_an_expired_token_is_refused_and_closed_with_4419(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    answer = await client.authenticate("u1", ttl=-60)
    assert answer["Error"]["Code"] == "token_expired"
    assert await last_words(client) == {"Code": 4419, "Reconnect": True, "RetryAfterMs": 0}


async def test_the_same_user_may_authenticate_again_for_longer(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    answer = await client.authenticate("u1", exp=4102444800)
    assert answer["Data"]["ExpiresAt"] == "2100-01-01T00:00:00Z"
    event = await calendar.event(company)
    assert (await client.expect("EventCreated"))["Data"]["EventId"] == event


async def test_c7_another_user_on_the_same_socket_is_closed_with_4409(
    service: Service, connect: Connect
) -> None:
    client = await connect(service, "u1")
    await client.send({"type": "authenticate", "token": token("u2")})
    assert await last_words(client) == {"Code": 4409, "Reconnect": False}


async def test_c1_a_client_that_does_not_authenticate_in_time_is_closed_with_4408(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, auth_timeout_seconds=4)
    client, talker = await connect(service), await connect(service)
    await talker.quiet()
    assert await last_words(client) == {"Code": 4408, "Reconnect": True, "RetryAfterMs": 1000}
    assert await talker.closed() == 4408


async def test_an_authenticated_client_is_not_closed_by_the_auth_timeout(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, auth_timeout_seconds=5)
    early, late = await connect(service, "u1"), await connect(service)
    assert await late.closed() == 4408
    await early.quiet()


async def test_c6_a_token_is_announced_to_expire_and_then_expires(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, jwt_leeway_seconds=0)
    client = await connect(service)
    answer = await client.authenticate("u1", ttl=5)
    warning = await client.expect("TokenExpiring")
    assert keys(warning) == ["Type", "Data"]
    assert warning["Data"] == {"ExpiresAt": answer["Data"]["ExpiresAt"]}
    assert UTC_SECONDS.fullmatch(warning["Data"]["ExpiresAt"])
    assert await last_words(client) == {"Code": 4419, "Reconnect": True, "RetryAfterMs": 0}


async def test_c7_a_new_token_after_the_warning_keeps_the_socket(
    database: Database, serve: Serve, connect: Connect
) -> None:
    """The warning comes after four of five seconds. With the leeway a busy machine has as many for the new token."""
    service = await serve(database, jwt_leeway_seconds=3)
    renewed, left = await connect(service), await connect(service)
    await renewed.authenticate("u1", ttl=5)
    await left.authenticate("u2", ttl=6)
    await renewed.expect("TokenExpiring")
    await renewed.authenticate("u1")
    assert await left.closed() == 4419
    await renewed.quiet()


# --- setCompany


async def test_a_company_is_acknowledged_with_its_position_and_epoch(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1", "u2")
    client = await connect(service, "u1")
    answer = await client.set_company(company)
    assert keys(answer) == ["Type", "Success", "Data"]
    assert answer["Success"] is True
    assert keys(answer["Data"]) == ["CompanyId", "Position", "Epoch", "At"]
    assert answer["Data"]["CompanyId"] == company
    assert answer["Data"]["Position"] == 2
    assert re.fullmatch(r"[0-9a-f]+", answer["Data"]["Epoch"])


async def test_an_unchanged_company_is_at_position_zero(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service = await serve(database, authorization="claim")
    client = await connect(service, "u1", "never written to", companies=["never written to"])
    assert client.position == 0


async def test_a_company_is_matched_without_regard_to_the_case_of_a_uuid(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1")
    answer = await client.set_company(company.upper())
    assert answer["Data"]["CompanyId"] == company
    await calendar.event(company)
    await client.expect("EventCreated")


async def test_c8_before_authentication_there_is_no_company(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service)
    await client.send({"type": "setCompany", "data": {"companyId": company}})
    answer = await client.expect("Error")
    assert keys(answer) == ["Type", "Error"]
    assert keys(answer["Error"]) == ["Code", "Message"]
    assert answer["Error"]["Code"] == "not_authenticated"
    await calendar.event(company)
    await client.quiet()


async def test_c8_a_foreign_company_and_one_that_does_not_exist_are_refused_alike(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    foreign = await calendar.company("u2")
    client = await connect(service, "u1")
    answers = [
        await client.set_company(company)
        for company in (foreign, "00000000-0000-0000-0000-000000000001", "no uuid", "42")
    ]
    assert keys(answers[0]) == ["Type", "Success", "Error"]
    assert answers[0]["Error"]["Code"] == "company_forbidden"
    assert all(answer == answers[0] for answer in answers)


async def test_a_refusal_leaves_the_company_that_was_followed(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    own, foreign = await calendar.company("u1"), await calendar.company("u2")
    client = await connect(service, "u1", own)
    assert not (await client.set_company(foreign))["Success"]
    await calendar.event(foreign, "foreign")
    await calendar.event(own, "own")
    assert (await client.expect("EventCreated"))["Data"]["Title"] == "own"


async def test_c8_ten_refused_companies_are_tolerated_and_no_more(
    service: Service, connect: Connect
) -> None:
    client = await connect(service, "u1")
    for _ in range(10):
        assert not (await client.set_company("another company"))["Success"]
    await client.send({"type": "setCompany", "data": {"companyId": "another company"}})
    assert await last_words(client) == {"Code": 4403, "Reconnect": False}


async def test_another_company_takes_the_place_of_the_first(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    first, second = await calendar.company("u1"), await calendar.company("u1")
    client = await connect(service, "u1", first)
    await calendar.event(first, "one")
    await client.expect("EventCreated")
    await client.set_company(second)
    await calendar.event(first, "two")
    await calendar.event(second, "three")
    message = await client.expect("EventCreated")
    assert (message["Data"]["CompanyId"], message["Data"]["Title"]) == (second, "three")


async def test_c8_going_to_and_fro_a_thousand_times_ends_at_the_last_company(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    """Ninety times a socket, for more is too much for one; every third time from the beginning."""
    companies = [await calendar.company("u1") for _ in range(2)]
    epoch = (await connect(service, "u1", companies[0])).epoch
    writing = True

    async def write() -> None:
        turn = 0
        while writing:
            await calendar.event(companies[turn % 2])
            turn += 1

    async def roam() -> None:
        client = await connect(service, "u1")
        for turn in range(90):
            data: dict[str, Any] = {"companyId": companies[turn % 2]}
            if turn % 3 == 0:
                data |= {"after": 0, "epoch": epoch}
            await client.send({"type": "setCompany", "data": data})
        for _ in range(90):
            await client.next("SetCompanyResult")
        clients.append(client)

    clients: list[Client] = []
    writer = asyncio.create_task(write())
    await asyncio.gather(*(roam() for _ in range(12)))
    writing = False
    await writer
    await calendar.event(companies[0], "left")
    await calendar.event(companies[1], "followed")
    for client in clients:
        arrived = await client.received(
            lambda messages: messages[-1].get("Data", {}).get("Title") == "followed"
        )
        current, position = "", 0
        for message in arrived:
            if message["Type"] == "SetCompanyResult":
                current, position = message["Data"]["CompanyId"], message["Data"]["Position"]
            elif "Position" in message:
                assert message["Data"]["CompanyId"] == current
                assert message["Position"] == position + 1
                position += 1
                assert message["Data"].get("Title") != "left"


# --- ping, and what is not understood


async def test_a_ping_is_answered(service: Service, connect: Connect) -> None:
    client = await connect(service)
    await client.send({"type": "ping"})
    assert await client.expect("Pong") == {"Type": "Pong"}


async def test_d11_keys_are_matched_without_regard_to_case(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service)
    await client.send({"TYPE": "authenticate", "Token": token("u1"), "unknown": None})
    assert (await client.expect("AuthenticationResult"))["Success"]
    await client.send({"Type": "setCompany", "DATA": {"COMPANYID": company, "Extra": [1]}})
    assert (await client.expect("SetCompanyResult"))["Success"]
    await client.send({"tYpE": "ping"})
    await client.expect("Pong")


@pytest.mark.parametrize("kind", ["Ping", "AUTHENTICATE", "setcompany", "", "__proto__", "a" * 999])
async def test_d11_types_are_matched_exactly(service: Service, connect: Connect, kind: str) -> None:
    client = await connect(service)
    await client.send({"type": kind})
    answer = await client.expect("Error")
    assert answer["Error"]["Code"] == "unknown_type"
    await client.quiet()


MALFORMED = [
    "",
    " ",
    "\ufeff{}",
    "ping",
    "null",
    "7",
    '"ping"',
    "[]",
    "{}",
    '{"type"',
    '{"type": "ping",}',
    "{'type': 'ping'}",
    '{"type": "ping"} {"type": "ping"}',
    '{"type": null}',
    '{"type": 7}',
    '{"type": ["ping"]}',
    '{"type": NaN}',
    '{"type": Infinity}',
    '{"type": "\\ud800"',
    '{"type": "authenticate"}',
    '{"type": "authenticate", "token": null}',
    '{"type": "authenticate", "token": {"token": "x"}}',
    '{"type": "setCompany"}',
    '{"type": "setCompany", "data": []}',
    '{"type": "setCompany", "data": {}}',
    '{"type": "setCompany", "data": {"companyId": null}}',
    '{"type": "setCompany", "data": {"companyId": true}}',
    '{"type": "setCompany", "data": {"companyId": 1.5}}',
    '{"type": "setCompany", "data": {"companyId": ""}}',
    '{"type": "setCompany", "data": {"companyId": "\\u0000"}}',
    '{"type": "setCompany", "data": {"companyId": ["a"]}}',
    '{"type": "setCompany", "data": {"companyId": "a", "after": -1, "epoch": "e"}}',
    '{"type": "setCompany", "data": {"companyId": "a", "after": "1", "epoch": "e"}}',
    '{"type": "setCompany", "data": {"companyId": "a", "after": true, "epoch": "e"}}',
    '{"type": "setCompany", "data": {"companyId": "a", "after": 1.5, "epoch": "e"}}',
    '{"type": "setCompany", "data": {"companyId": "a", "after": 1, "epoch": 7}}',
    '{"type": "setCompany", "data": {"companyId": "' + "a" * 201 + '"}}',
    "[" * 8000,
    '{"type":' * 2000,
    '{"type": ' + "9" * 5000 + "}",
    '{"type": "setCompany", "data": {"companyId": ' + "9" * 5000 + "}}",
    '{"type": 1e999999}',
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
async def test_d11_malformed_messages_are_answered_with_an_error(
    service: Service, connect: Connect, text: str
) -> None:
    client = await connect(service, "u1")
    await client.send(text)
    answer = await client.expect("Error")
    assert keys(answer) == ["Type", "Error"]
    assert keys(answer["Error"]) == ["Code", "Message"]
    assert answer["Error"]["Code"] == "malformed"
    await client.quiet()


@pytest.mark.parametrize(
    "company", ["9" * 200, "\u2028", "🗓", "1 OR 1=1", "%s", "{}", "$1", "a'; --", "\\ud83d\\ude00"]
)
async def test_any_other_text_may_be_a_company(
    service: Service, connect: Connect, company: str
) -> None:
    client = await connect(service, "u1")
    answer = await client.set_company(company)
    assert answer["Error"]["Code"] == "company_forbidden"


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff x", "\\ud83d\\u0041"])
async def test_d11_a_lone_surrogate_is_malformed_wherever_it_stands(
    service: Service, connect: Connect, escape: str
) -> None:
    client = await connect(service, "u1")
    for sent_message in (
        f'{{"type": "{escape}"}}',
        f'{{"type": "authenticate", "token": "{escape}"}}',
        f'{{"type": "setCompany", "data": {{"companyId": "{escape}"}}}}',
        f'{{"type": "setCompany", "data": {{"companyId": "a", "after": 0, "epoch": "{escape}"}}}}',
    ):
        await client.send(sent_message)
        assert (await client.expect("Error"))["Error"]["Code"] == "malformed"
    await client.quiet()


async def test_d11_of_a_repeated_key_the_last_counts(service: Service, connect: Connect) -> None:
    client = await connect(service)
    await client.send('{"type": "nonsense", "type": "ping"}')
    await client.expect("Pong")


async def test_d11_ten_malformed_messages_are_tolerated_and_no_more(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    for _ in range(10):
        await client.send("{")
        await client.expect("Error")
    await client.quiet()
    await client.send("{")
    assert await last_words(client) == {"Code": 4400, "Reconnect": False}


async def test_d11_a_hundred_messages_in_ten_seconds_are_accepted_and_no_more(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    for _ in range(100):
        await client.send({"type": "ping"})
    for _ in range(100):
        await client.expect("Pong")
    await client.send({"type": "ping"})
    assert await last_words(client) == {"Code": 4429, "Reconnect": True, "RetryAfterMs": 10_000}


# --- frames that cannot be messages


async def test_d9_a_binary_message_is_closed_with_1003(service: Service, connect: Connect) -> None:
    client = await connect(service, "u1")
    await client.send(b'{"type": "ping"}')
    assert await last_words(client) == {"Code": 1003, "Reconnect": False}


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'{"type": "\xc3"}']
)
async def test_d7_invalid_utf8_is_closed_with_1007(
    service: Service, connect: Connect, data: bytes
) -> None:
    client = await connect(service, "u1")
    await client.socket.send(data, text=True)
    assert await client.closed() == 1007


def padded(size: int) -> str:
    """A ping of so many bytes."""
    empty = json.dumps({"type": "ping", "pad": ""})
    return json.dumps({"type": "ping", "pad": "x" * (size - len(empty))})


@pytest.mark.parametrize("user", [None, "u1"])
async def test_d6_a_message_has_at_most_64_kib(
    service: Service, connect: Connect, user: str | None
) -> None:
    client = await connect(service, user)
    await client.send(padded(64 * 1024))
    await client.expect("Pong")
    await client.send(padded(64 * 1024 + 1))
    assert await client.closed() == 1009


async def test_d6_a_token_with_many_companies_is_large(service: Service, connect: Connect) -> None:
    companies = [f"{number:08}-0000-4000-8000-000000000000" for number in range(1100)]
    large = token("u1", companies)
    assert len(large) > 50_000
    client = await connect(service)
    await client.send({"type": "authenticate", "token": large})
    assert (await client.expect("AuthenticationResult"))["Success"]


async def test_d6_the_limit_is_counted_in_bytes_not_characters(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    await client.send('{"type": "ping", "pad": "' + "€" * 21_800 + '"}')
    await client.expect("Pong")
    await client.send('{"type": "ping", "pad": "' + "€" * 21_900 + '"}')
    assert await client.closed() == 1009


@pytest.mark.parametrize("size", [100_000, 5_000_000])
async def test_d6_a_client_that_sends_far_too_much_reads_why(
    service: Service, connect: Connect, size: int
) -> None:
    client = await connect(service)
    await client.send("x" * size)
    assert await client.closed() == 1009


# --- leaving


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_client_that_leaves_is_echoed(
    service: Service, calendar: Calendar, connect: Connect, code: int
) -> None:
    client = await connect(service, "u1", await calendar.company("u1"))
    await client.socket.close(code, "bye")
    assert await client.closed() == code


async def test_nothing_comes_after_the_answer_to_a_close(
    service: Service, calendar: Calendar, raw: Raw
) -> None:
    company = await calendar.company("u1")
    client = await raw.upgrade(service)
    await client.send_text(json.dumps({"type": "authenticate", "token": token("u1")}))
    await client.send_text(json.dumps({"type": "setCompany", "data": {"companyId": company}}))
    await client.frame()
    await client.frame()
    await client.send(frame(CLOSE, (1000).to_bytes(2)))
    await calendar.event(company)
    assert (await client.frame()).opcode == CLOSE
    assert await client.ended() == b""


# --- origins


@pytest.mark.parametrize("origin", ["https://app.example", "http://localhost:3000"])
async def test_c13_a_browser_from_an_allowed_origin_is_let_in(
    database: Database, serve: Serve, connect: Connect, origin: str
) -> None:
    service = await serve(database, allowed_origins="https://app.example, http://localhost:3000")
    client = await connect(service, "u1", origin=origin)
    await client.quiet()


LOOK_ALIKES = [
    *("null", "*", "https://evil.example", "https://app.example.evil.example"),
    *("https://evil-app.example", "https://sub.app.example", "https://app.example.", "app.example"),
    *("https://APP.example", "HTTPS://app.example", "http://app.example", "wss://app.example"),
    *("https://app.example:8443", "https://app.example:443", "https://app.example:"),
    *("https://app.example/", "https://app.example?", "https://app.example#", "https:app.example"),
    *(
        "https://u@app.example",
        "https://app.example@evil.example",
        "https://app.example%2eevil.example",
    ),
    *("https://xn--pp-9ia.example", "https://xn--app-0ra.example"),  # letters that look like ours
    *("https://app.example, https://app.example", "https://evil.example https://app.example"),
]


async def test_c13_another_origin_is_refused_in_the_handshake(
    database: Database, serve: Serve, connect: Connect, raw: Raw
) -> None:
    service = await serve(database, allowed_origins="https://app.example")
    for origin in LOOK_ALIKES:
        with pytest.raises(InvalidStatus) as refused:
            await connect(service, origin=origin)
        assert refused.value.response.status_code == 403, origin
    for origin in ("https://\xe4pp.example", "", "\xa0https://app.example"):
        odd = await raw.connect(service)
        await odd.send(handshake(f"Origin: {origin}\r\n"))
        assert (await odd.head())[:12] in {"HTTP/1.1 403", "HTTP/1.1 400"}, origin
    for other in ("https://evil.example", "https://app.example"):
        twice = await raw.connect(service)
        await twice.send(handshake(f"Origin: https://app.example\r\nOrigin: {other}\r\n"))
        assert (await twice.head()).startswith("HTTP/1.1 400 ")
    native = await connect(service, "u1")
    await native.quiet()


async def test_a_socket_elsewhere_than_at_the_root_is_refused(
    service: Service, connect: Connect
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(service.url + "elsewhere")
    assert refused.value.response.status_code in {403, 404}


# --- everybody at once


async def test_answers_go_only_to_the_client_that_sent_the_command(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1", "u2")
    clients = await asyncio.gather(*(connect(service, "u1", company) for _ in range(20)))
    listener = await connect(service, "u2", company)
    await asyncio.gather(*(client.quiet() for client in clients))
    await listener.quiet()
    assert len(listener.messages) == 3
