"""`notifier types`: prints the code for a language, or checks that a file contains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from notifier.errors import NotifierError, SettingsError
from notifier.settings import Settings
from notifier.types import columns, csharp, json_schema, python, typescript
from notifier.types.language import Language
from notifier.types.values import Table

RENDERERS: dict[Language, Callable[[Sequence[Table]], str]] = {
    Language.TYPESCRIPT: typescript.render,
    Language.PYTHON: python.render,
    Language.CSHARP: csharp.render,
    Language.JSON_SCHEMA: json_schema.render,
}


async def generate(settings: Settings, language: Language) -> str:
    """The types of all messages, the same for the same tables and settings."""
    return RENDERERS[language](await columns.read(settings))


def compare(file: Path, text: str, language: Language) -> None:
    """Raises NotifierError where the file has another text; line ends do not count."""
    try:
        found = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--check: cannot read the file {file}") from error
    if found != text:
        number = next(
            (
                number
                for number, (one, other) in enumerate(
                    zip(found.splitlines(), text.splitlines(), strict=False), 1
                )
                if one != other
            ),
            min(found.count("\n"), text.count("\n")) + 1,
        )
        raise NotifierError(
            f"{file} differs from the tables from line {number} on;"
            f" run: notifier types --language {language} > {file}"
        )
