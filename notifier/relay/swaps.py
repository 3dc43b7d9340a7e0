"""Keys that are taken before the transaction has ended that gives them away, and is ordered after the one that takes them.

With a key that is DEFERRABLE, a transaction inserts a row under the key of one that another has deleted, which is still open and
may make further changes, by the last of which it is ordered. With any other key it waits until that transaction has ended.
"""

from __future__ import annotations

from datetime import datetime

from notifier.relay.changes import REVOKE_ALL
from notifier.relay.rendering import ResyncDraft

LIMIT = 100_000
"""Rows of which the last change is remembered, and as many of the present transaction: some 30 MiB. Beyond, the earlier half of the
changes counts as those of any row."""

Name = tuple[str, str, bytes]
"""A row, as one company sees it: the company, the entity, the key."""


class Swaps:
    """Finds the companies that have a row of which a transaction that is ordered before has a later change.

    It may find others, too: of rows their hashes are remembered, and of a limited number. `upto`: the last change of the
    transactions before, of which no row is known.
    """

    def __init__(self, upto: int = 0) -> None:
        self._upto = upto
        self._latest: dict[int, int] = {}
        self._present: dict[int, int] = {}  # of the present transaction
        self._present_upto = 0
        self._found: dict[str, ResyncDraft] = {}

    def add(self, name: Name, first: int, last: int, at: datetime, *, grants: bool) -> None:
        """Takes a row of the present transaction, with its first and its last change there. `grants`: it may give access."""
        company, row = name[0], hash(name)
        latest = self._latest.get(row, 0)
        if first < max(latest, self._latest.get(hash(company), 0), self._upto):
            former = self._found.get(company)
            revokes = REVOKE_ALL if grants else former.revokes if former else ()
            self._found[company] = ResyncDraft(company, "overflow", at, revokes)
        self._keep(row, max(last, latest))

    def hide(self, company: str, upto: int) -> None:
        """The present transaction, whose last change is `upto`, has rows of the company that are not known."""
        self._keep(hash(company), upto)

    def hide_all(self, upto: int) -> None:
        """The present transaction, whose last change is `upto`, has rows that are not known."""
        self._present_upto = upto

    def end(self) -> None:
        """The present transaction ends."""
        self._upto = max(self._upto, self._present_upto)
        self._latest |= self._present
        self._present, self._present_upto = {}, 0
        if len(self._latest) > LIMIT:
            self._upto = max(self._upto, _forget_half(self._latest))

    def resyncs(self) -> list[ResyncDraft]:
        """The Resyncs that are due behind the messages of the transactions before."""
        found, self._found = self._found, {}
        return [*found.values()]

    def _keep(self, row: int, last: int) -> None:
        self._present[row] = last
        if len(self._present) > LIMIT:
            self._present_upto = max(self._present_upto, _forget_half(self._present))


def _forget_half(rows: dict[int, int]) -> int:
    """Removes the rows with the earlier half of changes, at least. Returns the last of these changes."""
    upto = sorted(rows.values())[len(rows) // 2]
    for row in [row for row, last in rows.items() if last <= upto]:
        del rows[row]
    return upto
