"""The subjects: one for each company, one for the log, one for accounts."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from notifier.schema_names import DEFAULT

LONGEST_TOKEN = 200
"""Characters. A server refuses lines of more than 4,096 bytes, subject included."""


def subject_prefix(prefix: str, schema: str) -> str:
    """The first words of all subjects: with another schema, others."""
    return prefix if schema == DEFAULT else f"{prefix}_{schema}"


def log_subject(prefix: str) -> str:
    """The subject of the beats, which report how far the log has come."""
    return f"{prefix}.log"


def accounts_subject(prefix: str) -> str:
    """The subject of the notices that accounts may have changed."""
    return f"{prefix}.accounts"


def company_subject(prefix: str, company: str) -> str:
    """The subject of a company's messages."""
    return f"{prefix}.company.{token(company)}"


def token(company: str) -> str:
    """A company's id as one token of a subject; different ids have different tokens.

    Characters other than ASCII letters, digits, `-`, `_` and `~` are percent-encoded as UTF-8 (RFC 3986).
    A token that would be longer than LONGEST_TOKEN is `%%` and the id's SHA-256; that of the empty id is `%`.
    """
    encoded = quote(company, safe="").replace(".", "%2E")
    if len(encoded) > LONGEST_TOKEN:
        return "%%" + hashlib.sha256(company.encode()).hexdigest()
    return encoded or "%"
