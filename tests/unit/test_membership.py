"""Where the token decides, no row is read; and how companies are spelled."""

from __future__ import annotations

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Identity
from notifier.companies import canonical, is_uuid
from notifier.database.query import Query

UUID = "aaaaaaaa-0000-4000-8000-00000000000a"


@pytest.mark.parametrize("query", [None, "SELECT true"])
async def test_a_token_gives_the_companies_that_it_names_and_no_other(query: str | None) -> None:
    link = Query("postgresql://nowhere", "test", pooled=False)
    membership = Membership(link, "claim", query)
    named = Identity("u1", 1e12, frozenset({"a", "b"}))
    assert [await membership.may_see(named, company) for company in ("a", "b", "c", "")] == [
        True, True, False, False,
    ]  # fmt: skip
    for companies in (None, frozenset[str]()):
        assert not await membership.may_see(Identity("u1", 1e12, companies), "a")
    assert not membership.follows_rows
    assert not membership.conclusive
    assert link.queries == 0


@pytest.mark.parametrize(
    "text",
    [UUID.replace("-", ""), f"{{{UUID}}}", UUID + "\n", UUID[:-1], UUID + "a", "g" + UUID[1:], ""],
)
def test_only_what_postgres_prints_is_a_uuid(text: str) -> None:
    assert is_uuid(UUID) is is_uuid(UUID.upper()) is True
    assert canonical(UUID.upper()) == canonical(UUID) == UUID
    assert is_uuid(text) is False
    assert canonical(text.upper()) == text.upper()
