"""Moves: rows on paths (`notifier.paths`) that lead to another company since their last change.

A move sends both companies a Resync. A writer resolves its company from its own snapshot, so one that was open
during the move may name the former company, and commit after that Resync. Each move is therefore kept until the
transactions that were open when it was read have ended; if one of them wrote to either company, both get another
Resync.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from notifier.messages import JSON
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL, SNAPSHOT, Change, Source
from notifier.relay.images import path_companies, unless_scoped
from notifier.relay.rendering import ResyncDraft

LIMIT = 10_000
"""Moves in memory. Beyond, every company gets a Resync instead."""

_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Move(msgspec.Struct, frozen=True):
    """One move, as `notifier.moves` stores it: other versions read these names.

    `values`: the companies before and after it as JSON texts, null among them; `companies`: their ids.
    `xid` and `last`: its transaction, and the last change of that. `revokes`: as in the Resync.
    `open`: the transactions that were open when it was read; None: not known yet.
    """

    entity: str
    column: str
    values: frozenset[str]
    companies: frozenset[str]
    xid: int
    last: int
    revokes: tuple[str, ...]
    open: frozenset[int] | None = None


class Moves:
    """The moves that may affect changes that the relay has not read yet."""

    def __init__(self) -> None:
        self._sources: dict[str, list[Source]] = {}
        # Moves that a writer may have missed which was open when they were read.
        self._pending: list[_Move] = []
        # Moves that a writer may not see which has one snapshot for all its statements.
        self._recent: list[_Move] = []
        # Moves of transactions before `since` are not known, but for those that were open then.
        self._since = 0
        self._open_since: frozenset[int] = frozenset()
        # The moves that another relay needs: it may read all changes since the second last `advance` again.
        self._needed: list[_Move] = []
        self._saved: list[_Move] = []

    def configure(self, sources: Mapping[str, Source]) -> None:
        """Takes the watched tables, by the entity of their changes."""
        self._sources = {}
        for entity, source in sources.items():
            found = [each for each in (source, *source.others) if each.watch.path is not None]
            if found:
                self._sources[entity] = found

    def begin(self, cursor: str, saved: JSON) -> None:
        """A new relay begins at the snapshot `cursor`. `saved`: the text that the previous relay saved (`unsaved`)."""
        self._pending = _decode_moves(saved)
        self._needed, self._saved = list(self._pending), list(self._pending)
        self._recent = []
        self._since = int(cursor.split(":")[1])
        self._open_since = _in_progress(cursor)

    def unsaved(self) -> JSON | None:
        """The moves that another relay needs, as a text to save; None if they are saved.

        They suffice whether or not the changes that were read before the last `advance` are stored.
        """
        if self._needed == self._saved:
            return None
        self._saved = list(self._needed)
        return msgspec.json.encode(self._saved)

    def resyncs(self, changes: Sequence[Change], last: Mapping[int, int]) -> list[ResyncDraft]:
        """Adds the moves among changes. Returns the Resyncs to send after the messages of these changes.

        `last`: the last change of each transaction.
        """
        if not self._sources:
            return []
        relevant = [change for change in changes if change.entity in self._sources]
        for change in relevant:
            if is_move(change):
                self._add(change, last[change.xid])
        return self._resyncs_of_late_writers(relevant, last)

    def resyncs_of_large(
        self,
        xid: int,
        upto: int,
        images: Iterable[tuple[str, JSON | None, JSON | None]],
        at: datetime,
    ) -> list[ResyncDraft]:
        """The same for a transaction that is too large to be netted. `images`: those of its moves."""
        if not self._sources:
            return []
        due: dict[str, tuple[str, ...]] = {}
        for move in self._pending:
            if move.open is None or xid in move.open:
                for company in move.companies:
                    due[company] = move.revokes or due.get(company, ())
        for entity, old, new in images:
            self._add(Change(upto, xid, entity, old, new, True, None, at), upto)
        return [ResyncDraft(each, "bulk", at, revokes) for each, revokes in due.items()]

    def advance(self, snapshot: str) -> None:
        """Drops the moves that no open transaction can have missed.

        All changes in `snapshot` must have been examined, and those of the previous call's be stored.
        """
        if not self._sources:
            return
        in_progress = _in_progress(snapshot)
        found, needed = [], []
        beyond: dict[tuple[str, str], _Move] = {}  # those beyond LIMIT, one for each watch
        for move in self._pending:
            left = in_progress if move.open is None else move.open & in_progress
            if move.open is None:
                self._recent.append(move)
            else:
                needed.append(move)
            if not left:
                continue
            settled = msgspec.structs.replace(move, open=left)
            if not move.values:
                former = beyond.get((move.entity, move.column))
                both = left if former is None or former.open is None else left | former.open
                beyond[move.entity, move.column] = msgspec.structs.replace(settled, open=both)
                continue
            found.append(settled)
            if move.open is None:
                needed.append(settled)
        self._pending, self._needed = [*found, *beyond.values()], [*needed, *beyond.values()]
        if len(self._recent) > LIMIT:
            self._since = max(self._since, *(move.xid + 1 for move in self._recent[:-LIMIT]))
            del self._recent[:-LIMIT]

    def _add(self, change: Change, last: int) -> None:
        for source in self._sources.get(change.entity, ()):
            watch = source.watch
            column = watch.company_column or ""
            if (named := path_companies(change, watch)) is None:
                continue  # a row of the table with its keys alone, or the move of another watch
            companies = {
                company if watch.scope is not None else unless_scoped(company, source.scopes)
                for company in named
            }
            move = _Move(
                change.entity,
                column,
                frozenset(_values(change, column)),
                frozenset(company for company in companies if company is not None),
                change.xid,
                last,
                REVOKE_ALL if watch.grants else (),
            )
            if len(self._pending) > LIMIT:
                move = msgspec.structs.replace(
                    move, values=frozenset(), companies=frozenset({EVERY_COMPANY})
                )
            if move.companies and move not in self._pending[-1:]:
                self._pending.append(move)
                self._needed.append(move)

    def _resyncs_of_late_writers(
        self, changes: Sequence[Change], last: Mapping[int, int]
    ) -> list[ResyncDraft]:
        """The Resyncs after changes whose writers may have named a former company."""
        by_value: dict[tuple[str, str, str], list[_Move]] = {}
        for move in self._pending:
            for value in move.values or ("",):
                by_value.setdefault((move.entity, move.column, value), []).append(move)
        due: dict[str, ResyncDraft] = {}

        def resync(change: Change, companies: Iterable[str], revokes: tuple[str, ...]) -> None:
            for company in companies:
                former = due[company].revokes if company in due else ()
                due[company] = ResyncDraft(company, "bulk", change.at, revokes or former)

        for change in changes:
            for source in self._sources[change.entity]:
                column = source.watch.company_column or ""
                # The companies to which the row may lead by now: a row on its path may have moved several times.
                reached = {*_values(change, column), ""}
                values = list(reached) if by_value else []
                while values:
                    for move in by_value.get((change.entity, column, values.pop()), ()):
                        if move.xid == change.xid:
                            continue
                        is_later = (
                            last[change.xid] > move.last  # read together: in the order of messages
                            if move.open is None
                            else change.xid in move.open
                        )
                        if is_later:
                            resync(change, move.companies, move.revokes)
                            values += move.values - reached
                            reached |= move.values
                if (snapshot := _snapshot_of(change)) is not None:
                    self._compare_with_snapshot(change, column, snapshot, resync)
        return list(due.values())

    def _compare_with_snapshot(
        self, change: Change, column: str, snapshot: str, resync: _Resync
    ) -> None:
        """Finds the moves that a writer did not see, which has the `snapshot` for all its statements."""
        in_progress, values = _in_progress(snapshot), set(_values(change, column))
        xmax = int(snapshot.split(":")[1])
        unknown = {xid for xid in in_progress if xid < self._since} - self._open_since
        if xmax < self._since or unknown:
            resync(change, [EVERY_COMPANY], REVOKE_ALL)
            return
        for move in (*self._recent, *self._pending):
            unseen = move.xid >= xmax or move.xid in in_progress
            is_same = not move.values or not values.isdisjoint(move.values)
            if unseen and move.column == column and move.xid != change.xid and is_same:
                resync(change, move.companies, move.revokes)
                values |= move.values  # the next move may be one from there


_decode_moves = msgspec.json.Decoder(list[_Move]).decode


_Resync: TypeAlias = Callable[[Change, Iterable[str], tuple[str, ...]], None]


def is_move(change: Change) -> bool:
    """Whether it is a change of a row on a path: its images have companies alone.

    Rows that have a path begin with their company too, and are partial only where they have nothing but keys beside it.
    """
    return change.partial and (change.old or change.new or b"").startswith(b'{"->')


def _values(change: Change, column: str) -> Iterable[str]:
    """The companies in the images, as JSON texts."""
    for image in (change.old, change.new):
        if image is not None:
            try:
                row = _decode_row(image)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                continue
            if column in row:
                yield bytes(row[column]).decode(errors="replace")


def _snapshot_of(change: Change) -> str | None:
    """The writer's snapshot, which capture adds where all its statements have the same one.

    A column that the table was given since `migrate` may have its name: what is not a snapshot stands for one before all moves.
    """
    image = change.new or change.old
    if image is None or SNAPSHOT.encode() not in image:
        return None
    try:
        snapshot = msgspec.json.decode(_decode_row(image)[SNAPSHOT], type=str)
    except KeyError:
        return None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _UNKNOWN
    return snapshot if _IS_SNAPSHOT(snapshot) else _UNKNOWN


_UNKNOWN = "0:0:"

_IS_SNAPSHOT = re.compile(r"[0-9]{1,20}:[0-9]{1,20}:([0-9]{1,20}(,[0-9]{1,20})*)?").fullmatch


def _in_progress(snapshot: str) -> frozenset[int]:
    """The transactions that are in progress in a snapshot."""
    xids = snapshot.split(":")[2]
    return frozenset(map(int, xids.split(","))) if xids else frozenset()
