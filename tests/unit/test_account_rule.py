"""With USER_QUERY, changes of the rows that it reads have accounts looked up again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from notifier.delivery.account_rule import AccountRule
from notifier.messages import Message
from notifier.watches import Watch

QUERY = 'SELECT u.id FROM app."Users" AS u JOIN identities AS i ON i.user_id = u.id WHERE i.external_id = $1'
USERS = Watch(table='app."Users"', entity="User", created=None)
IDENTITIES = Watch(table="identities", entity="Identity", exclude=("EXTERNAL_ID",))
POSTS = Watch(table="users_posts", entity="Post")

BODIES: dict[str, tuple[bytes, list[Collection[str] | None]]] = {
    "a changed row": (
        b'{"Type":"UserUpdated","Data":{"UserId":7,"Name":"Ada","On":true,"Tags":["x"],"Gone":null,"Bio":"'
        + b"x" * 2000
        + b'"},"Old":{"Name":"A\\u00df"}}',
        [{"7", "Ada", "A\N{LATIN SMALL LETTER SHARP S}"}],
    ),
    "a row that is gone": (b'{"Type":"UserDeleted","Data":{"UserId":"u1"}}', [{"u1"}]),
    "keys only": (b'{"Type":"UserUpdated","Data":{"UserId":7},"Partial":true}', [None]),
    "a row without the column of the query": (
        b'{"Type":"IdentityCreated","Data":{"UserId":7}}',
        [None],
    ),
    "many changes at once": (b'{"Type":"Resync","Data":{"Reason":"bulk"}}', [None]),
    "another table": (b'{"Type":"PostCreated","Data":{"UserId":7}}', []),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=list(BODIES))
def test_changed_rows_of_the_query_are_reported_with_their_values(
    body: bytes, expected: list[Collection[str] | None]
) -> None:
    seen: list[Collection[str] | None] = []
    rule = AccountRule(QUERY, seen.append, [])
    now = datetime.now(UTC)
    message = Message(1, "c", 1, now, now, body)
    rule(message)
    assert seen == ([None] if b"Resync" in body else [])
    seen.clear()
    rule.use([USERS, IDENTITIES, POSTS])
    assert rule(message) is message
    assert seen == expected
