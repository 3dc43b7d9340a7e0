"""Moves as they are kept and saved for the next relay; `notifier.relay.moves` has their use."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from notifier.relay.changes import EVERY_COMPANY


class Move(msgspec.Struct, frozen=True):
    """One move, as `notifier.moves` stores it: other versions read these names.

    `values`: the companies before and after it as JSON texts, null among them; `companies`: their ids.
    `xid` and `last`: its transaction, and the last change of that. `revokes`: as in the Resync.
    `open`: the transactions that were open when it was read; None: not known yet. With them those from `begun` up to
    `before`: a snapshot does not list transactions that began after the last one that has ended.
    """

    entity: str
    column: str
    values: frozenset[str]
    companies: frozenset[str]
    xid: int
    last: int
    revokes: tuple[str, ...]
    open: frozenset[int] | None = None
    begun: int = 0
    before: int = 0

    def may_be_missed_by(self, xid: int) -> bool:
        """Whether the transaction was open when the move was read, or may have been."""
        return self.open is not None and (xid in self.open or self.begun <= xid < self.before)


decode_moves = msgspec.json.Decoder(list[Move]).decode
"""Reads moves that were saved."""


def merged(move: Move, other: Move) -> Move:
    """One of two moves that concern every company, missed by the transactions that may have missed either."""
    begun = [each.begun for each in (move, other) if each.before]
    return msgspec.structs.replace(
        move,
        open=(move.open or frozenset()) | (other.open or frozenset()),
        begun=min(begun, default=0),
        before=max(move.before, other.before),
    )


def anywhere(move: Move) -> Move:
    """The move as one that concerns every company."""
    return msgspec.structs.replace(move, values=frozenset(), companies=frozenset({EVERY_COMPANY}))


def summary(moves: Iterable[Move]) -> list[Move]:
    """Moves that concern every company, in place of these: one for each watch.

    Another one for those of which it is not known yet which transactions were open.
    """
    found: dict[tuple[str, str, bool], list[Move]] = {}
    for move in moves:
        found.setdefault((move.entity, move.column, move.open is None), []).append(move)
    summaries = []
    for (_, _, is_new), those in found.items():
        begun = [move.begun for move in those if move.before]
        summaries.append(
            msgspec.structs.replace(
                anywhere(those[0]),
                xid=0,
                last=min(move.last for move in those),
                revokes=max(move.revokes for move in those),
                open=None if is_new else frozenset().union(*(move.open or () for move in those)),
                begun=min(begun, default=0),
                before=max(move.before for move in those),
            )
        )
    return summaries
