"""Where the token decides, it alone does; and whom an operator's query is asked about again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from notifier.access.membership import Doubts, Membership
from notifier.access.tokens import Identity
from notifier.companies import canonical, is_uuid
from notifier.database.query import Query
from notifier.messages import Message

UUID = "aaaaaaaa-0000-4000-8000-00000000000a"


@pytest.mark.parametrize("query", [None, "SELECT true"])
async def test_a_token_gives_the_companies_that_it_names_and_no_other(query: str | None) -> None:
    asker = Query("postgresql://nowhere", "test", pooled=False)
    membership = Membership(asker, "claim", query)
    named = Identity("u1", 1e12, frozenset({"a", "b"}))
    assert [await membership.may(named, company) for company in ("a", "b", "c", "")] == [
        True, True, False, False,
    ]  # fmt: skip
    for companies in (None, frozenset[str]()):
        assert not await membership.may(Identity("u1", 1e12, companies), "a")
    assert not membership.follows_rows
    assert not membership.definite
    assert asker.queries == 0


@pytest.mark.parametrize(
    "text",
    [UUID.replace("-", ""), f"{{{UUID}}}", UUID + "\n", UUID[:-1], UUID + "a", "g" + UUID[1:], ""],
)
def test_only_what_postgres_prints_is_a_uuid(text: str) -> None:
    assert is_uuid(UUID) is is_uuid(UUID.upper()) is True
    assert canonical(UUID.upper()) == canonical(UUID) == UUID
    assert is_uuid(text) is False
    assert canonical(text.upper()) == text.upper()


# --- what is a reason to ask an operator's query again

MEMBERS = {"EmployeeUpdated": "UserId"}
BODIES = {
    "a member's row": (
        b'{"Type":"EmployeeUpdated","Data":{"EmployeeId":1,"UserId":"u1"}}',
        ("u1",),
    ),
    "a number for a user": (b'{"Type":"EmployeeUpdated","Data":{"UserId":7}}', ("7",)),
    "a row of nobody's": (b'{"Type":"EmployeeUpdated","Data":{"UserId":null}}', ()),
    "keys only": (b'{"Type":"EmployeeUpdated","Data":{"EmployeeId":1},"Partial":true}', ("*",)),
    "many changes at once": (b'{"Type":"Resync","Data":{"Reason":"bulk"}}', ("*",)),
    "another row": (b'{"Type":"EventUpdated","Data":{"UserId":"u1"}}', ()),
    "a word that begins alike": (b'{"Type":"EmployeeUpdatedTwice","Data":{"UserId":"u1"}}', ()),
}


@pytest.mark.parametrize(("body", "doubted"), BODIES.values(), ids=list(BODIES))
def test_an_update_of_a_members_row_is_a_reason_to_ask_about_him_and_no_other(
    body: bytes, doubted: tuple[str, ...]
) -> None:
    now = datetime.now(UTC)
    message = Message(1, "c", 1, now, now, body)
    told = Doubts(MEMBERS).doubted(message)
    assert told.revokes == doubted
    assert (told.company, told.position, told.body) == ("c", 1, body)
    lost = Message(2, "c", 2, now, now, body, ("u0",))
    expected = doubted if doubted == ("*",) and b"Resync" in body else ("u0", *doubted)
    assert Doubts(MEMBERS).doubted(lost).revokes == expected
