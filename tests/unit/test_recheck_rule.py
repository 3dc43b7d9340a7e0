"""Where MEMBERSHIP_QUERY decides, changes of member rows cause re-checks, and no other messages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from notifier.delivery.recheck_rule import RecheckRule
from notifier.messages import Message
from notifier.watches import CALENDAR, Watch

BODIES = {
    "a new member row": (b'{"Type":"EmployeeAdded","Data":{"UserId":"u1"}}', ("*",)),
    "a member row": (b'{"Type":"EmployeeUpdated","Data":{"UserId":"u1"}}', ("*",)),
    "a member row that is gone": (b'{"Type":"EmployeeRemoved","Data":{"UserId":"u1"}}', ("*",)),
    "keys in another order": (
        b'{"Position":3,"Data":{"UserId":"u1","EmployeeId":1},"Type":"EmployeeUpdated"}',
        ("*",),
    ),
    "spaces": (b'{ "Type" : "EmployeeUpdated" , "Data": { "UserId" : "u1" } }', ("*",)),
    "a row without a user": (b'{"Type":"EmployeeUpdated","Data":{"UserId":null}}', ("*",)),
    "keys only": (b'{"Type":"EmployeeUpdated","Data":{"EmployeeId":1},"Partial":true}', ("*",)),
    "many changes at once": (b'{"Type":"Resync","Data":{"Reason":"bulk"}}', ("*",)),
    "another row": (b'{"Type":"EventUpdated","Data":{"UserId":"u1"}}', ()),
    "a type that begins alike": (b'{"Type":"EmployeeUpdatedTwice","Data":{"UserId":"u1"}}', ()),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=list(BODIES))
def test_case_f3_a_change_of_a_member_row_causes_a_recheck_of_every_user(
    body: bytes, expected: tuple[str, ...]
) -> None:
    """The query may map the token's user to another id than the row has."""
    now = datetime.now(UTC)
    rule = RecheckRule(CALENDAR)
    checked = rule(Message(1, "c", 1, now, now, body))
    assert checked.revokes == expected
    assert (checked.company, checked.position, checked.body) == ("c", 1, body)
    lost = Message(2, "c", 2, now, now, body, ("u0",))
    assert rule(lost).revokes == (expected or ("u0",))


def test_the_rule_follows_new_watches() -> None:
    now = datetime.now(UTC)
    rule = RecheckRule(CALENDAR)
    rule.use([Watch(table="people", entity="Person", member="login", updated="PersonMoved")])
    moved = Message(1, "c", 1, now, now, b'{"Type":"PersonMoved","Data":{"Login":"u1"}}')
    assert rule(moved).revokes == ("*",)
    updated = Message(2, "c", 2, now, now, b'{"Type":"EmployeeUpdated","Data":{"UserId":"u1"}}')
    assert rule(updated).revokes == ()
