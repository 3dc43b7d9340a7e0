"""Where MEMBERSHIP_QUERY decides, updates of member rows cause re-checks, and no other messages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from notifier.delivery.recheck_rule import RecheckRule
from notifier.messages import Message
from notifier.watches import CALENDAR, Watch

BODIES = {
    "a member's row": (
        b'{"Type":"EmployeeUpdated","Data":{"EmployeeId":1,"UserId":"u1"}}',
        ("u1",),
    ),
    "keys in another order": (
        b'{"Position":3,"Data":{"UserId":"u1","EmployeeId":1},"Type":"EmployeeUpdated"}',
        ("u1",),
    ),
    "spaces": (b'{ "Type" : "EmployeeUpdated" , "Data": { "UserId" : "u1" } }', ("u1",)),
    "a number for a user": (b'{"Type":"EmployeeUpdated","Data":{"UserId":7}}', ("7",)),
    "a row without a user": (b'{"Type":"EmployeeUpdated","Data":{"UserId":null}}', ()),
    "keys only": (b'{"Type":"EmployeeUpdated","Data":{"EmployeeId":1},"Partial":true}', ("*",)),
    "many changes at once": (b'{"Type":"Resync","Data":{"Reason":"bulk"}}', ("*",)),
    "another row": (b'{"Type":"EventUpdated","Data":{"UserId":"u1"}}', ()),
    "a type that begins alike": (b'{"Type":"EmployeeUpdatedTwice","Data":{"UserId":"u1"}}', ()),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=list(BODIES))
def test_an_update_of_a_member_row_causes_a_recheck_of_its_user(
    body: bytes, expected: tuple[str, ...]
) -> None:
    now = datetime.now(UTC)
    rule = RecheckRule(CALENDAR)
    checked = rule(Message(1, "c", 1, now, now, body))
    assert checked.revokes == expected
    assert (checked.company, checked.position, checked.body) == ("c", 1, body)
    lost = Message(2, "c", 2, now, now, body, ("u0",))
    both = expected if b"Resync" in body else ("u0", *expected)
    assert rule(lost).revokes == both


def test_the_rule_follows_new_watches() -> None:
    now = datetime.now(UTC)
    rule = RecheckRule(CALENDAR)
    rule.use([Watch(table="people", entity="Person", member="login", updated="PersonMoved")])
    moved = Message(1, "c", 1, now, now, b'{"Type":"PersonMoved","Data":{"Login":"u1"}}')
    assert rule(moved).revokes == ("u1",)
    updated = Message(2, "c", 2, now, now, b'{"Type":"EmployeeUpdated","Data":{"UserId":"u1"}}')
    assert rule(updated).revokes == ()
