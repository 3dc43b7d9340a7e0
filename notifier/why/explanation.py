"""Explains what happened to a change, from the writer's transaction to the clients of a company."""

from __future__ import annotations

from notifier.access.member_rows import is_respelled, may_be_respelled
from notifier.companies import split_scope
from notifier.database import sql
from notifier.database.connections import connected
from notifier.errors import NotifierError, SchemaMissing
from notifier.settings import Settings
from notifier.watches import Watch
from notifier.why import users
from notifier.why.changes import explain_row
from notifier.why.evidence import Evidence, Log, Logged
from notifier.why.question import Explanation, Question
from notifier.why.transactions import delivered, explain_transaction, list_messages, not_relayed


async def explain(settings: Settings, question: Question) -> Explanation:
    """Reads the database only. Raises NotifierError for a standby, DatabaseError where the schema cannot be read."""
    explanation = Explanation()
    async with connected(settings.listen_database, "why", standby=True) as connection:
        # Not as a setting of the new session, which target_session_attrs=read-write would refuse.
        await connection.execute("SET default_transaction_read_only = on")
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise NotifierError(
                "this is a standby, which shows neither locks nor running transactions;"
                " name the primary in the URL"
            )
        evidence = Evidence(connection, question.company, settings.bulk_limit)
        log = await evidence.log()
        if log is None:
            raise SchemaMissing("the log is empty; run: notifier migrate")
        _describe_company(evidence.company, log, explanation)
        if question.table is not None:
            messages = await explain_row(
                evidence, log, question.table, question.key_values, explanation
            )
        elif question.tx is not None:
            messages = await explain_transaction(evidence, log, question.tx, explanation)
        elif question.position is not None:
            messages = await _explain_position(evidence, log, question.position, explanation)
        else:
            messages = []
        if messages:
            await _describe_resyncs(evidence, messages[-1], explanation)
        if question.user is not None:
            await _add_user(settings, evidence, question.user, messages, explanation)
        await _refuse_spelling(evidence, explanation)
    explanation.conclude("name a change: --table with --key, --tx, or --position")
    return explanation


def _describe_company(company: str, log: Log, explanation: Explanation) -> None:
    """Describes the company in the log."""
    if log.head == 0:
        explanation.add(f"company {company}: the log has no message of it, in epoch {log.epoch}")
    elif log.first is None:
        explanation.add(
            f"company {company}: last position {log.head} in epoch {log.epoch}; its messages are beyond"
            " the retention"
        )
    else:
        explanation.add(
            f"company {company}: last position {log.head} in epoch {log.epoch}; the log has its"
            f" messages from {log.first} on"
        )
    if log.full:
        explanation.add("the log is full: capture stores nothing until a node has relayed")


async def _refuse_spelling(evidence: Evidence, explanation: Explanation) -> None:
    """An id that no row can have, such as 01 where ids are integers, explains everything else."""
    scope, company = split_scope(evidence.company)
    if not may_be_respelled(company):
        return
    types = await evidence.connection.fetch(sql.query("company_types"), scope)
    if is_respelled(company, [row["type"] for row in types]):
        explanation.answer = (
            "no company has this id: ids are matched by their text in messages, without leading"
            " zeros, signs, spaces and braces"
        )
        explanation.is_found = True


async def _explain_position(
    evidence: Evidence, log: Log, position: int, explanation: Explanation
) -> list[Logged]:
    """The message at a position, or why there is none."""
    message = await evidence.message(position)
    if message is not None:
        list_messages([message], explanation)
        explanation.conclude(delivered([message]))
        return [message]
    if position > log.head:
        explanation.conclude(
            f"position {position} was not given out yet in this epoch: the last one is {log.head}"
        )
        if log.waiting_since is not None:
            explanation.add(f"there are changes, of any company: {not_relayed(log, [])}")
    else:
        from_here = f"from {log.first} on" if log.first is not None else "none of this company"
        explanation.conclude(
            f"position {position} is beyond the retention: the log has messages {from_here}; a client"
            " that resumes there gets Recovered: false and reloads its state"
        )
    return []


async def _describe_resyncs(evidence: Evidence, message: Logged, explanation: Explanation) -> None:
    """A Resync behind the message: clients have read the state again since."""
    later = [each for each in await evidence.resyncs() if each.position > message.position]
    if later:
        explanation.add(f"behind it: {later[-1]}; clients have reloaded their state with it")


async def _add_user(
    settings: Settings,
    evidence: Evidence,
    user: str,
    messages: list[Logged],
    explanation: Explanation,
) -> None:
    """Explains what the user may see, and whether the last message was sent to this user."""
    access = await users.find_access(settings, evidence, user)
    tables = [
        f"{stored.relation}{_conditions(stored.watch)}"
        for stored in await evidence.watches()
        if stored.watch.member is not None
    ]
    line = users.describe(access, user, [] if settings.membership_query else tables)
    explanation.add(line)
    if messages:
        reached = users.verdict(access, user, messages[-1])
        explanation.answer = f"{explanation.answer}; {reached}"
    else:
        explanation.conclude(line)


def _conditions(watch: Watch) -> str:
    """The options that decide whether a member row gives access, beside its company and user."""
    options = [
        name
        for name, value in (("member_if", watch.member_if), ("deleted_if", watch.deleted_if))
        if value
    ]
    return f" (with {' and '.join(options)})" if options else ""
