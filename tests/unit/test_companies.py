"""Company ids."""

from __future__ import annotations

import pytest

from notifier.companies import canonical, is_uuid

ID = "3F2504E0-4F89-41D3-9A0C-0305E82C3301"


def test_a_uuid_has_one_spelling() -> None:
    assert canonical(ID) == canonical(ID.lower()) == canonical(ID.swapcase()) == ID.lower()


@pytest.mark.parametrize(
    "company", ["ACME", "", " " + ID, ID + "\n", "{" + ID + "}", ID.replace("-", "")]
)
def test_any_other_text_is_left_as_it_is(company: str) -> None:
    assert canonical(company) == company
    assert not is_uuid(company)


def test_a_uuid_is_recognised_in_either_case() -> None:
    assert is_uuid(ID)
    assert is_uuid(ID.lower())
