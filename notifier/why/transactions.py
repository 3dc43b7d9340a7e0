"""Explains what happened to a transaction's changes on their way to a company."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from notifier.messages import at_text
from notifier.relay.changes import Change, Source
from notifier.relay.images import Unattributable, company_of, read_images
from notifier.why.evidence import Evidence, Log, Logged, Transaction
from notifier.why.question import Explanation

SHOWN_LIMIT = 10
"""How many messages are listed."""


async def explain_transaction(
    evidence: Evidence, log: Log, xid: int, explanation: Explanation, *, of_row: bool = False
) -> list[Logged]:
    """Adds facts and an answer; returns the messages by which the company learned of it.

    `of_row`: the transaction has written a row of a watched table, and the row has no message.
    """
    transaction = await evidence.transaction(xid)
    if not _has_ended(transaction, explanation):
        return []
    messages = await evidence.of_transaction(xid)
    if messages:
        explanation.add(f"transaction {xid}: committed, captured and relayed")
        list_messages(messages, explanation)
        explanation.conclude(delivered(messages))
        return messages
    changes = await evidence.changes_of(xid)
    if transaction.state == "unread" and changes:  # without any, they were dropped into a full log
        explanation.add(f"transaction {xid}: committed; {_captured(changes)}")
        explanation.conclude(not_relayed(log, changes))
        return []
    if changes:
        explanation.add(f"transaction {xid}: committed; {_captured(changes)} and read by the relay")
        return await _netted(evidence, changes, explanation)
    explanation.add(f"transaction {xid}: committed; no captured change of it is there any more")
    return await _gone(evidence, log, xid, explanation, of_row=of_row)


def _has_ended(transaction: Transaction, explanation: Explanation) -> bool:
    """Whether the transaction has committed, as far as the server knows; otherwise that is the explanation."""
    xid = transaction.xid
    if transaction.state == "future" or transaction.status == "future":
        explanation.conclude(f"no transaction has the number {xid} yet")
    elif transaction.gid is not None:
        explanation.conclude(
            f"transaction {xid} was prepared and not committed: its changes are sent after"
            " COMMIT PREPARED"
        )
    elif transaction.state == "running" or transaction.status == "in progress":
        session = f", in the session with pid {transaction.pid}" if transaction.pid else ""
        since = f" since {at_text(transaction.since)}" if transaction.since else ""
        explanation.conclude(
            f"transaction {xid} is still running{since}{session}: nothing of it is sent before it"
            " commits"
        )
    elif transaction.status == "aborted":
        explanation.conclude(f"transaction {xid} was rolled back: its changes do not exist")
    else:
        return True
    return False


def _captured(changes: Sequence[Change]) -> str:
    """Counts the captured changes by entity."""
    entities = sorted({change.entity for change in changes})
    return f"{len(changes)} of its changes were captured, of {', '.join(entities) or 'no entity'}"


def not_relayed(log: Log, changes: Sequence[Change]) -> str:
    """Why captured changes have no message yet."""
    at = min((change.at for change in changes), default=log.waiting_since)
    since = f" since {at_text(at)}" if at is not None else ""
    if not log.relays:
        return f"captured, and not relayed yet: it waits{since}, and no node relays; start: notifier serve"
    if log.in_backlog:
        return (
            f"captured, and not relayed yet: it waits{since} in a backlog that the relay is reading"
        )
    return f"captured, and not relayed yet: it waits{since}; see the log of the node that relays"


async def _netted(
    evidence: Evidence, changes: Sequence[Change], explanation: Explanation
) -> list[Logged]:
    """Nets the changes that are still there and have no message of their own, as the relay did."""
    sources = await evidence.sources()
    own, others, unattributed = evidence.net(changes, sources)
    resyncs = await evidence.resyncs()
    for each in own:
        if each.is_resync and (sent := [it for it in resyncs if it.at == each.at]):
            explanation.conclude(_behind(sent[-1]))
            return sent[-1:]
    if own or unattributed:
        if resyncs:
            explanation.conclude(_behind(resyncs[-1]), is_found=resyncs[-1].reason == "epoch")
            return resyncs[-1:]
        explanation.conclude("its messages are not in the log", is_found=False)
    elif others:
        explanation.conclude("it changed rows of other companies only")
    elif off := sorted(_without_name(changes, sources)):
        explanation.conclude(f"no message is configured for it: {', '.join(off)} sends none")
    elif not any(_companies(changes, sources)):
        explanation.conclude("the rows that it changed have no company, or count as deleted")
    else:
        explanation.conclude(
            "netted away: at its end every row was as before it, such as a row that was inserted"
            " and deleted in the same transaction"
        )
    return []


def _without_name(changes: Iterable[Change], sources: dict[str, Source]) -> set[str]:
    """The kinds of changes that `[[watch]]` gives no name."""
    off = set()
    for change in changes:
        if change.entity not in sources:
            off.add(f"{change.entity}, which is not watched any more,")
        for source in _sources_of(change, sources):
            created, updated, deleted = source.watch.names
            entity = source.watch.entity
            if created is None and change.old is None and change.new is not None:
                off.add(f"a created {entity}")
            elif updated is None and change.old is not None and change.new is not None:
                off.add(f"an updated {entity}")
            elif deleted is None and change.old is not None and change.new is None:
                off.add(f"a deleted {entity}")
    return off


def _companies(changes: Iterable[Change], sources: dict[str, Source]) -> Iterable[bool]:
    """For each image, as each watch of its table sees it, whether it has a company."""
    for change in changes:
        for source in _sources_of(change, sources):
            try:
                old, new, _ = read_images(change, source.watch, source.hidden_columns)
            except Unattributable:
                continue
            for row in (old, new):
                if row is not None:
                    yield company_of(row, source.watch, source.tenant) is not None


def _sources_of(change: Change, sources: dict[str, Source]) -> tuple[Source, ...]:
    """The watches of the changed table; none for a TRUNCATE."""
    source = sources.get(change.entity)
    return () if source is None or change.is_truncate else (source, *source.others)


async def _gone(
    evidence: Evidence, log: Log, xid: int, explanation: Explanation, *, of_row: bool
) -> list[Logged]:
    """The transaction has neither messages in this company nor captured changes that are still there."""
    if log.full:
        explanation.conclude(
            "the log is full: capture stores nothing until a node has relayed; every company gets a"
            " Resync then"
        )
        return []
    if others := await evidence.elsewhere(xid):
        explanation.conclude(
            f"it changed rows of other companies only: {others} of them have its messages"
        )
        return []
    resyncs = await evidence.resyncs()
    if log.oldest_tx is None or xid < log.oldest_tx:
        epochs = [each for each in resyncs if each.reason in ("epoch", "overflow")]
        if epochs:
            explanation.conclude(_behind(epochs[-1]))
            return epochs[-1:]
        if log.pruned:
            explanation.conclude(
                "it is beyond the retention: the log has nothing older than transaction"
                f" {log.oldest_tx}"
            )
            return []
    if resyncs:
        explanation.conclude(
            f"it left no change in the log: it changed no watched row, or {_behind(resyncs[-1])}",
            is_found=False,
        )
        return resyncs[-1:]
    if of_row:
        explanation.conclude(
            f"not captured: no trigger fired when transaction {xid} wrote the row; it was written before"
            " the first notifier migrate, with session_replication_role = replica, while the trigger"
            " was disabled or missing, or it came with an attached partition"
        )
        return []
    explanation.conclude(
        "nothing of it was captured: it changed no watched row, or nothing of a row that is sent"
        " (excluded columns, an update to the same values)"
    )
    return []


def _behind(resync: Logged) -> str:
    """The meaning of a Resync for the changes before it."""
    cause = {
        "bulk": (
            "the transaction changed more rows of the company than BULK_LIMIT or 64 MiB, named it in"
            " two spellings, or moved a row on a path"
        ),
        "truncate": "a watched table was truncated",
        "overflow": (
            "changes were dropped, could not be attributed to a company, or leave it uncertain whether"
            " a row is there"
        ),
        "epoch": "a new log began",
    }.get(resync.reason, "the relay could not send single changes")
    return f"it is behind {resync}: {cause}, and clients reload their state instead"


def delivered(messages: Sequence[Logged]) -> str:
    """The answer that messages were sent, with their positions."""
    last = messages[-1]
    if last.is_resync:
        return _behind(last)
    others = f", the last of {len(messages)} messages" if len(messages) > 1 else ""
    partial = " with its keys only (too large, or not to be serialised)" if last.partial else ""
    return f"delivered as {last.type} at position {last.position}{partial}{others}"


def list_messages(messages: Sequence[Logged], explanation: Explanation) -> None:
    """Lists the newest messages."""
    if len(messages) > SHOWN_LIMIT:
        explanation.add(f"{len(messages)} messages; the last {SHOWN_LIMIT} of them:")
    for each in messages[-SHOWN_LIMIT:]:
        of = f", transaction {each.tx}" if each.tx is not None else ""
        explanation.add(f"message: {each}{of}")
