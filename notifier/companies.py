"""What names a company: any text; uuids without regard to case."""

from __future__ import annotations

import re

COMPANY_LIMIT = 200
"""The longest id of a company, in characters."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def canonical(company: str) -> str:
    """The one spelling of a company's id by which it is looked up."""
    return company.lower() if _UUID.fullmatch(company) else company


def is_uuid(text: str) -> bool:
    """Whether the text is a uuid as PostgreSQL prints one."""
    return _UUID.fullmatch(text) is not None
