"""For SQLAlchemy: each transaction of a session names its actor.

record_actor()

with acting_as("u7"), Session.begin() as session:
    session.add(event)
    session.flush()
    tx = session.scalar(TX)
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session, SessionTransaction

from notifier.writers.actor import CURRENT_TX, SET_ACTOR, current_actor

TX = text(CURRENT_TX)
"""For `session.scalar(TX)`, also of an AsyncSession: what a client waits for with `await`.

It must be executed in the transaction that writes.
"""

_SET_ACTOR = text(SET_ACTOR.format(":actor"))


def record_actor(sessions: Any = Session) -> None:
    """Names `current_actor()` at the begin of each transaction, at the cost of one short statement.

    `sessions`: a sessionmaker or a class of sessions; by default all sessions, those of AsyncSession
    too. Without an actor, and in another database than PostgreSQL, nothing is done.
    """
    if not event.contains(sessions, "after_begin", _after_begin):
        event.listen(sessions, "after_begin", _after_begin)


def _after_begin(_: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested or connection.dialect.name != "postgresql":
        return
    if (actor := current_actor()) is not None:
        connection.execute(_SET_ACTOR, {"actor": actor})
