"""The question to `notifier why`, and its explanation."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from notifier.companies import canonical
from notifier.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Question:
    """A change of a company, named by its row, its transaction or its position; none of them: the company itself.

    Raises SettingsError where they do not go together.
    """

    company: str
    user: str | None = None
    table: str | None = None
    key: str | None = None
    tx: int | None = None
    position: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "company", canonical(self.company))
        if (self.table is None) != (self.key is None):
            raise SettingsError("--table and --key go together")
        if sum(each is not None for each in (self.table, self.tx, self.position)) > 1:
            raise SettingsError("give one of --table with --key, --tx, and --position")

    @property
    def key_values(self) -> tuple[str, ...]:
        """The text of each column of the key: one, or those of a JSON array. Raises SettingsError."""
        text = self.key or ""
        if not text.startswith("["):
            return (text,)
        try:
            return tuple(map(text_of, msgspec.json.decode(text, type=list[msgspec.Raw])))
        except (msgspec.DecodeError, UnicodeError) as error:
            raise SettingsError(
                '--key: the values of a key of several columns are a JSON array: [2, "a@b"]'
            ) from error


def text_of(value: msgspec.Raw) -> str:
    """A JSON value as the text that a user would write for it: a string without its quotes."""
    text = bytes(value)
    return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()


@dataclass
class Explanation:
    """Facts in the order in which they were found, and the answer.

    `is_found`: False where the database does not show which of several causes it was.
    """

    facts: list[str] = field(default_factory=list)
    answer: str | None = None
    is_found: bool = True

    def add(self, fact: str) -> None:
        """Adds a fact."""
        self.facts.append(fact)

    def conclude(self, answer: str, *, is_found: bool = True) -> None:
        """Sets the answer, unless there is one."""
        if self.answer is None:
            self.answer, self.is_found = answer, is_found
