"""Messages of which users get views of their own: from the change of a row to each session's socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.delivery import channel
from notifier.delivery.session import Session
from notifier.messages import ALL_USERS, Message
from notifier.relay.changes import Source
from notifier.relay.netting import net
from notifier.relay.rendering import Draft
from notifier.watches import CALENDAR
from tests.timeless import Timeless
from tests.unit.captured import change
from tests.unit.lines import Line
from tests.unit.worlds import A, World, settle

Values: TypeAlias = dict[str, Any]

WATCH = replace(CALENDAR[0], visible_to=("owner", "guests"))
USERS = ["u1", "u2", "u3"]
TITLES = ["alpha", "beta", "gamma"]
NOON = "2026-11-22T12:00:00+00:00"


@dataclass
class Follower:
    """A session that follows the company, and what its client holds."""

    user: str
    session: Session
    line: Line
    after: int
    titles: list[str] | None


class Company:
    """The rows of a company, its ledger of changes, and the sessions that follow it."""

    def __init__(self, *, updated: bool) -> None:
        """`updated`: updates are sent, not only what is created and deleted."""
        self.updated = updated
        self.sources = {"Event": Source(WATCH if updated else replace(WATCH, updated=""))}
        self.world = World()
        self.world.log.stored[A] = []
        self.rows: dict[int, Values] = {}
        self.ledger: list[tuple[Values | None, Values | None]] = []
        self.followers: list[Follower] = []
        self.writes = 0

    def write(
        self, key: int, new: Values | None, *, deliver: bool, revokes: tuple[str, ...] = ()
    ) -> None:
        """Commits a change of a row in a transaction of its own; access of `revokes` is re-checked."""
        old = self.rows.pop(key, None)
        if new is not None:
            self.writes += 1
            self.rows[key] = new = {
                "id": str(key), "company_id": A, "note": f"secret{self.writes}.", "starts_at": NOON, "ends_at": NOON,
                "description": None, "location": None, "all_day": False, "organizer_id": None,
                "created_at": NOON, "updated_at": NOON, **new,
            }  # fmt: skip
        if old is None and new is None:
            return
        drafts, _ = net([change(1, old, new)], self.sources, 9)
        if not drafts:
            return
        (draft,) = drafts
        assert isinstance(draft, Draft)
        log, now = self.world.log, datetime.now(UTC)
        self.ledger.append((old, new))
        position = log._seq = len(self.ledger)
        body, views = draft.body(position), draft.views_at(position)
        log.stored[A].append(Message(position, A, position, draft.at, now, body, revokes, views))
        if deliver:
            log.deliver()

    async def follow(self, user: str, titles: list[str] | None, after: int | None) -> None:
        """Opens a session; with titles it has a filter."""
        session, line = await self.world.enter(user, None)
        self.world.membership.members.add((A, user))
        data: Values = {"companyId": A}
        if titles is not None:
            data["where"] = {"Event": {"Title": titles}}
        if after is not None:
            data |= {"after": min(after, len(self.ledger)), "epoch": "e"}
        await session.receive(json.dumps({"type": "subscribe", "data": data}))
        (answer,) = [each for each in line.sent if each["Type"] == "SubscribeResult"]
        assert answer["Success"], answer
        start = answer["Data"]["Position"]
        self.followers.append(Follower(user, session, line, start, titles))

    def check(self) -> None:
        """Each client has exactly what it may have, every position is covered, and no secret leaked."""
        for follower in self.followers:
            covered, seen = follower.after, follower.line.sent[2:]
            for message in seen:
                position = message["Position"]
                if message["Type"] == "Skipped":
                    assert position > covered
                    assert all(
                        self.expected(follower, each) is None
                        for each in range(covered + 1, position + 1)
                    )
                else:
                    assert position == covered + 1
                    assert self.expected(follower, position) == essence(message)
                covered = position
            assert covered == len(self.ledger)
            text = json.dumps(seen)
            for old, new in self.ledger:
                for row in (old, new):
                    if row is not None and not sees(follower.user, row):
                        assert row["note"] not in text

    def expected(self, follower: Follower, position: int) -> Values | None:
        """By the contract: what a client gets at a position."""
        old, new = self.ledger[position - 1]
        before = old if old is not None and sees(follower.user, old) else None
        after = new if new is not None and sees(follower.user, new) else None
        visible = [row for row in (before, after) if row is not None]
        if not visible or before == after:
            return None
        if follower.titles is not None and not {row["title"] for row in visible} & {
            *follower.titles
        }:
            return None
        kind = (
            "EventCreated"
            if before is None
            else "EventDeleted"
            if after is None
            else "EventUpdated"
        )
        if kind == "EventUpdated" and not self.updated:
            return None
        former = before["note"] if before is not None and after is not None else None
        return {"Type": kind, "Note": visible[-1]["note"], "Old": former}


def essence(message: Values) -> Values:
    return {
        "Type": message["Type"],
        "Note": message["Data"]["Note"],
        "Old": message.get("Old", {}).get("Note"),
    }


def sees(user: str, row: Values) -> bool:
    """The contract, written once more."""
    named = {row["owner"], *(row["guests"] or ())} - {None, ""}
    return not named or user in named


Step: TypeAlias = Callable[[Company], Coroutine[Any, Any, None]]

rows = st.fixed_dictionaries(
    {
        "title": st.sampled_from(TITLES),
        "owner": st.sampled_from([None, None, None, "", *USERS]),
        "guests": st.sampled_from([None, None, [], [None], *([each] for each in USERS), USERS[:2]]),
    }
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    kind = draw(
        st.sampled_from(["write"] * 8 + ["follow"] * 3 + ["leave", "pause", "resume", "wait"])
    )
    number = draw(st.integers(0, 5))
    row = draw(rows)
    user = draw(st.sampled_from([*USERS, "u9"]))
    titles = draw(st.none() | st.lists(st.sampled_from(TITLES), min_size=1, unique=True))
    deliver = draw(st.booleans())

    async def step(company: Company) -> None:
        followers = company.followers
        match kind:
            case "write":
                revokes = (ALL_USERS,) if number > 3 else ()
                new = None if number == 0 else row
                company.write(number % 3, new, deliver=deliver, revokes=revokes)
            case "follow":
                company.world.log.deliver()  # else the session waits for the node
                await company.follow(user, titles, number if deliver else None)
            case "wait":
                await asyncio.sleep(number)
            case "leave" if followers:
                followers.pop(number % len(followers)).session.closed()
            case "pause" if followers:
                followers[number % len(followers)].session.paused()
            case "resume" if followers:
                followers[number % len(followers)].session.resumed()

    return step


@settings(max_examples=80, deadline=None)
@given(st.lists(steps(), min_size=20, max_size=50), st.booleans(), st.booleans())
def test_each_client_has_what_its_user_may_see_and_no_more(
    history: list[Step], updated: bool, in_slices: bool
) -> None:
    async def run() -> None:
        company = Company(updated=updated)
        for user in USERS:
            await company.follow(user, None, None)
        for step in history:
            await step(company)
        company.world.log.deliver()
        await settle()
        await asyncio.sleep(6)
        company.check()

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=Timeless) as runner:
        if in_slices:
            patch.setattr(channel, "SLICE", 1)
        runner.run(run())
