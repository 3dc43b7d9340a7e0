"""The subscribers of a channel that do not get every message, grouped by what they get.

Each message is compared once with the distinct filters of its channel. A group whose filter a message
does not pass falls behind, until a message that passes, or a timer, sends it a `Skipped`. A group has
one `covered` position for all its members. A member that is further than its group, because it joined
later or has received something by itself, is in `ahead` until the group's next write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from notifier import metrics
from notifier.delivery.encoding import Encoding
from notifier.delivery.filter import Change, Entities, Filter, FilterIndex
from notifier.delivery.skipping import skipped
from notifier.delivery.subscriber import Subscriber
from notifier.delivery.transport import Write
from notifier.messages import Message


class Group:
    """The subscribers of one filter and one encoding.

    `covered`: up to there they have received, or are about to be written, all that passes the filter.
    """

    __slots__ = ("ahead", "covered", "direct", "encoding", "paused", "wanted")

    def __init__(self, wanted: Filter, encoding: Encoding, covered: int) -> None:
        self.wanted = wanted
        self.encoding = encoding
        self.covered = covered
        self.direct: dict[Subscriber, Write] = {}
        self.paused: dict[Subscriber, None] = {}
        self.ahead: dict[Subscriber, int] = {}

    def __len__(self) -> int:
        return len(self.direct) + len(self.paused)

    def members(self) -> list[Subscriber]:
        """All of them."""
        return [*self.direct, *self.paused]

    def level(self, position: int) -> set[Subscriber]:
        """Everybody is about to have `position`. Returns who had it already."""
        self.covered = position
        if not self.ahead:
            return set()
        level = {subscriber for subscriber, own in self.ahead.items() if own >= position}
        self.ahead.clear()
        return level


class Due:
    """What a group is about to be written of a batch, to those who were its members when it began.

    Where the first text is a Skipped, the members in `level` are as far already and get the others only.
    """

    __slots__ = ("_frames", "_rest", "_skips", "group", "level", "members", "texts")

    def __init__(self, group: Group, members: Sequence[Subscriber], level: set[Subscriber]) -> None:
        self.group = group
        self.members = members
        self.level = level
        self.texts: list[Message] = []
        self._skips = 0
        self._frames = self._rest = b""

    def skip(self, cover: Message) -> None:
        """Adds a Skipped."""
        self._skips += 1
        self.texts.append(cover)

    def encode(self, frames: Frames) -> None:
        """Must come before `write`."""
        self._frames = frames.of(self.group.encoding, self.texts)
        if self.level:
            self._rest = frames.of(self.group.encoding, self.texts[1:])

    def write_all(self) -> None:
        """Writes to all members at once."""
        group = self.group
        if self.level or group.paused:
            for member in self.members:
                self.write(member)
        else:
            for write in list(group.direct.values()):
                write(self._frames)

    def write(self, subscriber: Subscriber) -> None:
        """Writes to one member, unless it has left the group."""
        is_level = subscriber in self.level
        frames = self._rest if is_level else self._frames
        if write := self.group.direct.get(subscriber):
            if frames:
                write(frames)
        elif subscriber in self.group.paused:
            bodies = [text.body for text in self.texts[is_level:]]
            if bodies:
                subscriber.write(frames, bodies)

    def count(self) -> tuple[int, int]:
        """How many changes and how many Skipped are written."""
        members = len(self.members)
        skips = self._skips
        return (len(self.texts) - skips) * members, skips * members - len(self.level)


class Frames:
    """The frames of lists of texts, each list encoded once for all groups of one encoding."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._frames: dict[tuple[object, ...], bytes] = {}

    def of(self, encoding: Encoding, texts: Sequence[Message]) -> bytes:
        """The frames of these objects, which must live as long as this one."""
        if not texts:
            return b""
        key = (encoding, *map(id, texts))
        frames = self._frames.get(key)
        if frames is None:
            frames = self._frames[key] = encoding.frames(texts, self._epoch)
        return frames


class Groups:
    """All groups of a channel. `entities`: the entity of each `Type`."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities
        self._groups: dict[Filter, dict[Encoding, Group]] = {}
        self._group_of: dict[Subscriber, Group] = {}
        self._index = FilterIndex()
        self._last: Message | None = None  # the last one that was planned

    def __len__(self) -> int:
        return len(self._group_of)

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(list(self._group_of))

    # --- members

    def join(
        self,
        subscriber: Subscriber,
        wanted: Filter,
        encoding: Encoding,
        write: Write | None,
        position: int,
    ) -> None:
        """Adds a subscriber that has everything up to `position`, the last one that was planned."""
        if (by_encoding := self._groups.get(wanted)) is None:
            by_encoding = self._groups[wanted] = {}
            self._index.add(wanted)
            metrics.FILTERS.inc()
        if (group := by_encoding.get(encoding)) is None:
            group = by_encoding[encoding] = Group(wanted, encoding, position)
        if write is None:
            group.paused[subscriber] = None
        else:
            group.direct[subscriber] = write
        if group.covered < position:
            group.ahead[subscriber] = position
        self._group_of[subscriber] = group

    def leave(self, subscriber: Subscriber, position: int) -> int:
        """Removes a subscriber. Returns the position that it has come to: `position` if it has no group."""
        if (group := self._group_of.pop(subscriber, None)) is None:
            return position
        group.direct.pop(subscriber, None)
        group.paused.pop(subscriber, None)
        covered = group.ahead.pop(subscriber, group.covered)
        if not len(group):
            by_encoding = self._groups[group.wanted]
            del by_encoding[group.encoding]
            if not by_encoding:
                del self._groups[group.wanted]
                self._index.remove(group.wanted)
                metrics.FILTERS.dec()
        return covered

    def paused(self, subscriber: Subscriber) -> None:
        """Its transport is under back-pressure."""
        group = self._group_of.get(subscriber)
        if group is not None and group.direct.pop(subscriber, None) is not None:
            group.paused[subscriber] = None

    def resumed(self, subscriber: Subscriber, write: Write) -> None:
        """Its transport takes direct writes again."""
        group = self._group_of.get(subscriber)
        if group is not None and subscriber in group.paused:
            del group.paused[subscriber]
            group.direct[subscriber] = write

    # --- messages

    def plan(self, pieces: Sequence[Sequence[Message]]) -> list[list[Due]]:
        """What is to be written of each piece of a batch.

        All groups count as having received it from now on: members that join before it is written
        have it already.
        """
        members: dict[Group, list[Subscriber]] = {}
        return [self._plan_piece(piece, members) for piece in pieces]

    def _plan_piece(
        self, messages: Sequence[Message], members: dict[Group, list[Subscriber]]
    ) -> list[Due]:
        dues: dict[Group, Due] = {}
        for message in messages:
            cover: Message | None = None  # the Skipped for the message before this one
            before = message.position - 1
            for wanted in self._index.passing(Change(message.body, self._entities)):
                for group in self._groups[wanted].values():
                    is_behind = group.covered < before
                    if (due := dues.get(group)) is None:
                        if group not in members:
                            members[group] = group.members()
                        due = dues[group] = Due(group, members[group], group.level(before))
                    if is_behind:
                        if cover is None:
                            assert self._last is not None
                            cover = skipped(self._last)
                        due.skip(cover)
                    due.texts.append(message)
                    group.covered = message.position
            self._last = message
        return _counted([*dues.values()])

    def plan_skips(self) -> list[Due]:
        """A Skipped for every group that is behind."""
        last, dues = self._last, []
        if last is not None:
            cover = skipped(last)
            for group in self._all():
                if group.covered < last.position:
                    due = Due(group, group.members(), group.level(last.position))
                    due.skip(cover)
                    dues.append(due)
        return _counted(dues)

    def begin_epoch(self) -> None:
        """Positions begin again at 0."""
        self._last = None
        for group in self._all():
            group.level(0)

    def _all(self) -> Iterable[Group]:
        return (group for each in self._groups.values() for group in each.values())


def _counted(dues: list[Due]) -> list[Due]:
    """Adds what they write to the metrics."""
    counts = [due.count() for due in dues]
    metrics.DELIVERED.inc(sum(changes for changes, _ in counts))
    metrics.SKIPPED.inc(sum(skips for _, skips in counts))
    return dues
