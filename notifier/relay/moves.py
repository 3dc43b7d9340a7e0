"""Moves: rows on paths (`notifier.paths`) that lead to another company since their last change.

A move sends both companies a Resync. A writer resolves its company from its own snapshot, so one that was open
during the move may name the former company, and commit after that Resync. Each move is therefore kept until the
transactions that were open when it was read have ended; if one of them wrote to either company, both get another
Resync.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from notifier.messages import JSON
from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL, SNAPSHOT, Change, Source
from notifier.relay.images import is_unmoved, path_companies, unless_scoped
from notifier.relay.rendering import ResyncDraft
from notifier.relay.saved_moves import Move, anywhere, decode_moves, merged, summary

LIMIT = 10_000
"""Moves in memory. Beyond, every company gets a Resync instead."""

MISSED_LIMIT = 100
"""Moves that are kept together with one whose writer has missed them. Beyond, it concerns every company."""

SAVED_LIMIT = 200
"""Moves that are saved for another relay, about 30 KiB, with each batch beside a long transaction. Beyond, it sends more Resyncs."""

SAVED_OPEN = 2000
"""The same for the transactions that were open when they were read, of all moves together: 20 KiB."""

_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Moves:
    """The moves that may affect changes that the relay has not read yet."""

    def __init__(self) -> None:
        self._sources: dict[str, list[Source]] = {}
        # Moves that a writer may have missed which was open when they were read.
        self._pending: list[Move] = []
        # Moves that a writer may not see which has one snapshot for all its statements.
        self._recent: list[Move] = []
        # For each of them the greatest number of a transaction up to it: those before a snapshot's xmin are seen.
        self._latest: list[int] = []
        # Moves of transactions before `since` are not known, but for those that were open then.
        self._since = 0
        self._open_since: frozenset[int] = frozenset()
        # The moves that another relay needs: it may read all changes since the second last `advance` again.
        self._needed: list[Move] = []
        self._saved: list[Move] = []

    def configure(self, sources: Mapping[str, Source]) -> None:
        """Takes the watched tables, by the entity of their changes."""
        self._sources = {}
        for entity, source in sources.items():
            found = [each for each in (source, *source.others) if each.watch.path is not None]
            if found:
                self._sources[entity] = found

    @property
    def are_possible(self) -> bool:
        """Whether any table has a path."""
        return bool(self._sources)

    def has(self, change: Change) -> bool:
        """Whether it is a change of a row on a path of a watch."""
        return any(
            path_companies(change, source.watch) is not None
            for source in self._sources.get(change.entity, ())
        )

    def begin(self, cursor: str, saved: JSON) -> None:
        """A new relay begins at the snapshot `cursor`. `saved`: the text that the previous relay saved (`unsaved`)."""
        self._pending = decode_moves(saved)
        self._needed, self._saved = list(self._pending), list(self._pending)
        self._recent, self._latest = [], []
        self._since = int(cursor.split(":")[1])
        self._open_since = _in_progress(cursor)

    def unsaved(self) -> JSON | None:
        """The moves that another relay needs, as a text to save; None if they are saved.

        They suffice whether or not the changes that were read before the last `advance` are stored.
        """
        needed = summary(self._needed) if _are_many(self._needed) else self._needed
        if needed == self._saved:
            return None
        self._saved = list(needed)
        return msgspec.json.encode(self._saved)

    def resyncs(self, changes: Sequence[Change], last: Mapping[int, int]) -> list[ResyncDraft]:
        """Adds the moves among changes. Returns the Resyncs to send after the messages of these changes.

        `last`: the last change of each transaction.
        """
        relevant = [change for change in changes if change.entity in self._sources]
        if not relevant:  # beside a long transaction there may be thousands of moves
            return []
        for change in relevant:
            if is_move(change):
                self._add(change, last[change.xid])
        return self._resyncs_of_late_writers(relevant, last)

    def resyncs_of_large(
        self,
        xid: int,
        upto: int,
        images: Sequence[tuple[str, JSON | None, JSON | None]] | None,
        at: datetime,
        row: JSON | None = None,
    ) -> list[ResyncDraft]:
        """The same for a transaction that is too large to be netted. `images`: those of its moves; empty where they are too large, LIMIT + 1
        of them where there are more, None where they are not known. `row`: the image of a row with a path.
        """
        if not self._sources:
            return []
        due: dict[str, tuple[str, ...]] = {}
        together = [move for move in self._pending if move.open is None]
        missed = [move for move in self._pending if move.may_be_missed_by(xid)]
        snapshot = _snapshot_in(row)
        unseen = [] if snapshot is None else self._unseen(xid, snapshot)
        if unseen is None:
            due[EVERY_COMPANY] = REVOKE_ALL
        missed += unseen or ()
        for move in (*together, *missed):
            for company in move.companies:
                due[company] = move.revokes or due.get(company, ())
        unknown = set(self._sources) if images is None or len(images) > LIMIT else set[str]()
        for entity, old, new in (images or ())[:LIMIT]:
            if old is None and new is None:
                unknown.add(entity)
                continue
            change = Change(upto, xid, entity, old, new, True, None, at)
            self._add(change, upto)
            for source in self._sources.get(entity, ()):
                self._add_of_late_writer(change, source, upto, missed, is_any=unseen is None)
        for entity in unknown:
            self._add_unknown(entity, xid, upto)
        return [ResyncDraft(each, "bulk", at, revokes) for each, revokes in due.items()]

    @property
    def are_new(self) -> bool:
        """Whether the next `advance` needs a transaction id."""
        return any(move.open is None for move in self._pending)

    def advance(self, snapshot: str, before: int = 0) -> None:
        """Drops the moves that no open transaction can have missed.

        All changes in `snapshot` must have been examined, and those of the previous call's be stored. `before`: where there are
        new moves, the id of a transaction that began later than the snapshot was taken.
        """
        if not self._sources:
            return
        in_progress, xmax = _in_progress(snapshot), int(snapshot.split(":")[1])
        found, needed = [], []
        beyond: dict[tuple[str, str], Move] = {}  # those beyond LIMIT, one for each watch
        # by the transactions that were open: moves that were read together have the same
        still: dict[tuple[frozenset[int], int, int], frozenset[int]] = {}
        for move in self._pending:
            if move.open is None:
                self._recent.append(move)
                self._latest.append(max(move.xid, self._latest[-1] if self._latest else 0))
                left, begun, end = in_progress, xmax, before
            else:
                needed.append(move)
                among = move.open, move.begun, move.before
                if among not in still:
                    still[among] = frozenset(filter(move.may_be_missed_by, in_progress))
                left = still[among]
                begun, end = max(move.begun, xmax), move.before
            if begun >= end:
                begun = end = 0
            if not left and not end:
                continue
            settled = msgspec.structs.replace(move, open=left, begun=begun, before=end)
            if not move.values:
                name = move.entity, move.column
                beyond[name] = merged(settled, beyond.get(name, settled))
                continue
            found.append(settled)
            if move.open is None:
                needed.append(settled)
        self._pending, self._needed = [*found, *beyond.values()], [*needed, *beyond.values()]
        if len(self._recent) > LIMIT:
            dropped = {move.xid for move in self._recent[:-LIMIT]}
            self._since = max(self._since, max(dropped) + 1)
            self._open_since -= dropped
            del self._recent[:-LIMIT], self._latest[:-LIMIT]

    def _add(self, change: Change, last: int) -> None:
        for source in self._sources.get(change.entity, ()):
            move = _move_of(change, source, last)
            if move is not None and not is_unmoved(change):
                self._keep(move)

    def _add_unknown(self, entity: str, xid: int, last: int) -> None:
        """Adds moves to and from companies that are not known, for each watch of a table."""
        for source in self._sources.get(entity, ()):
            column = source.watch.company_column or ""
            revokes = REVOKE_ALL if source.watch.grants else ()
            every = frozenset({EVERY_COMPANY})
            self._keep(Move(entity, column, frozenset(), every, xid, last, revokes))

    def _add_of_late_writer(
        self, change: Change, source: Source, last: int, missed: Sequence[Move], *, is_any: bool
    ) -> None:
        """Adds a move whose writer has missed others: its row may lead where they lead. `is_any`: some of them are not known."""
        if not (missed or is_any) or (move := _move_of(change, source, last)) is None:
            return
        if is_any or len(missed) > MISSED_LIMIT or not all(each.values for each in missed):
            self._keep(anywhere(move))
            return
        self._keep(
            msgspec.structs.replace(
                move,
                values=move.values.union(*(each.values for each in missed)),
                companies=move.companies.union(*(each.companies for each in missed)),
            )
        )

    def _keep(self, move: Move) -> None:
        if len(self._pending) > LIMIT:
            move = anywhere(move)
        if move.companies and move not in self._pending[-1:]:
            self._pending.append(move)
            self._needed.append(move)

    def _unseen(self, xid: int, snapshot: str) -> list[Move] | None:
        """The moves of other transactions than `xid` that `snapshot` does not see. None: not all of them are known."""
        in_progress, (xmin, xmax) = _in_progress(snapshot), map(int, snapshot.split(":")[:2])
        if xmax < self._since or any(
            each < self._since and each not in self._open_since for each in in_progress
        ):
            return None
        return [
            move
            for move in (*self._recent[bisect_left(self._latest, xmin) :], *self._pending)
            if (move.xid >= xmax or move.xid in in_progress) and move.xid != xid
        ]

    def _resyncs_of_late_writers(
        self, changes: Sequence[Change], last: Mapping[int, int]
    ) -> list[ResyncDraft]:
        """The Resyncs after changes whose writers may have named a former company."""
        pending = _by_value(self._pending)
        due: dict[str, ResyncDraft] = {}
        seen_by: tuple[int, str] | None = None
        unseen: _ByValue | None = {}
        at = {change.xid: change.at for change in changes}
        examined = set()

        def resync(change: Change, companies: Iterable[str], revokes: tuple[str, ...]) -> None:
            for company in companies:
                former = due[company].revokes if company in due else ()
                due[company] = ResyncDraft(company, "bulk", at[change.xid], revokes or former)

        for change in changes:
            missed, is_any = _ByValue(), False
            if (snapshot := _snapshot_in(change.new or change.old)) is not None:
                if seen_by != (change.xid, snapshot):
                    seen_by = change.xid, snapshot
                    found = self._unseen(change.xid, snapshot)
                    unseen = None if found is None else _by_value(found, are_missed=True)
                missed, is_any = unseen or {}, unseen is None
            if is_any:
                resync(change, [EVERY_COMPANY], REVOKE_ALL)
            elif not pending and not missed:
                continue
            for source in self._sources[change.entity]:
                column = source.watch.company_column or ""
                # The companies to which the row may lead by now: a row on its path may have moved several times.
                reached = {*_values(change, column), ""}
                what = change.xid, column, frozenset(reached)
                if what in examined and not is_move(change):
                    continue
                examined.add(what)
                values, late = list(reached), list[Move]()
                while values:
                    name = change.entity, column, values.pop()
                    open_at = [
                        each for each in pending.get(name, ()) if _is_late(change, each, last)
                    ]
                    for move in (*open_at, *missed.get(name, ())):
                        resync(change, move.companies, move.revokes)
                        values += move.values - reached
                        reached |= move.values
                    late += (move for move in open_at if move.open is not None)
                    late += missed.get(name, ())
                if is_move(change):
                    self._add_of_late_writer(change, source, last[change.xid], late, is_any=is_any)
        return list(due.values())


def _are_many(moves: Sequence[Move]) -> bool:
    """Whether only a summary of the moves is saved."""
    return len(moves) > SAVED_LIMIT or sum(len(each.open or ()) for each in moves) > SAVED_OPEN


_ByValue: TypeAlias = dict[tuple[str, str, str], list[Move]]


def _by_value(moves: Iterable[Move], *, are_missed: bool = False) -> _ByValue:
    """Moves by entity, column and value. `are_missed`: by one writer. Of equal ones that were read together, two of different transactions."""
    found: _ByValue = {}
    # They are in the order of `last`: the first ones decide.
    kept: dict[tuple[object, ...], set[int]] = {}
    for move in moves:
        what = move.entity, move.column, move.values, move.companies
        which = what if are_missed else (*what, move.open, move.begun, move.before)
        xids, most = kept.setdefault(which, set()), 1 if are_missed or move.open is not None else 2
        if len(xids) < most and move.xid not in xids:
            xids.add(move.xid)
            for value in move.values or ("",):
                found.setdefault((move.entity, move.column, value), []).append(move)
    return found


def _is_late(change: Change, move: Move, last: Mapping[int, int]) -> bool:
    """Whether the change was made, or may have been, by a writer that was open during the move."""
    if move.xid == change.xid:
        return False
    if move.open is None:  # read together: in the order of messages
        return last[change.xid] > move.last
    return move.may_be_missed_by(change.xid)


def _move_of(change: Change, source: Source, last: int) -> Move | None:
    """The move as a watch has it; None for a row of the table with its keys alone, or the move of another watch."""
    watch, column = source.watch, source.watch.company_column or ""
    if (named := path_companies(change, watch)) is None:
        return None
    companies = {
        company if watch.scope is not None else unless_scoped(company, source.scopes)
        for company in named
    }
    values = {*_values(change, column)}
    if change.old is None or change.new is None:
        values.add("null")  # where no row was, or is, rows lead to no company
    return Move(
        change.entity,
        column,
        frozenset(values),
        frozenset(company for company in companies if company is not None),
        change.xid,
        last,
        REVOKE_ALL if watch.grants else (),
    )


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


def _snapshot_in(image: JSON | None) -> str | None:
    """The writer's snapshot, which capture adds to an image where all the writer's statements have the same one.

    A column that the table was given since `migrate` may have its name: what is not a snapshot stands for one before all moves.
    """
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
