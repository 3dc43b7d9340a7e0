"""Company ids: any text; uuids are compared without regard to case."""

from __future__ import annotations

import re

COMPANY_LIMIT = 200
"""The longest id of a company, in characters."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def canonical(company: str) -> str:
    """The spelling of a company's id that is used as its key: a uuid in lower case."""
    return company.lower() if _UUID.fullmatch(company) else company


def is_uuid(text: str) -> bool:
    """Whether the text is a uuid in the form that PostgreSQL prints."""
    return _UUID.fullmatch(text) is not None
