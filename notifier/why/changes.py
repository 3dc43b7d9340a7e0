"""Explains what happened to a row's changes on their way to a company."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.database import catalogue, sql
from notifier.database.configuration import Stored
from notifier.errors import SettingsError
from notifier.relay.changes import Change
from notifier.relay.images import Unattributable, key_of, read_images
from notifier.watches import Watch
from notifier.why.evidence import Evidence, Log, Logged, escaped, key_texts, plain
from notifier.why.question import Explanation
from notifier.why.rows import Row, RowUnreadable, find_row
from notifier.why.transactions import (
    delivered,
    explain_transaction,
    list_messages,
    not_relayed,
)


async def explain_row(
    evidence: Evidence, log: Log, table: str, key: Sequence[str], explanation: Explanation
) -> list[Logged]:
    """Adds facts and an answer; returns the messages about the row."""
    found = [each for each in await evidence.watches() if _is_named(each, table)]
    if not found:
        await _unwatched(evidence, table, explanation)
        return []
    for watch in (each.watch for each in found):
        if len(key) != len(watch.key_columns):
            raise SettingsError(f"--key: that of {table} is {', '.join(watch.key_columns)}")
    messages = await evidence.of_row([each.watch for each in found], key)
    gap = await _gap(evidence, found, explanation)
    list_messages(messages, explanation)
    unread, read = await _captured(evidence, found, key)
    if unread:
        explanation.add(f"{len(unread)} captured changes of the row wait for the relay")
        explanation.conclude(not_relayed(log, unread))
        return messages
    try:
        row = await _find_row(evidence, found, key)
    except RowUnreadable as error:
        explanation.add(f"the row cannot be read: {error}")
        if messages:
            explanation.conclude(delivered(messages))
            return messages
        row = None
    else:
        await _describe_row(evidence, row, explanation)
    if row is not None and (not messages or row.written_by > (messages[-1].tx or 0)):
        return await _unsent_row(evidence, log, row, messages, gap=gap, explanation=explanation)
    if messages:
        deletions = {stored.watch.deleted for stored in found}
        _end_of_row(row, messages, messages[-1].type in deletions, gap, explanation)
        return messages
    if read:
        return await explain_transaction(evidence, log, read[-1].xid, explanation)
    await _never(evidence, log, gap, explanation)
    return []


async def _find_row(evidence: Evidence, found: Sequence[Stored], key: Sequence[str]) -> Row | None:
    """The row as the watch sees it by which it belongs to the company, if one does."""
    rows = [await find_row(evidence.connection, stored, key) for stored in found]
    present = [row for row in rows if row is not None]
    own = [row for row in present if row.company == evidence.company]
    return next(iter(own or present), None)


def _is_named(stored: Stored, table: str) -> bool:
    """Whether the operator's word names the table: as in `notifier.toml`, in the catalogue, or by entity."""
    names = {stored.watch.table, stored.relation, stored.watch.entity}
    names |= {name.replace('"', "") for name in names}
    names |= {name.rpartition(".")[2] for name in names}
    return table in names or table.replace('"', "") in names


async def _unwatched(evidence: Evidence, table: str, explanation: Explanation) -> None:
    """The table is not watched; does it exist?"""
    tables = await catalogue.spellings(evidence.connection)
    for name in tables:
        if table.replace('"', "") in (
            name.replace('"', ""),
            name.replace('"', "").partition(".")[2],
        ):
            explanation.conclude(
                f"table {name} is not watched: add a [[watch]] for it and run: notifier migrate"
            )
            return
    hint = catalogue.did_you_mean(table, tables)
    explanation.conclude(f"there is no table {table}, and none of that name is watched{hint}")


async def _gap(evidence: Evidence, found: Sequence[Stored], explanation: Explanation) -> str | None:
    """Why the tables are not captured now, if they are not."""
    for stored in found:
        explanation.add(f"table {stored.relation}: watched as {stored.watch.entity}")
    relations = {stored.relation for stored in found}
    for row in await evidence.connection.fetch(sql.query("trigger_differences"), None):
        if row["relation"] in relations and row["wanted"]:
            state = "disabled or altered" if row["present"] else "missing"
            gap = f"trigger {row['name']} on {row['relation']} is {state}; run: notifier migrate"
            explanation.add(gap)
            return gap
    return None


async def _captured(
    evidence: Evidence, found: Sequence[Stored], key: Sequence[str]
) -> tuple[list[Change], list[Change]]:
    """The row's captured changes that are still there: not read by the relay yet, and read."""
    changes = [
        change
        for stored in found
        for change in await evidence.changes_with(stored.captured_as, escaped(key[-1]))
        if _is_of(change, stored.watch, key)
    ]
    states = await evidence.states([*{change.xid for change in changes}])
    unread = [change for change in changes if states[change.xid] == "unread"]
    return unread, [change for change in changes if states[change.xid] == "stored"]


def _is_of(change: Change, watch: Watch, key: Sequence[str]) -> bool:
    if change.is_truncate:
        return False
    try:
        rows = read_images(change, watch)[:2]
    except Unattributable:
        return False
    return any(
        row is not None and key_texts(key_of(row, watch), watch) == plain(key) for row in rows
    )


async def _describe_row(evidence: Evidence, row: Row | None, explanation: Explanation) -> None:
    if row is None:
        explanation.add("there is no such row now")
        return
    explanation.add(f"the row is there; transaction {row.written_by} wrote it last")
    if row.path:
        explanation.add(row.path)
    if row.held_by is not None and row.held_by != row.written_by:
        transaction = await evidence.transaction(row.held_by)
        if transaction.state == "running":
            explanation.add(
                f"transaction {row.held_by} changes or locks it now: that is not sent before it commits"
            )


async def _unsent_row(
    evidence: Evidence,
    log: Log,
    row: Row,
    messages: list[Logged],
    *,
    gap: str | None,
    explanation: Explanation,
) -> list[Logged]:
    """The row was written after its last message, or has none."""
    if row.has_company and row.company != evidence.company:
        where = "has no company" if row.company is None else "belongs to another company"
        last = f"; this company has {messages[-1]}" if messages else ""
        explanation.conclude(f"the row {where}{last}")
    elif row.is_deleted:
        last = f"; the last message is {messages[-1]}" if messages else ""
        explanation.conclude(f"the row counts as deleted, so changes of it are not sent{last}")
    elif gap is not None:
        explanation.conclude(f"not captured: {gap}")
    elif messages:
        own = await evidence.of_transaction(row.written_by)
        if not own and not await evidence.changes_of(row.written_by):
            explanation.add(
                f"nothing of transaction {row.written_by} was captured: it changed nothing that is"
                " sent, or it is the number of a savepoint, or triggers were off"
            )
            explanation.conclude(delivered(messages))
            return messages
    if explanation.answer is not None:
        return messages
    unsent = await explain_transaction(
        evidence, log, row.written_by, explanation, of_row=not messages
    )
    return unsent or messages


def _end_of_row(
    row: Row | None,
    messages: Sequence[Logged],
    is_deletion: bool,
    gap: str | None,
    explanation: Explanation,
) -> None:
    """The log has messages about the row, and nothing was written after them."""
    if row is None and not is_deletion:
        cause = (
            gap or "its table or partition was truncated, dropped or detached, or triggers were off"
        )
        explanation.conclude(
            f"the row is gone and its deletion was not captured: {cause}; the last message is {messages[-1]}"
        )
    explanation.conclude(delivered(messages))


async def _never(evidence: Evidence, log: Log, gap: str | None, explanation: Explanation) -> None:
    """There is neither a row, nor a change, nor a message."""
    resyncs = await evidence.resyncs()
    if gap is not None:
        explanation.conclude(f"not captured: {gap}")
    elif log.full:
        explanation.conclude("the log is full: capture stores nothing until a node has relayed")
    elif log.pruned or resyncs:
        explanation.conclude(
            "no such row is committed, and the log has no change of it: it was rolled back, never"
            " written, or its changes are older than the log's messages",
            is_found=False,
        )
    else:
        explanation.conclude(
            "no such row was committed in this company: it was rolled back, or inserted and deleted"
            " in the same transaction"
        )
