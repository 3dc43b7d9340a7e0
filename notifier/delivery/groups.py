"""The subscribers of a channel that receive only some messages, grouped by filter and encoding.

Each message is compared once with the distinct filters of its channel. Subscribers without one are in groups
only in a channel that has had messages with per-user views. A group falls behind when a message does not match its
filter, until a message that does, or a timer, sends it a `Skipped`. A group has
one `covered` position for all its members. A member that is ahead of its group, because it joined
later or received messages individually, is in `ahead` until the group's next write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from notifier import metrics
from notifier.delivery.encoding import Encoding
from notifier.delivery.filter import Change, Entities, Filter, FilterIndex
from notifier.delivery.skipping import skipped
from notifier.delivery.subscriber import Subscriber
from notifier.delivery.transport import Write
from notifier.messages import JSON, Message

SHARED_MEMBERS = 5
"""A view with fewer readers is encoded as one for a single client (`Encoding.unshared`)."""


class Group:
    """The subscribers of one filter, or of none, and one encoding.

    `covered`: up to there they have received, or are about to be written, all that passes the filter.
    """

    __slots__ = ("ahead", "covered", "direct", "encoding", "paused", "wanted")

    def __init__(self, wanted: Filter | None, encoding: Encoding, covered: int) -> None:
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

    def position_of(self, subscriber: Subscriber) -> int:
        """The position up to which a member has received its messages."""
        return self.ahead.get(subscriber, self.covered)

    def cover(self, position: int) -> set[Subscriber]:
        """Sets `covered`. Returns the members that had come to `position` already."""
        self.covered = position
        if not self.ahead:
            return set()
        ahead = {subscriber for subscriber, own in self.ahead.items() if own >= position}
        self.ahead.clear()
        return ahead


class Due:
    """The messages of a batch that a group must receive, and the members that it had when the batch began.

    Where the first text is a Skipped, the members in `ahead` have come that far already and get only the others.
    `is_for_all`: `members` are all of the group.
    """

    __slots__ = ("_frames", "_is_for_all", "_rest", "_skips", "ahead", "group", "members", "texts")

    def __init__(
        self,
        group: Group,
        members: list[Subscriber],
        ahead: set[Subscriber],
        *,
        is_for_all: bool = True,
    ) -> None:
        self.group = group
        self.members = members
        self._is_for_all = is_for_all
        self.ahead = ahead
        self.texts: list[Message] = []
        self._skips = 0
        self._frames = self._rest = b""

    def skip(self, cover: Message) -> None:
        """Adds a Skipped."""
        self._skips += 1
        self.texts.append(cover)

    def encode(self, frames: Frames) -> None:
        """Must come before `write`."""
        encoding = self.group.encoding
        if not self._is_for_all and len(self.members) < SHARED_MEMBERS:
            encoding = encoding.unshared or encoding
        self._frames = frames.of(encoding, self.texts)
        if self.ahead:
            self._rest = frames.of(encoding, self.texts[1:])

    def write_all(self) -> None:
        """Writes to all its members at once."""
        group = self.group
        if self.ahead or group.paused or not self._is_for_all:
            for member in self.members:
                self.write(member)
        else:
            for write in list(group.direct.values()):
                write(self._frames)

    def write(self, subscriber: Subscriber) -> None:
        """Writes to one member, unless it has left the group."""
        is_ahead = subscriber in self.ahead
        frames = self._rest if is_ahead else self._frames
        if write := self.group.direct.get(subscriber):
            if frames:
                write(frames)
        elif subscriber in self.group.paused:
            bodies = [text.body for text in self.texts[is_ahead:]]
            if bodies:
                subscriber.write(frames, bodies)

    def count(self) -> tuple[int, int]:
        """How many changes and how many Skipped are written."""
        members = len(self.members)
        skips = self._skips
        return (len(self.texts) - skips) * members, skips * members - len(self.ahead)


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


class _ViewPlan:
    """Collects what is to be written of one message that has views. `last`: the message before it."""

    def __init__(self, last: Message | None, message: Message) -> None:
        self._before = message.position - 1
        self._position = message.position
        self._cover = None if last is None else skipped(last)
        self._skipped = skipped(message)
        self._dues: dict[tuple[Group, int, bool], Due] = {}

    @property
    def dues(self) -> list[Due]:
        return [*self._dues.values()]

    def add(self, group: Group, subscriber: Subscriber, text: Message) -> None:
        """A text for one subscriber, after a Skipped where it is behind."""
        is_behind = text is not self._skipped and group.position_of(subscriber) < self._before
        key = (group, id(text), is_behind)
        if (due := self._dues.get(key)) is None:
            due = self._dues[key] = Due(group, [], set(), is_for_all=False)
            if is_behind:
                assert self._cover is not None
                due.skip(self._cover)
            due.texts.append(text)
        due.members.append(subscriber)

    def add_others(self, group: Group, users: AbstractSet[str], text: Message) -> None:
        """A text for all members but those of some users, which get no less than a Skipped."""
        for subscriber in group.members():
            if subscriber.user not in users:
                self.add(group, subscriber, text)
            elif group.position_of(subscriber) < self._position:
                self.add(group, subscriber, self._skipped)
        group.cover(self._position)


class Groups:
    """All groups of a channel. `entities`: the entity of each `Type`."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities
        self._groups: dict[Filter | None, dict[Encoding, Group]] = {}
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
        wanted: Filter | None,
        encoding: Encoding,
        write: Write | None,
        position: int,
    ) -> None:
        """Adds a subscriber that has everything up to `position`, the last one that was planned."""
        if (by_encoding := self._groups.get(wanted)) is None:
            by_encoding = self._groups[wanted] = {}
            if wanted is not None:
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
                if group.wanted is not None:
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
        """The messages that groups must receive of each piece of a batch.

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
            for wanted in self._passing(message.body):
                for group in self._groups[wanted].values():
                    is_behind = group.covered < before
                    if (due := dues.get(group)) is None:
                        if group not in members:
                            members[group] = group.members()
                        due = dues[group] = Due(group, members[group], group.cover(before))
                    if is_behind:
                        if cover is None:
                            assert self._last is not None
                            cover = skipped(self._last)
                        due.skip(cover)
                    due.texts.append(message)
                    group.covered = message.position
            self._last = message
        return _counted([*dues.values()])

    def plan_views(
        self, message: Message, users: Mapping[str, AbstractSet[Subscriber]]
    ) -> list[Due]:
        """The messages that groups must receive of a message that has views. `users`: the subscribers of each user.

        Those who get nothing fall behind, so the cost grows only with the number of those who get something.
        """
        plan = _ViewPlan(self._last, message)
        self._last = message
        for view in sorted(message.views, key=lambda each: each.others):
            text, passing = message.seen_as(view), set(self._passing(view.body))
            if view.others:
                for wanted in passing:
                    for group in self._groups[wanted].values():
                        plan.add_others(group, view.users, text)
                continue
            # Either may be the larger: a row can name a hundred thousand users.
            few = view.users if len(view.users) < len(users) else users.keys() & view.users
            for user in few:
                for subscriber in users.get(user, ()):
                    if (group := self._group_of[subscriber]).wanted in passing:
                        plan.add(group, subscriber, text)
                        group.ahead[subscriber] = message.position
        return _counted(plan.dues)

    def _passing(self, body: JSON) -> Iterable[Filter | None]:
        """The filters that a change passes. None is the one of the subscribers that have none."""
        passing = self._index.passing(Change(body, self._entities)) if self._index else ()
        return (None, *passing) if None in self._groups else passing

    def plan_skips(self) -> list[Due]:
        """A Skipped for every group that is behind."""
        last, dues = self._last, []
        if last is not None:
            cover = skipped(last)
            for group in self._all():
                if group.covered < last.position:
                    due = Due(group, group.members(), group.cover(last.position))
                    due.skip(cover)
                    dues.append(due)
        return _counted(dues)

    def begin_epoch(self) -> None:
        """Positions begin again at 0."""
        self._last = None
        for group in self._all():
            group.cover(0)

    def _all(self) -> Iterable[Group]:
        return (group for each in self._groups.values() for group in each.values())


def _counted(dues: list[Due]) -> list[Due]:
    """Counts their messages in the metrics."""
    counts = [due.count() for due in dues]
    metrics.DELIVERED.inc(sum(changes for changes, _ in counts))
    metrics.SKIPPED.inc(sum(skips for _, skips in counts))
    return dues
