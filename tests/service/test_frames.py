"""Frames that no honest client sends: each ends its own socket, with a code, and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.clients import Client
from tests.conftest import Connect
from tests.service.calendars import Calendar
from tests.service.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, Raw, frame
from tests.services import Service, token

PING_TEXT = b'{"type": "ping"}'


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason)


WRONG = {
    "unmasked": frame(TEXT, PING_TEXT, mask=False),
    "unmasked ping": frame(PING, mask=False),
    "first reserved bit": frame(TEXT, PING_TEXT, rsv=4),
    "second reserved bit": frame(TEXT, PING_TEXT, rsv=2),
    "third reserved bit": frame(TEXT, PING_TEXT, rsv=1),
    "reserved bit in a ping": frame(PING, rsv=4),
    **{
        f"reserved opcode {opcode}": frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "long ping": frame(PING, b"x" * 126),
    "long pong": frame(PONG, b"x" * 126),
    "long close": closing(1000, b"x" * 124),
    "fragmented ping": frame(PING, fin=False),
    "fragmented close": frame(CLOSE, fin=False),
    "continuation of nothing": frame(CONT, PING_TEXT),
    "continuation after the end": frame(TEXT, PING_TEXT) + frame(CONT, PING_TEXT),
    "text in a text": frame(TEXT, b"{", fin=False) + frame(TEXT, PING_TEXT),
    "binary in a text": frame(TEXT, b"{", fin=False) + frame(BINARY, PING_TEXT),
    "close of one byte": frame(CLOSE, b"\x03"),
    **{
        f"close with {code}": closing(code)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
async def test_d8_a_frame_that_breaks_the_protocol_is_closed_with_1002(
    service: Service, raw: Raw, data: bytes
) -> None:
    client = await raw.upgrade(service)
    await client.send(data)
    assert await client.code() == 1002
    assert await client.ended() == b""


@pytest.mark.parametrize(
    "data",
    [
        closing(1000, b"\xff"),
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONT, b"\xff"),
        frame(TEXT, b"\xe2", fin=False) + frame(PING) + frame(CONT, b"\x28\xa1"),
    ],
    ids=["in a close", "split", "split around a ping"],
)
async def test_d7_bytes_that_are_no_text_are_closed_with_1007(
    service: Service, raw: Raw, data: bytes
) -> None:
    client = await raw.upgrade(service)
    await client.send(data)
    assert await client.code() == 1007
    assert await client.ended() == b""


@pytest.mark.parametrize("length", [64 * 1024 + 1, 1 << 31, (1 << 64) - 1])
async def test_d6_a_header_that_promises_too_much_is_enough_for_1009(
    service: Service, raw: Raw, length: int
) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(TEXT, b"x", length=length))
    assert await client.code() == 1009


async def test_d5_fragments_that_are_too_big_together_are_closed_with_1009(
    service: Service, raw: Raw
) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(TEXT, b"x" * 60_000, fin=False) + frame(CONT, b"x" * 60_000))
    assert await client.code() == 1009


async def test_d5_a_fragmented_message_is_received_and_a_ping_inside_it_answered(
    service: Service, raw: Raw
) -> None:
    client = await raw.upgrade(service)
    pieces = [bytes([byte]) for byte in PING_TEXT]
    data = frame(TEXT, pieces[0], fin=False)
    data += b"".join(frame(CONT, piece, fin=False) for piece in pieces[1:])
    await client.send(data + frame(PING, b"still there?") + frame(CONT))
    assert await client.frame() == (PONG, b"still there?")
    assert await client.frame() == (TEXT, b'{"Type":"Pong"}')


async def test_d7_a_character_that_is_cut_in_two_is_received_whole(
    service: Service, raw: Raw
) -> None:
    client = await raw.upgrade(service)
    sent = json.dumps(
        {"type": "ping", "pad": "\u00fc\u20ac\U0001f5dd"}, ensure_ascii=False
    ).encode()
    for cut in range(1, len(sent)):
        await client.send(frame(TEXT, sent[:cut], fin=False) + frame(CONT, sent[cut:]))
        assert await client.frame() == (TEXT, b'{"Type":"Pong"}')


async def test_bytes_may_come_one_by_one(service: Service, raw: Raw) -> None:
    client = await raw.upgrade(service)
    for byte in frame(TEXT, PING_TEXT):
        await client.send(bytes([byte]))
    assert await client.frame() == (TEXT, b'{"Type":"Pong"}')


async def test_messages_in_one_packet_are_handled_in_order(
    service: Service, calendar: Calendar, raw: Raw
) -> None:
    company = await calendar.company("u1")
    sent = (
        {"type": "authenticate", "token": token("u1")},
        {"type": "setCompany", "data": {"companyId": company}},
        {"type": "ping"},
    )
    client = await raw.upgrade(service)
    await client.send(b"".join(frame(TEXT, json.dumps(message).encode()) for message in sent))
    answers = [json.loads((await client.frame()).payload)["Type"] for _ in sent]
    assert answers == ["AuthenticationResult", "SetCompanyResult", "Pong"]


async def test_a_pong_precedes_the_close_for_a_protocol_error(service: Service, raw: Raw) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(PING, b"1") + frame(3))
    assert await client.frame() == (PONG, b"1")
    assert await client.code() == 1002


@pytest.mark.parametrize("payload", [b"", b"x" * 125, bytes(range(125))])
async def test_d10_a_ping_is_echoed(service: Service, raw: Raw, payload: bytes) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(PING, payload))
    assert await client.frame() == (PONG, payload)


async def test_an_unsolicited_pong_is_ignored(service: Service, raw: Raw) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(PONG, b"hello") + frame(TEXT, PING_TEXT))
    assert await client.frame() == (TEXT, b'{"Type":"Pong"}')


@pytest.mark.parametrize("payload", [b"", (1000).to_bytes(2), (4999).to_bytes(2) + b"x" * 123])
async def test_a_close_is_echoed_and_the_connection_ended(
    service: Service, raw: Raw, payload: bytes
) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(CLOSE, payload) + frame(TEXT, PING_TEXT))
    assert await client.frame() == (CLOSE, payload)
    assert await client.ended() == b""


async def test_a_client_that_never_answers_a_close_is_gone_all_the_same(
    service: Service, raw: Raw
) -> None:
    client = await raw.upgrade(service)
    await client.send(frame(BINARY))
    assert await client.code() == 1003
    assert await client.ended() == b""


async def test_a_client_that_closes_its_half_is_gone(service: Service, raw: Raw) -> None:
    client = await raw.upgrade(service)
    client.finish()
    assert await client.ended() == b""


async def test_d8_a_protocol_error_of_one_client_disturbs_no_other(
    service: Service, calendar: Calendar, connect: Connect, raw: Raw
) -> None:
    company = await calendar.company("u1")
    witness: Client = await connect(service, "u1", company)
    for data in WRONG.values():
        await (await raw.upgrade(service)).send(data)
    await raw.drop()
    event = await calendar.event(company)
    assert (await witness.expect("EventCreated"))["Data"]["EventId"] == event
