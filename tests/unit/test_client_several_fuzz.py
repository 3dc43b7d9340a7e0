"""The Python client with several companies, on connections that break, freeze and lose messages, to a server that
begins epochs, prunes its log, revokes and refuses. tests/client/several-fuzz.test.mjs is the same in JavaScript.

The application subscribes, leaves, changes filters and waits for writes at random. Its rows are never older than
its position or than a write that has arrived, and are complete once the link is good again.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections import Counter
from typing import Any

from notifier.client import (
    ArrivalError,
    Message,
    Pace,
    Recovered,
    Report,
    Resync,
    Skipped,
    Status,
    Subscription,
)
from notifier.client.client import Client
from tests.timeless import timeless
from tests.unit.fake_server import Peer, answered, authenticated, rejected, settle

ENTITIES = ("Event", "Employee")
FILTERS: list[list[str] | None] = [None, ["Event"], ["Event", "Employee"]]
"""All let events pass: whichever of them is in force, events must be complete."""

KEYS = 4
LIMIT = 3
GONE = {"company_forbidden", "revoked", "too_many_companies"}


def passes(entities: list[str] | None, entity: str) -> bool:
    return entities is None or entity in entities


class Company:
    """A log: each message sets a key of an entity to a value. Values grow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 1
        self.kept = 0
        self.allowed = True
        self.log: list[dict[str, Any]] = []
        self.rows = {entity: [0] * KEYS for entity in ENTITIES}
        self.history = [copy.deepcopy(self.rows)]

    @property
    def epoch_name(self) -> str:
        return f"e{self.epoch}"

    def append(self, kind: str, data: dict[str, Any]) -> None:
        data |= {"CompanyId": self.name}
        self.log.append({"Type": kind, "Data": data, "Position": len(self.log) + 1})
        self.history.append(copy.deepcopy(self.rows))

    def write(self, entity: str, key: int, value: int) -> None:
        self.rows[entity][key] = value
        self.append(f"{entity}Updated", {"key": key, "value": value})

    def begin_epoch(self) -> None:
        self.epoch += 1
        self.kept = 0
        self.log = []
        self.history = [copy.deepcopy(self.rows)]
        self.append("Resync", {"Reason": "epoch", "Epoch": self.epoch_name})


class Followed:
    """The server's end of a subscription. `covered` is the position up to which messages or skips were sent."""

    def __init__(self, entities: list[str] | None, epoch: int, position: int) -> None:
        self.entities = entities
        self.epoch = epoch
        self.sent = self.covered = position
        self.awaited: list[str] = []
        self.is_lossy = False


class Link(Peer):
    """The server's end of a socket: in order, as TCP is; a message is lost only where that leaves a visible gap."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._followed: dict[str, Followed] = {}
        self.is_frozen = False

    async def send(self, message: str) -> None:
        if self.is_frozen:
            return
        command = json.loads(message)
        data = command.get("data", {})
        match command["type"]:
            case "authenticate":
                self._put(authenticated())
            case "ping":
                self._put({"Type": "Pong"})
            case "subscribe":
                self._subscribe(data)
            case "unsubscribe":
                self._followed.pop(data["companyId"], None)
            case "await" if data["companyId"] in self._followed:
                self._followed[data["companyId"]].awaited.append(data["tx"])
            case "await":
                self._fail(data["companyId"], data["tx"])

    def _subscribe(self, data: dict[str, Any]) -> None:
        world, name = self._world, data["companyId"]
        company = world.companies[name]
        refusal = None
        if not company.allowed:
            refusal = "company_forbidden"
        elif world.happens(0.05):
            refusal = "bad_filter"
        elif len(self._followed) == LIMIT and name not in self._followed:
            refusal = "too_many_companies"
        if refusal is not None:
            self._put(rejected(name, refusal))
            return
        after = data.get("after", -1)
        resumes = data.get("epoch") == company.epoch_name and not world.happens(0.1)
        resumes = resumes and company.kept <= after <= len(company.log)
        position = after if resumes else len(company.log)
        answer = answered(name, position, resumes if "after" in data else None)
        answer["Data"]["Epoch"] = company.epoch_name
        self._put(answer)
        self._followed[name] = Followed(data.get("entities"), company.epoch, position)

    def deliver(self) -> None:
        """Sends what has happened since the last time."""
        if self.is_frozen:
            return
        for name, followed in list(self._followed.items()):
            company = self._world.companies[name]
            if not company.allowed:
                del self._followed[name]
                for tx in followed.awaited:
                    self._fail(name, tx)
                self._put({"Type": "CompanyRevoked", "Data": {"CompanyId": name}})
                continue
            if followed.epoch != company.epoch:
                followed.epoch, followed.sent, followed.covered = company.epoch, 0, 0
            for message in company.log[followed.sent :]:
                self._pass_on(name, followed, message)
            if followed.covered < followed.sent and self._world.dice.random() < 0.5:
                self._skip(name, followed, followed.sent)
            if followed.is_lossy:
                continue  # what was lost has not arrived; the client finds the gap, and waits again
            for tx in followed.awaited:
                arrival = {"CompanyId": name, "Tx": tx, "Position": followed.sent}
                self._put({"Type": "Arrived", "Data": arrival})
            followed.awaited = []

    def _pass_on(self, name: str, followed: Followed, message: dict[str, Any]) -> None:
        position = followed.sent = message["Position"]
        entity = message["Type"].removesuffix("Updated")
        if entity in ENTITIES:
            if not passes(followed.entities, entity):
                return
            if followed.covered < position - 1:
                self._skip(name, followed, position - 1)
        followed.covered = position
        if entity in ENTITIES and followed.entities is None and self._world.happens(0.03):
            followed.is_lossy = True
        else:
            self._put(message)

    def _skip(self, name: str, followed: Followed, position: int) -> None:
        followed.covered = position
        self._put({"Type": "Skipped", "Data": {"CompanyId": name}, "Position": position})

    def _fail(self, name: str, tx: str) -> None:
        error = {"Code": "not_subscribed", "Message": ""}
        self._put({"Type": "Error", "Error": error, "Data": {"CompanyId": name, "Tx": tx}})

    def _put(self, message: Any) -> None:
        self._frames.put_nowait(json.dumps(message))


class World:
    """The companies, the sockets to them, and chance."""

    def __init__(self, dice: random.Random, counts: Counter[str]) -> None:
        self.dice = dice
        self.counts = counts
        self.is_bad = True
        self.companies = {name: Company(name) for name in "abcd"}
        self.links: list[Link] = []
        self._values = self._transactions = 0

    def happens(self, chance: float) -> bool:
        return self.is_bad and self.dice.random() < chance

    async def open_socket(self, _: str) -> Link:
        if self.happens(0.1):
            raise OSError("unreachable")
        self.links.append(Link(self))
        return self.links[-1]

    def commit(self) -> str:
        """A transaction of a few rows of any companies; its number."""
        self._transactions += 1
        for _ in range(self.dice.randint(1, 3)):
            self._values += 1
            company = self.dice.choice(list(self.companies.values()))
            company.write(self.dice.choice(ENTITIES), self.dice.randrange(KEYS), self._values)
        return str(self._transactions)

    async def disturb(self) -> None:
        """Anything that may happen to a server."""
        company = self.dice.choice(list(self.companies.values()))
        if self.happens(0.02):
            company.begin_epoch()
        elif self.happens(0.03):
            company.kept = max(0, len(company.log) - 2)
        elif self.happens(0.02):
            company.allowed = not company.allowed
        if self.links and self.happens(0.05):
            await self.links[-1].close_with(self.dice.choice([1001, 1006, 1012, 4503, 4508]))
        elif self.links and self.happens(0.005):
            self.links[-1].is_frozen = True


class Part:
    """A company as the application sees it. `filters`: all that it has wanted; one of them is in force."""

    def __init__(self, subscription: Subscription, entities: list[str] | None) -> None:
        self.subscription = subscription
        self.filters = [entities]
        self.last: int | None = None
        self.rows: dict[str, list[int]] | None = None

    def holds(self, rows: dict[str, list[int]]) -> bool:
        """Whether no row that the filter shows is older than these."""
        return self.rows is None or all(
            mine >= theirs
            for entity in ENTITIES
            if all(passes(entities, entity) for entities in self.filters)
            for mine, theirs in zip(self.rows[entity], rows[entity], strict=True)
        )


class Application:
    """Keeps the rows of its companies from nothing but the reports."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.parts: dict[str, Part] = {}
        pace = Pace(jitter=world.dice.random)
        self.client = Client(
            "ws://x/", lambda: "t", None, None, pace=pace, open_socket=world.open_socket
        )

    async def take(self) -> None:
        async for report in self.client:
            if isinstance(report, Status):
                self._note(report)
            else:
                await self._apply(report, self.parts[report.company])

    def _note(self, status: Status) -> None:
        if status.reason is not None:
            self.world.counts[status.reason] += 1

    async def _apply(self, report: Report, part: Part) -> None:
        self.world.counts[type(report).__name__] += 1
        match report:
            case Message():
                entity = report.type.removesuffix("Updated")
                assert part.rows is not None, "nothing is reported before there is a state"
                assert report.position == (part.last or 0) + 1, "positions are dense"
                assert any(passes(entities, entity) for entities in part.filters)
                part.last = report.position
                part.rows[entity][report.data["key"]] = report.data["value"]
            case Skipped():
                assert part.last is not None
                assert report.position > part.last
                part.last = report.position
            case Recovered():
                assert report.position == part.last
            case Resync():
                self.world.counts[report.reason] += 1
                part.last = part.rows = None
                await asyncio.sleep(self.world.dice.choice([0, 0, 2]))
                part.rows = copy.deepcopy(self.world.companies[report.company].rows)
                part.last = report.position

    def act(self, tasks: set[asyncio.Task[None]]) -> None:
        """Anything that an application may do."""
        dice = self.world.dice
        name = dice.choice(list(self.world.companies))
        part = self.parts.get(name)
        if part is None:
            entities = dice.choice(FILTERS)
            subscription = self.client.subscribe(name, entities=entities)
            self.parts[name] = Part(subscription, entities)
        elif part.subscription.status.reason in GONE or dice.random() < 0.3:
            part.subscription.unsubscribe()
            del self.parts[name]
        elif dice.random() < 0.4:
            part.filters.append(dice.choice(FILTERS))
            part.subscription.set_filter(entities=part.filters[-1])
        else:
            tx = self.world.commit()
            rows = copy.deepcopy(self.world.companies[name].rows)
            tasks.add(asyncio.create_task(self._wait(part, tx, rows)))

    async def _wait(self, part: Part, tx: str, rows: dict[str, list[int]]) -> None:
        try:
            await part.subscription.arrived(tx)
        except ArrivalError as error:
            self.world.counts[f"arrived: {error.code}"] += 1
        else:
            self.world.counts["arrived"] += 1
            assert part.holds(rows), "the write has arrived"

    def check(self) -> None:
        """No row is older than its company's position."""
        for name, part in self.parts.items():
            position, company = part.subscription.position, self.world.companies[name]
            if position is not None and position.epoch == company.epoch_name:
                assert part.holds(company.history[position.after])

    @property
    def is_complete(self) -> bool:
        for name, part in self.parts.items():
            company, position = self.world.companies[name], part.subscription.position
            match part.subscription.status.state:
                case "idle":
                    continue
                case "live" if position is not None and part.rows is not None:
                    if (position.after, position.epoch) != (len(company.log), company.epoch_name):
                        return False
                    assert part.holds(company.rows)
                case _:
                    return False
        return True


@timeless
async def fuzz(seed: int, counts: Counter[str]) -> None:
    dice = random.Random(seed)
    world = World(dice, counts)
    application = Application(world)
    tasks: set[asyncio.Task[None]] = set()
    async with application.client as client:
        taking = asyncio.create_task(application.take())

        async def turn(pause: float) -> None:
            for link in world.links:
                link.deliver()
            await asyncio.sleep(pause)
            await settle()
            assert not taking.done()
            application.check()

        for _ in range(150):
            if dice.random() < 0.5:
                world.commit()
            if dice.random() < 0.25:
                application.act(tasks)
            await world.disturb()
            if dice.random() < 0.01:
                client.reconnect()
            await turn(dice.choice([0.1, 0.1, 0.1, 0.1, 0.5, 5]))
        world.is_bad = False
        for quiet in range(1000):
            await turn(0.2)
            if quiet % 100 == 0:
                world.commit()
            if quiet % 100 > 50 and application.is_complete:
                break
        else:
            raise AssertionError("not complete in time")
    await taking
    await asyncio.gather(*tasks)


def test_each_company_is_never_older_than_its_position_and_finally_complete() -> None:
    counts: Counter[str] = Counter()
    for seed in range(25):
        try:
            fuzz(seed, counts)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    reports = ("Message", "Skipped", "Recovered", "start", "filter", "epoch", "expired")
    for kind in (*reports, "arrived", "arrived: not_subscribed", "bad_filter", "revoked"):
        assert counts[kind], (kind, counts)
