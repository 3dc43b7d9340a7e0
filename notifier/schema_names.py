"""The names that NOTIFIER_SCHEMA may have."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

DEFAULT = "notifier"

_PLAIN = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
"""Needs no quotes; with the words around it, a channel's name has at most 63 bytes."""

_RESERVED = re.compile(
    r"all|analyse|analyze|and|any|array|as|asc|asymmetric|authorization|binary|both|case|"
    r"cast|check|collate|collation|column|concurrently|constraint|create|cross|"
    r"current_catalog|current_date|current_role|current_schema|current_time|"
    r"current_timestamp|current_user|default|deferrable|desc|distinct|do|else|end|except|"
    r"false|fetch|for|foreign|freeze|from|full|grant|group|having|ilike|in|initially|inner|"
    r"intersect|into|is|isnull|join|lateral|leading|left|like|limit|localtime|"
    r"localtimestamp|natural|not|notnull|null|offset|on|only|or|order|outer|overlaps|"
    r"placing|primary|references|returning|right|select|session_user|similar|some|symmetric|"
    r"system_user|table|tablesample|then|to|trailing|true|union|unique|user|using|variadic|"
    r"verbose|when|where|window|with|public|information_schema"
)
"""PostgreSQL's reserved words (its manual, appendix C), and schemas that are never ours."""


def require_plain(name: str) -> str:
    """Returns the name. Raises ValueError where a schema of ours may not be called like that."""
    if _PLAIN.fullmatch(name) is None or _RESERVED.fullmatch(name) is not None:
        raise ValueError(
            "must be a plain name of at most 40 small letters, digits and _, not a word of SQL"
        )
    return name


class Named:
    """Declares the setting apart, because BaseModel has an attribute of that name."""

    schema: Annotated[str, AfterValidator(require_plain)] = DEFAULT
