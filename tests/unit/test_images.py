"""Row images that are not what JSON, or a company id, should be."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.companies import COMPANY_LIMIT
from notifier.relay import images
from notifier.relay.changes import EVERY_COMPANY
from notifier.relay.images import company_named
from notifier.relay.netting import net
from notifier.relay.rendering import ResyncDraft
from tests.unit.captured import JSON_VALUES, SOURCES, Values, change, messages_of, row, text_of

# --- images that are not JSON


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    "value",
    [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff"', b'{"\xc3": 1}', DEEP, b'"\xed\xa0\x80"'],
    ids=[
        "half a surrogate",
        "swapped halves",
        "invalid UTF-8",
        "invalid name",
        "deep nesting",
        "CESU",
    ],
)
@pytest.mark.parametrize(
    "place", [b'{"x":%s,"id":1,"company_id":"c"}', b'{"id":1,"company_id":"c","x":%s}']
)
def test_a_row_that_is_not_json_is_sent_by_its_keys_and_stops_no_other(
    value: bytes, place: bytes
) -> None:
    first, invalid, last = messages_of(
        change(1, None, row(key=0)), change(2, None, place % value), change(3, None, row(key=2))
    )
    assert invalid["Data"] == {"EventId": 1, "CompanyId": "c"}
    assert invalid["Partial"] is True
    assert [first["Data"]["EventId"], last["Data"]["EventId"]] == [0, 2]


@pytest.mark.parametrize("depth", [399, 400, 960, 975])
async def test_whether_a_row_is_sent_whole_does_not_depend_on_the_stack_of_its_reader(
    depth: int,
) -> None:
    """A batch of many changes is netted in a thread, where decoders accept more than on the event loop of a node."""
    brackets = b"[" * (depth // 2) + b'{"[\\"[":' * (depth - depth // 2)
    value = brackets + b'"{"' + b"}" * (depth - depth // 2) + b"]" * (depth // 2)
    deep = change(1, None, b'{"id":1,"company_id":"c","x":%b}' % value)
    (message,) = await asyncio.to_thread(messages_of, deep)
    assert message.get("Partial", False) is (depth > 399)


@pytest.mark.parametrize(
    "value", [rb'"\u0000"', rb'"\ud83d\ude00"', rb'"\\ud800"', b'{"a":1,"a":2}', b'"\xe2\x80\xa8"']
)
def test_unusual_but_valid_json_is_sent_whole(value: bytes) -> None:
    (message,) = messages_of(change(1, None, b'{"id":1,"company_id":"c","x":%s}' % value))
    assert message["Data"]["X"] == json.loads(value)
    assert "Partial" not in message


@given(JSON_VALUES, JSON_VALUES, st.sampled_from([1, "k", 'a"}],{[:\\', 12345678901234567890]))
def test_the_keys_of_a_row_that_is_not_json_are_found_anywhere(
    before: Any, after: Any, key: Any
) -> None:
    image = json.dumps({"before": before, "id": key, "x": 0, "company_id": "c", "after": after})
    invalid = image.encode().replace(b'"x": 0', rb'"x": "\ud800"', 1)
    (message,) = messages_of(change(1, None, invalid))
    expected = key if isinstance(key, str) or abs(key) <= 2**53 else str(key)
    assert message["Data"] == {"EventId": expected, "CompanyId": "c"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, {"id": 1}),
        ({"company_id": "c"}, None),
        (None, None),
        (None, b'{"id":1,"x":"\\ud800"}'),
    ],
    ids=["no company", "no key", "no images", "not JSON_VALUES and no company"],
)
def test_a_change_without_a_company_is_a_resync_for_every_company(
    old: Values | None, new: Values | bytes | None
) -> None:
    bare = old is None and new is None
    changes = [change(number, old, new, partial=bare) for number in (1, 2)]
    drafts, unattributed = net(changes, SOURCES, 1000)
    (draft,) = drafts
    assert unattributed == 2
    assert draft.company == EVERY_COMPANY
    assert draft.revokes == ("*",)
    assert text_of(draft)["Type"] == "Resync"


# --- companies


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'"c"', "c"),
        (b"9007199254740993", "9007199254740993"),
        (b'"5AF3C0DE-0000-4000-8000-00000000000A"', "5af3c0de-0000-4000-8000-00000000000a"),
        (b'"Mixed Case"', "Mixed Case"),
        (rb'"a\"\\\u00fc"', 'a"\\ü'),
        (b'"*"', "*"),
        (b'""', None),
        (b'"%s"' % (b"c" * 201), None),
        (b'"%s"' % (b"c" * 200), "c" * 200),
        (rb'"\ud800"', None),
        (rb'"a\u0000"', None),
        (rb'{"a":"\ud800"}', None),
        (rb'{"a":"\u00fc"}', rb'{"a":"\u00fc"}'.decode()),
    ],
)
def test_a_company_is_any_text_that_a_client_can_subscribe_to(
    value: bytes, name: str | None
) -> None:
    assert company_named(value) == name
    assert company_named(value) != EVERY_COMPANY


def test_a_row_without_a_company_sends_nothing() -> None:
    assert messages_of(change(1, None, row(None)), change(2, row(None), None)) == []


def test_an_id_that_no_company_can_have_is_not_kept() -> None:
    """Ten thousand of them, of megabytes each, would fill the memory."""
    before = images._company_named.cache_info().currsize
    assert images.company_named(b'"%b"' % (b"x" * 100_000)) is None
    assert images._company_named.cache_info().currsize == before
    longest = "\U0001f600" * COMPANY_LIMIT
    assert images.company_named(json.dumps(longest).encode()) == longest


@pytest.mark.parametrize("value", [DEEP, rb'"\ud800"', rb'{"a":["\ud800"]}'])
def test_a_key_that_no_reader_takes_is_a_resync_for_every_company(value: bytes) -> None:
    """Of a column that was given the type json: nodes and clients would get a message that they cannot read."""
    ((draft,), unattributed) = net(
        [change(1, None, b'{"id":%b,"company_id":"c"}' % value)], SOURCES, 1000
    )
    assert isinstance(draft, ResyncDraft)
    assert (draft.company, draft.reason, unattributed) == (EVERY_COMPANY, "overflow", 1)
