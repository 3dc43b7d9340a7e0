"""Nets the changes of each transaction: one message per row and company, however often it was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter

from notifier.relay.changes import EVERY_COMPANY, REVOKE_ALL, Change, Source
from notifier.relay.images import (
    Ends,
    Row,
    Unattributable,
    company_of,
    is_unmoved,
    key_of,
    path_companies,
    read_images,
    unless_scoped,
    user_of,
)
from notifier.relay.rendering import Draft, ResyncDraft, render
from notifier.relay.swaps import Name, Swaps
from notifier.relay.tracing import NO_LINKS
from notifier.watches import Watch

MAX_RUNS = 32
"""Nested triggers leave fewer open runs; images that do not fit together could leave any number."""

REVOKES_LIMIT = 64 * 1024
"""Characters of the users of one message, which every node keeps for minutes; where they are more, all users are re-checked."""

AnyDraft = Draft | ResyncDraft

_order = itemgetter(0)


def net(
    changes: Sequence[Change],
    sources: dict[str, Source],
    bulk_limit: int,
    links: Mapping[int, str] = NO_LINKS,
    swaps: Swaps | None = None,
) -> tuple[list[AnyDraft], int]:
    """The messages of whole transactions, in the order of `changes`, and how many changes had no company.

    `changes` must hold the changes of each transaction side by side, in the order of their ids. `links`:
    what the messages of traced transactions carry as `traceparent`. `swaps`: of the transactions before these.
    """
    drafts: list[AnyDraft] = []
    unattributed = 0
    swaps = swaps or Swaps()
    for xid, group in groupby(changes, key=attrgetter("xid")):
        transaction = Transaction(sources)
        for change in group:
            transaction.add(change)
        transaction.find(swaps)
        swaps.end()
        found = transaction.drafts(bulk_limit)
        if links and (link := links.get(xid)) is not None:
            found = [draft._replace(traceparent=link) for draft in found]
        drafts += found
        unattributed += transaction.unattributed
    return [*drafts, *swaps.resyncs()], unattributed


class _NetChange:
    """The net change of one row in a transaction, as one company sees it.

    The write of a nested trigger may be captured before the write that fired the trigger: capture runs
    in the order of trigger names. So the steps do not come in order, and each is put where it fits.

    So a deletion may precede an insertion that was captured first. Where their images are not of one form, because the table was
    altered in between or one of them has the keys only, or where they differ in columns alone whose values have several texts, it
    may as well be the deletion of the row that was inserted, whose image is another one now. Then the change `is_unclear`.
    """

    __slots__ = ("_runs", "actor", "at", "first", "is_unclear", "last", "partial", "source", "xid")

    def __init__(self, change: Change, source: Source) -> None:
        self._runs: list[Ends] = []
        self.source = source
        self.first = self.last = change.id
        self.at = change.at
        self.xid = change.xid
        self.actor = change.actor
        self.partial = False
        self.is_unclear = False

    def step(self, old: Row | None, new: Row | None) -> None:
        """Adds a step: it continues the run that ends with `old` and joins the one that begins with `new`."""
        runs = self._runs
        if not runs:
            runs.append((old, new))
            return
        for number in reversed(range(len(runs))):
            if runs[number][1] == old:
                old = runs.pop(number)[0]
                break
        for number in range(len(runs)):
            if runs[number][0] == new:
                begins = new is None
                new = runs.pop(number)[1]
                if begins and old is not None and new is not None:
                    self.is_unclear = (
                        self.is_unclear
                        or self.partial
                        or old.keys() != new.keys()
                        or self._may_be_ended_by(old, new)
                    )
                break
        runs.append((old, new))
        if len(runs) > MAX_RUNS:
            runs[:] = [(runs[0][0], new)]

    def _may_be_ended_by(self, old: Row, joined: Row) -> bool:
        """Whether a deletion may be that of a row which a run has left, with another text of the same values."""
        loose = self.source.loose_columns
        return bool(loose) and any(
            end is not None
            and end.keys() == old.keys()
            and all(end[column] == value for column, value in old.items() if column not in loose)
            for end in (joined, *(end for _, end in self._runs))
        )

    def ends(self) -> Ends:
        """The row before and after.

        A run with equal ends is no change: it counts only if there is no other. So a row that is deleted and inserted
        again alike is (row, row), for which `render` sends nothing.
        """
        if len(self._runs) == 1:
            return self._runs[0]
        runs = [(old, new) for old, new in self._runs if old != new] or self._runs[-1:]
        return runs[0][0], runs[-1][1]

    def order(self, ends: Ends) -> int:
        """The change by which the message is ordered: the last one for a deletion, otherwise the first.

        The first one also where the row may be there under another text of its key, 1.00 for 1.0: clients that compare keys as
        numbers must not apply the deletion last.
        """
        old, new = ends
        is_last = new is None and old is not None and not self.source.is_respelled
        return self.last if is_last else self.first


class Transaction:
    """Collects the changes of one transaction and nets them per company and row.

    `only`: the one company to look at; None: all. `truncates`: TRUNCATEs of the transaction, in the order
    of their ids, for which the Resync is sent elsewhere: they only discard what was done before them.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        only: str | None = None,
        truncates: Iterable[Change] = (),
    ) -> None:
        self._sources = sources
        self._only = only
        self._truncates = list(truncates)
        self._rows: dict[Name, _NetChange] = {}
        self._resyncs: dict[str, tuple[int, ResyncDraft]] = {}  # by company
        self._moved: dict[str, tuple[int, ResyncDraft]] = {}
        self.unattributed = 0

    def add(self, change: Change) -> None:
        """Takes the next change, in the order of ids."""
        while self._truncates and self._truncates[0].id < change.id:
            self._discard(self._truncates.pop(0).entity)
        source = self._sources.get(change.entity)
        if source is None:  # no longer watched
            return
        if change.is_truncate:
            self._discard(change.entity)
            self._resync(change, source, "truncate", source.grants)
            return
        if source.is_strayed:
            self._resync(change, source, "overflow", True)
            return
        self._add(change, source)
        for other in source.others:
            self._add(change, other)

    def _add(self, change: Change, source: Source) -> None:
        """Takes the change as one watch of its table sees it."""
        watch = source.watch
        try:
            old, new, keys_only = read_images(
                change, watch, source.hidden_columns, source.foreign_columns, source.columns
            )
        except Unattributable:
            if (companies := path_companies(change, watch)) is not None:
                if not is_unmoved(change):
                    self._move(change, source, companies)
                return
            self.unattributed += 1
            self._resync(change, source, "overflow", True)
            return
        if keys_only:
            change = change._replace(partial=True)
        if old is None:
            if new is not None:
                self._apply(change, source, key_of(new, watch), None, new)
            return
        key = key_of(old, watch)
        if new is None or (new_key := key_of(new, watch)) == key:
            self._apply(change, source, key, old, new)
        else:
            self._apply(change, source, key, old, None)
            self._apply(change, source, new_key, None, new)

    def _discard(self, entity: str) -> None:
        """A TRUNCATE undoes what was done before it to the rows of a table, by the entity of its changes."""
        source = self._sources.get(entity)
        table = (source, *source.others) if source is not None else ()
        for name in [name for name, row in self._rows.items() if row.source in table]:
            del self._rows[name]

    def _resync(self, change: Change, source: Source, reason: str, grants: bool) -> None:
        """Every company gets one Resync per transaction, at the last change that causes it.

        One company alone, where all rows of the table are its rows.
        """
        company = source.only_company
        revoking = grants or any(draft.revokes for _, draft in self._resyncs.values())
        if company == EVERY_COMPANY:
            self._resyncs.clear()
        elif EVERY_COMPANY in self._resyncs:
            company = EVERY_COMPANY
        revokes = REVOKE_ALL if revoking else ()
        self._resyncs[company] = change.id, ResyncDraft(company, reason, change.at, revokes)

    def _move(self, change: Change, source: Source, companies: Iterable[str]) -> None:
        """A row that the path of a watch crosses leads elsewhere: the companies may have gained or lost rows."""
        for each in companies:
            company = each if source.watch.scope else unless_scoped(each, source.scopes)
            if company is None or (self._only is not None and company != self._only):
                continue
            former = self._moved.get(company)
            grants = source.watch.grants or (former is not None and bool(former[1].revokes))
            revokes = REVOKE_ALL if grants else ()
            self._moved[company] = change.id, ResyncDraft(company, "bulk", change.at, revokes)

    def _apply(
        self, change: Change, source: Source, key: bytes, old: Row | None, new: Row | None
    ) -> None:
        """One write of one row. Each company sees only the images that belong to it."""
        watch, column = source.watch, source.watch.company_column
        old_company = company_of(old, watch, source.tenant)
        if (
            column is not None
            and old is not None
            and new is not None
            and old[column] == new[column]
        ):
            new_company = old_company  # nearly always, and faster than to look it up
        else:
            new_company = company_of(new, watch, source.tenant)
        if source.scopes and watch.scope is None:
            old_company = unless_scoped(old_company, source.scopes)
            new_company = unless_scoped(new_company, source.scopes)
        if old_company is not None:
            stays = new if old_company == new_company else None
            self._step(change, source, (old_company, watch.entity, key), old, stays)
        if new_company is not None and new_company != old_company:
            self._step(change, source, (new_company, watch.entity, key), None, new)

    def _step(
        self,
        change: Change,
        source: Source,
        name: Name,
        old: Row | None,
        new: Row | None,
    ) -> None:
        """One write of a row."""
        if self._only is not None and name[0] != self._only:
            return
        net_change = self._rows.get(name)
        if net_change is None:
            net_change = self._rows[name] = _NetChange(change, source)
        net_change.partial = net_change.partial or change.partial
        net_change.step(old, new)
        net_change.last = change.id
        net_change.at = change.at
        net_change.actor = change.actor

    def find(self, swaps: Swaps) -> None:
        """Adds the rows whose keys may be taken before this transaction has ended."""
        for name, row in self._rows.items():
            if not row.source.is_key_awaited:
                swaps.add(name, row.first, row.last, row.at, grants=row.source.watch.grants)

    def drafts(self, bulk_limit: int) -> list[AnyDraft]:
        """The net messages; a company with more than `bulk_limit` of them gets one Resync instead."""
        for truncate in self._truncates:  # after all changes
            self._discard(truncate.entity)
        self._truncates.clear()
        by_company: dict[str, list[tuple[int, AnyDraft]]] = {}
        access: dict[str, _AccessChanges] = {}
        unclear: dict[str, tuple[int, AnyDraft]] = {}  # by company: the last one stands for all
        for (company, _, _), row in self._rows.items():
            source = row.source
            watch, ends = source.watch, row.ends()
            if watch.grants:
                if (changes := access.get(company)) is None:
                    changes = access[company] = _AccessChanges()
                changes.add(watch, ends, partial=row.partial or row.is_unclear)
            if row.is_unclear:
                resync: tuple[int, AnyDraft] = row.last, ResyncDraft(company, "overflow", row.at)
                unclear[company] = max(resync, unclear.get(company, resync), key=_order)
                continue
            draft = render(
                source,
                ends,
                company=company,
                at=row.at,
                xid=row.xid,
                actor=row.actor,
                partial=row.partial,
            )
            if draft is not None:
                by_company.setdefault(company, []).append((row.order(ends), draft))
        for company, each in unclear.items():
            by_company.setdefault(company, []).append(each)
        drafts: list[tuple[int, AnyDraft]] = []
        for company, unordered in by_company.items():
            ordered = sorted(unordered, key=_order)
            if len(ordered) > bulk_limit:
                order, last = ordered[-1]
                ordered = [(order, ResyncDraft(company, "bulk", last.at))]
            if (changes := access.get(company)) is not None and (revokes := changes.revokes()):
                order, last = ordered[-1]
                ordered[-1] = (order, last._replace(revokes=revokes))
            drafts += ordered
        drafts += self._moved.values()
        if self._resyncs:
            drafts += self._resyncs.values()
        if len(drafts) > 1:
            drafts.sort(key=_order)
        return [draft for _, draft in drafts]


class _AccessChanges:
    """The users who may lose one company with a transaction.

    `_lost`: the users of rows that gave access before it; `_kept`: those of rows that give access after it, among
    the rows that the transaction wrote. `_any`: there is a row whose users cannot be determined. It is no member
    of the sets, because a user may have the id ALL_USERS.
    """

    __slots__ = ("_any", "_kept", "_lost")

    def __init__(self) -> None:
        self._lost: set[str] = set()
        self._kept: set[str] = set()
        self._any = False

    def add(self, watch: Watch, ends: Ends, *, partial: bool) -> None:
        """Adds the net change of a row that may give access."""
        old, new = ends
        if watch.key == watch.company_column:
            self._any = self._any or (old is not None and new is None)
        elif watch.member is not None:
            if old is not None and (partial or not _names_member(old, watch)):
                self._any = True
                return
            if new is not None and not partial and not _names_member(new, watch):
                self._any = True  # a column is gone: access cannot follow the rows any more
                return
            before, after = user_of(old, watch), None if partial else user_of(new, watch)
            if before is not None and before != after:
                self._lost.add(before)
            if after is not None:
                self._kept.add(after)

    def revokes(self) -> tuple[str, ...]:
        """The users who may have lost the company; ALL_USERS among them stands for all of its users."""
        lost = self._lost - self._kept
        if sum(map(len, lost)) > REVOKES_LIMIT:
            return REVOKE_ALL
        return tuple(sorted(lost.union(REVOKE_ALL) if self._any else lost))


def _names_member(row: Row, watch: Watch) -> bool:
    """Whether the image has all columns that decide to whom the row gives access."""
    return watch.member in row and all(column in row for column in watch.member_if)
