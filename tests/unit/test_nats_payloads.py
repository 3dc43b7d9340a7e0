"""Payloads, subjects, signatures and heads: what goes through NATS, without NATS."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import _validate_subject

from notifier.messages import Message, View
from notifier.nats.heads import HEAD_SECONDS, Heads
from notifier.nats.payloads import (
    SIGNATURE,
    Messages,
    Seal,
    decode_messages,
    encode,
    encode_head,
    encode_messages,
)
from notifier.nats.subjects import LONGEST_TOKEN, company_subject, token

AT = datetime(2026, 11, 29, 9, 30, 0, 123456, UTC)
STORED = datetime(2026, 11, 29, 9, 30, 0, 200001, UTC)


def message(position: int, **changes: object) -> Message:
    body = b'{ "Position":%d,\n "Data": {"Note": "\xc3\xa4"}}' % position
    plain = Message(100 + position, "a.b", position, AT, STORED, body)
    return msgspec.structs.replace(plain, **changes)


# --- payloads


def test_every_field_of_a_message_comes_through() -> None:
    """A new field of Message must be added to the payload, and here."""
    view = View(frozenset({"u1", "\u00fc"}), others=True, body=b'{ "Position":8}')
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    messages = [
        message(7, revokes=("u1", "*")),
        message(8, views=(view, view)),
        message(9, traceparent=trace),
    ]
    assert Message.__struct_fields__ == (
        *("seq", "company", "position", "at", "stored", "body", "revokes", "views"),
        "traceparent",
    )
    payload = decode_messages(encode_messages("e", messages))
    assert (payload.epoch, payload.first, payload.position) == ("e", 7, 9)
    assert payload.after(6) == messages
    assert payload.after(7) == messages[1:]
    assert payload.after(9) == []


def test_a_head_has_a_position_and_no_messages() -> None:
    head = decode_messages(encode_head("e", "a.b", 8))
    assert (head.company_id, head.position, head.first, head.messages) == ("a.b", 8, 9, [])


def test_messages_without_their_entries_are_refused() -> None:
    body = msgspec.Raw(b"{}")
    for broken in (
        Messages("c", "e", 1, STORED, [], [body]),
        Messages(
            "c", "e", 1, None, decode_messages(encode_messages("e", [message(1)])).log, [body]
        ),
    ):
        with pytest.raises(msgspec.ValidationError):
            decode_messages(encode(broken))


# --- signatures


def headers(signature: str) -> bytes:
    return f"NATS/1.0\r\nOther: x\r\n{SIGNATURE}: {signature}\r\n\r\n".encode()


def test_a_signature_is_valid_for_its_key_subject_and_payload_only() -> None:
    seal = Seal(b"key")
    signature = seal.sign("s", b"payload")
    assert seal.is_valid("s", b"payload", headers(signature))
    assert not Seal(b"other").is_valid("s", b"payload", headers(signature))
    assert not seal.is_valid("s2", b"payload", headers(signature))
    assert not seal.is_valid("s", b"payload.", headers(signature))


@pytest.mark.parametrize(
    "raw", [b"", b"NATS/1.0\r\n\r\n", headers(""), headers("00"), headers("ä")]
)
def test_without_a_signature_nothing_is_valid(raw: bytes) -> None:
    assert not Seal(b"key").is_valid("s", b"payload", raw)


# --- subjects


@given(st.text())
def test_any_company_has_a_subject_of_three_tokens(company: str) -> None:
    subject = company_subject("notifier", company)
    _validate_subject(subject, strict=True)
    assert subject.isascii()
    assert subject.isprintable()
    assert subject.count(".") == 2
    assert "*" not in subject
    assert ">" not in subject
    assert len(token(company)) <= LONGEST_TOKEN


@given(st.text(), st.text())
def test_different_companies_have_different_subjects(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


def test_plain_ids_are_readable_in_subjects() -> None:
    company = "0b8f2c8e-5a53-4f3c-9a3e-0d4a7b1f6c11"
    assert company_subject("notifier", company) == f"notifier.company.{company}"
    assert token("a.b c") == "a%2Eb%20c"
    assert token("") == "%"
    assert token("x" * 201).startswith("%%")
    assert token("x" * 201) != token("x" * 202)


# --- heads


def test_a_head_is_due_after_the_last_message_and_again_some_times() -> None:
    heads = Heads()
    heads.sent("c", 1, 0.0)
    heads.sent("c", 2, 0.4)
    assert list(heads.due(0.6)) == []
    due, now = [], 0.9
    for step in range(len(HEAD_SECONDS) + 2):
        due += [(now, *head) for head in heads.due(now)]
        now += HEAD_SECONDS[min(step + 1, len(HEAD_SECONDS) - 1)]
    assert [head[1:] for head in due] == [("c", 2)] * len(HEAD_SECONDS)
    assert (due[0][0], due[-1][0]) == (0.9, 0.9 + sum(HEAD_SECONDS[1:]))


def test_a_message_after_a_head_makes_the_next_head_due_soon() -> None:
    heads = Heads()
    heads.sent("c", 1, 0.0)
    assert list(heads.due(0.5)) == [("c", 1)]
    heads.sent("c", 2, 0.6)
    assert list(heads.due(1.1)) == [("c", 2)]
    heads.sent("d", 1, 1.2)
    heads.clear()
    assert list(heads.due(99.0)) == []


def test_heads_of_quiet_companies_take_no_memory() -> None:
    heads = Heads()
    for number in range(100):
        heads.sent(str(number), 1, 0.0)
        heads.sent(str(number), 2, 0.1)
    for now in range(1, 20):
        list(heads.due(float(now)))
    assert (heads._heads, heads._queue) == ({}, [])
