"""Company ids: any text; uuids are compared without regard to case, also behind a scope as in `team:<uuid>`."""

from __future__ import annotations

import re

COMPANY_LIMIT = 200
"""The longest id of a company, in characters."""

SCOPE_NAME = r"[A-Za-z][A-Za-z0-9_-]*"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_SCOPED_UUID = re.compile(f"({SCOPE_NAME}:)({_UUID.pattern})", re.IGNORECASE)


def canonical(company: str) -> str:
    """The spelling of a company's id that is used as its key: a uuid in lower case."""
    if _UUID.fullmatch(company):
        return company.lower()
    scoped = _SCOPED_UUID.fullmatch(company)
    return scoped[1] + scoped[2].lower() if scoped else company


def capitals(company: str) -> str:
    """A uuid's other spelling, which a column of text may hold; of any other id its only one."""
    if _UUID.fullmatch(company):
        return company.upper()
    scoped = _SCOPED_UUID.fullmatch(company)
    return scoped[1] + scoped[2].upper() if scoped else company


def is_uuid(text: str) -> bool:
    """Whether the text is a uuid in the form that PostgreSQL prints."""
    return _UUID.fullmatch(text) is not None


def split_scope(company: str) -> tuple[str, str]:
    """The scope that an id may name, empty for none, and the rest: `team:7` → `team`, `7`."""
    scope, colon, rest = company.partition(":")
    return (scope, rest) if colon else ("", company)
