"""The languages that `notifier types` generates."""

from __future__ import annotations

from enum import StrEnum


class Language(StrEnum):
    """The values of `--language`."""

    TYPESCRIPT = "typescript"
    PYTHON = "python"
    CSHARP = "csharp"
    JSON_SCHEMA = "json-schema"
