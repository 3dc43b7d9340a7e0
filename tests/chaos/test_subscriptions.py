"""Sockets with several companies and filters on two nodes: each gets exactly what it must by the ledger.

Events are visible to all users of their company or to some, which changes; they move between companies. Every
image of an event has a mark, and no mark of an image that a user may not see is ever written to its sockets.

NOTIFIER_SOAK_STEPS    how many steps in all (default: 150)
NOTIFIER_SOAK_PARTS    tests that share them, to run side by side (default: 1)
NOTIFIER_SOAK_SEED     of the first example (default: at random); the next has the next number
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from notifier.database.schema import migrate
from notifier.delivery import channel, encoding, session
from notifier.relay import leadership
from notifier.watches import CALENDAR
from tests.chaos.images import SCHEMA, VISIBLE_TO, Images, Overlap, check_order, logs, seen_by
from tests.chaos.local import LocalNode
from tests.chaos.sockets import ENCODINGS, GUEST, MEMBER, OUTSIDER, Client
from tests.databases import Database
from tests.waiting import until

STEPS = int(os.environ.get("NOTIFIER_SOAK_STEPS") or 150)
PARTS = int(os.environ.get("NOTIFIER_SOAK_PARTS") or 1)
SEED = int(os.environ.get("NOTIFIER_SOAK_SEED") or random.randrange(10**9))
EACH = 200
"""Steps of one example."""
CALM = 10
"""Steps between two faults, after each of which the nodes take their time to connect again."""

FILTERS: list[dict[str, Any]] = [
    {},
    {},
    {"entities": ["Event"]},
    {"entities": ["Employee", "Company"]},
    {"where": {"Event": {"Title": ["a"]}}},
    {"entities": ["Event"], "where": {"Event": {"Title": ["a", "b"], "Location": [None]}}},
    {"where": {"Event": {"Title": ["c"]}, "Employee": {"UserId": [GUEST]}}},
    {"entities": ["Event"], "where": {"Event": {"Location": [GUEST, OUTSIDER]}}},
]
SIGHTS: list[dict[str, Any]] = [
    dict(zip(VISIBLE_TO, sight, strict=True))
    for sight in (
        (None, None),
        (None, []),
        ("", [None]),
        (MEMBER, None),
        (GUEST, []),
        (None, [OUTSIDER]),
        ("", [MEMBER, GUEST]),
        (GUEST, [None, OUTSIDER]),
        (OUTSIDER, [OUTSIDER, MEMBER]),
        (None, [MEMBER, GUEST, OUTSIDER]),
        ("U1", None),  # no user
    )
]
"""The users who may see an event, in its two columns."""

EVENT, EMPLOYEE, COMPANY = CALENDAR
WATCHES = [replace(EVENT, visible_to=VISIBLE_TO), EMPLOYEE, COMPANY]

NOW = datetime(2026, 11, 29, tzinfo=UTC)
MARK = re.compile(rb"mark-\d+-\d+")
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class _RolledBack(Exception):
    """The application rolls back."""


class World:
    """Two nodes, two companies, an application with two connections, and clients."""

    def __init__(self, database: Database, seed: int, *, unique: bool) -> None:
        self.seed = seed
        self.unique = unique
        self.random = random.Random(seed)
        self.database = database
        self.node = [LocalNode(database.dsn, state="on") for _ in range(2)]
        self.steps: deque[str] = deque(maxlen=60)
        self.calm = 0
        self.marks = 0
        self.events: list[str] = []
        self.overlaps: dict[int, Overlap] = {}
        self.late_events: list[str] = []
        self.late_tx = self.began_after = self.last_tx = self.rolled_back = 0

    async def begin(self) -> None:
        for node in self.node:
            await node.start()
        # The epoch that `migrate` begins, which discards what is read with it.
        await self.database.relayed()
        self.images = Images(await self.database.connect())
        self.late = Images(await self.database.connect())
        insert = "INSERT INTO companies (name) VALUES ('') RETURNING id::text"
        self.ids = [await self.database.fetchval(insert) for _ in range(2)]
        self.since = await self.database.fetchval("SELECT coalesce(max(id), 0) FROM images")
        self.guests: dict[str, list[str]] = {company: [] for company in self.ids}
        for number, company in enumerate(self.ids):
            async with self.transaction():
                for user in (MEMBER, OUTSIDER)[: 2 - number]:
                    await self.images.insert("Employee", company_id=company, name="", user_id=user)
        await self.database.relayed()
        self.epoch = await self.database.fetchval("SELECT epoch FROM notifier.log")
        self.clients: list[Client] = []
        for user in (MEMBER, MEMBER, GUEST, GUEST, OUTSIDER):
            name = f"{user} {len(self.clients)}"
            client = Client(name, user, self.random.choice(ENCODINGS), self.epoch)
            barred = {OUTSIDER: self.ids[1:], GUEST: self.ids}.get(user, [])
            client.barred |= dict.fromkeys(barred, 0)
            self.clients.append(client)
            await client.connect(self.random.choice(self.node))
            for company in self.ids:
                await client.subscribe(company, self.random.choice(FILTERS), resume=False)
        rules = list(RULES)
        rarely = self.random.sample(rules, 4)
        self.rules = {rule: RULES[rule] / (5 if rule in rarely else 1) for rule in rules}

    async def step(self) -> None:
        """One step of a random rule; then everything that was received must be in order."""
        rules = self.rules
        if self.calm < CALM:
            rules = {rule: weight for rule, weight in rules.items() if rule not in FAULTS}
        (rule,) = self.random.choices(list(rules), list(rules.values()))
        self.calm = 0 if rule in FAULTS else self.calm + 1
        self.steps.append(rule.__name__)
        await rule(self)
        for client in self.clients:
            client.receive()

    # --- the application

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction of the main connection, which may roll back."""
        try:
            async with self.images.connection.transaction():
                tx = await self.images.transaction()
                yield
            self.last_tx = tx
        except _RolledBack:
            self.rolled_back = tx

    def _note(self, *what: object) -> None:
        self.steps[-1] += f" {' '.join(map(str, what))}"

    def _event(self) -> dict[str, Any]:
        """Columns of an event. The mark is that of this image alone."""
        self.marks += 1
        return {
            "title": self.random.choice("abcd"),
            "description": f"mark-{self.seed}-{self.marks}",
            **self.random.choice(SIGHTS),
        }

    async def _add(self, images: Images, company: str) -> str:
        columns = {"company_id": company, "starts_at": NOW, "ends_at": NOW, **self._event()}
        return await images.insert("Event", **columns)

    async def _change(self, images: Images, key: str) -> None:
        """Changes a title, the users who see the event, its company, or any of these together."""
        changed = self._event()
        kept = self.random.choice(((), ("title",), ("title",), VISIBLE_TO, VISIBLE_TO))
        changed = {name: value for name, value in changed.items() if name not in kept}
        if self.random.random() < 0.3:
            changed["company_id"] = self.random.choice(self.ids)
        await images.update("Event", key, **changed)

    async def write(self) -> None:
        company = self.random.choice(self.ids)
        async with self.transaction():
            added = [
                await self._add(self.images, company) for _ in range(self.random.randint(1, 4))
            ]
        self.events += added
        self._note(added)

    async def change(self) -> None:
        """Several changes, also of one event, in one transaction."""
        if not self.events:
            return
        some = self.random.choices(self.events, k=self.random.randint(1, 2))
        async with self.transaction():
            for _ in range(self.random.randint(1, 4)):
                await self._change(self.images, self.random.choice(some))
        self._note(some)

    async def delete(self) -> None:
        if not self.events:
            return
        event = self.events.pop(self.random.randrange(len(self.events)))
        async with self.transaction():
            if self.random.random() < 0.3:
                await self._change(self.images, event)
            await self.images.delete("Event", event)
        self._note(event)

    async def come_and_go(self) -> None:
        """An event that its transaction also deletes."""
        async with self.transaction():
            event = await self._add(self.images, self.random.choice(self.ids))
            await self._change(self.images, event)
            await self.images.delete("Event", event)

    async def roll_back(self) -> None:
        """A transaction, or a part of it."""
        if not self.events:
            return
        event, company = self.random.choice(self.events), self.random.choice(self.ids)
        async with self.transaction():
            savepoint = self.images.connection.transaction()
            await savepoint.start()
            await self._add(self.images, company)
            await self._change(self.images, event)
            await self.images.delete("Event", event)
            await savepoint.rollback()
            if self.random.random() < 0.5:
                raise _RolledBack
            await self._change(self.images, event)

    async def rename(self) -> None:
        async with self.transaction():
            name = str(self.random.random())
            await self.images.update("Company", self.random.choice(self.ids), name=name)

    async def invite_or_dismiss(self) -> None:
        """A guest has a company by one row; without a unique index, by two rows at most."""
        company = self.random.choice(self.ids)
        rows = len(self.guests[company])
        if rows == 0 or (rows == 1 and not self.unique and self.random.random() < 0.5):
            await self._invite(company)
        else:
            await self._dismiss(company)
        self._note(company, len(self.guests[company]))

    async def _invite(self, company: str) -> None:
        for client in self.clients:
            if client.user == GUEST:
                client.barred.pop(company, None)
        async with self.transaction():
            guest = {"company_id": company, "name": "guest", "user_id": GUEST}
            self.guests[company].append(await self.images.insert("Employee", **guest))

    async def _dismiss(self, company: str) -> None:
        async with self.transaction():
            await self.images.delete("Employee", self.guests[company].pop())
        for client in self.clients:
            if client.user == GUEST and not self.guests[company]:
                client.barred[company] = self.last_tx

    async def resume_meanwhile(self) -> None:
        """A client resumes slowly from far back, while the application writes, perhaps what takes its access."""
        client, node = self.random.choice(self.clients), self.random.choice(self.node)
        rules = [self.change, self.write, self.rename]
        if client.user == GUEST:
            rules = [partial(self._dismiss, each) for each in self.ids if self.guests[each]]
        self._note(client.name)
        client.leave()
        for following in client.followings.values():
            following.rewind(self.random.choice((5, 50, 10**6)))
        rule = self.random.choice(rules or [self.write])
        waits = self.random.choices((0.001, 0.01, 0.1), k=4)
        await asyncio.gather(client.connect(node, *waits), rule())

    async def begin_late(self) -> None:
        """A transaction that ends in a later step."""
        if self.late_tx:
            return
        self.late_transaction = self.late.connection.transaction()
        await self.late_transaction.start()
        self.began_after = self.last_tx
        self.late_events = [await self._add(self.late, self.random.choice(self.ids))]
        self.late_tx = await self.late.transaction()

    async def go_on_late(self) -> None:
        if self.late_tx:
            await self._change(self.late, self.random.choice(self.late_events))
            self.late_events.append(await self._add(self.late, self.random.choice(self.ids)))

    async def end_late(self) -> None:
        if not self.late_tx:
            return
        if self.random.random() < 0.7:
            await self.late_transaction.commit()
            self.events += self.late_events
            self.overlaps[self.late_tx] = Overlap(self.began_after, self.last_tx)
        else:
            await self.late_transaction.rollback()
        self.late_tx = 0

    # --- clients

    async def subscribe(self) -> None:
        client, company = self.random.choice(self.clients), self.random.choice(self.ids)
        wanted, resume = self.random.choice(FILTERS), self.random.random() < 0.5
        state, back = self.random.random() < 0.3, self.random.choice((0, 0, 1, 5, 50, 10**6))
        self._note(client.name, company, wanted, "resumes" * resume, back, "with state" * state)
        await client.subscribe(company, wanted, resume=resume, back=back, state=state)

    async def unsubscribe(self) -> None:
        client = self.random.choice(self.clients)
        self._note(client.name)
        await client.unsubscribe(self.random.choice(self.ids))

    async def come_back(self) -> None:
        client, node = self.random.choice(self.clients), self.random.randrange(2)
        self._note(client.name, "node", node)
        await client.connect(self.node[node])

    async def drop(self) -> None:
        client = self.random.choice(self.clients)
        self._note(client.name)
        client.leave()

    async def pause(self) -> None:
        client, is_paused = self.random.choice(self.clients), self.random.random() < 0.5
        self._note(client.name, is_paused)
        client.pause(is_paused=is_paused)

    async def wait_for_a_transaction(self) -> None:
        client, company = self.random.choice(self.clients), self.random.choice(self.ids)
        tx, allowed = self.random.choice(
            (
                (self.last_tx, "arrived timeout"),  # it may have changed nothing there
                (self.rolled_back, "arrived timeout"),
                (self.late_tx, "arrived timeout"),
                (self.last_tx + 10**9, "unknown_tx timeout"),
            )
        )
        if tx:
            self._note(client.name, company, tx)
            await client.wait(company, tx, allowed)

    async def let_pass(self) -> None:
        """Gives the nodes time for what they do meanwhile."""
        await asyncio.sleep(self.random.choice((0, 0.001, 0.01, 0.05)))

    # --- faults

    async def terminate_backends(self) -> None:
        """All links of the nodes, or those of one kind; clients await a change that they may miss then."""
        links = self.random.choice(("%", "node", "node", "relay%", "stream", "state"))
        self._note(links)
        await self.database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'notifier ' || $1 AND datname = current_database()",
            links,
        )
        await self.change()
        for client, company in product(self.clients, self.ids):
            await client.wait(company, self.last_tx, "arrived timeout")

    async def restart_a_node(self) -> None:
        node = self.random.choice(self.node)
        await node.stop()
        await node.start()

    # --- what must hold

    async def judge(self) -> None:
        await self.end_late()
        await self._lose_access()
        for company in self.ids:
            async with self.transaction():
                await self.images.update("Company", company, name="the end")
            if not self.guests[company]:
                await self._invite(company)
        await self.database.relayed()
        found = await logs(self.database, self.ids, self.since)
        for log in found.values():
            check_order(log, self.overlaps)

        async def is_level(client: Client, company: str) -> bool:
            following = client.followings[company]
            if not client.connected:
                await client.connect(self.node[0])
            elif not following.live:
                await client.subscribe(company, following.wanted, resume=True)
            client.receive()
            return following.position == len(found[company])

        async def is_answered(client: Client) -> bool:
            client.receive()
            return not client.awaited or not client.connected

        for client in self.clients:
            client.pause(is_paused=False)
            for company in client.followings:
                await until(partial(is_level, client, company), every=0.005)
            await until(partial(is_answered, client), every=0.005)
        for client in self.clients:
            client.leave()
            seen = {
                company: [(entry.tx, entry.entity, *seen_by(client.user, entry)) for entry in log]
                for company, log in found.items()
                if client.user != OUTSIDER or company == self.ids[0]
            }
            for company, following in client.followings.items():
                following.check(seen[company])
            await self._check_bytes(
                client,
                [image for log in seen.values() for _, _, *ends in log for image in ends if image],
            )

    async def _lose_access(self) -> None:
        """The guest's subscriptions to companies that it has lost end."""

        async def has_lost(client: Client) -> bool:
            client.receive()
            return not any(
                following.live and client.connected and not self.guests[company]
                for company, following in client.followings.items()
            )

        for client in self.clients:
            if client.user == GUEST:
                await until(partial(has_lost, client), every=0.005)

    async def _check_bytes(self, client: Client, images: list[dict[str, Any]]) -> None:
        """No mark and no key of an image that the user may not see was written to its sockets."""
        written = b"\n".join(client.written)
        marks = {image["description"].encode() for image in images if "description" in image}
        assert set(MARK.findall(written)) <= marks
        keys = {image["id"].encode() for image in images}
        all_keys = {
            row["key"].encode()
            for row in await self.database.fetch(
                "SELECT DISTINCT key FROM images WHERE id > $1", self.since
            )
        }
        companies = {company.encode() for company in self.ids}
        assert set(UUID.findall(written)) & all_keys <= keys | companies

    async def end(self) -> None:
        for node in self.node:
            await node.stop()
        self.database.leave()


Rule = Callable[[World], Awaitable[None]]

RULES: dict[Rule, float] = {
    World.write: 10,
    World.change: 18,
    World.delete: 4,
    World.come_and_go: 2,
    World.roll_back: 4,
    World.rename: 2,
    World.invite_or_dismiss: 5,
    World.resume_meanwhile: 6,
    World.begin_late: 3,
    World.go_on_late: 3,
    World.end_late: 3,
    World.subscribe: 9,
    World.unsubscribe: 3,
    World.come_back: 6,
    World.drop: 3,
    World.pause: 5,
    World.wait_for_a_transaction: 6,
    World.let_pass: 8,
    World.terminate_backends: 4,
    World.restart_a_node: 4,
}
FAULTS = {World.terminate_backends, World.restart_a_node}


async def _example(database: Database, seed: int, steps: int, *, unique: bool) -> None:
    world = World(database, seed, unique=unique)
    try:
        await world.begin()
        for _ in range(steps):
            await world.step()
        await world.judge()
    except BaseException as error:
        error.add_note(f"SEED={seed} STEPS={steps}; the last steps:")
        error.add_note("\n".join(world.steps))
        raise
    finally:
        await world.end()


async def _prepare(database: Database, template: str, *, unique: bool) -> None:
    await database.create(template)
    await database.execute(SCHEMA)
    if not unique:  # so no loss of access is conclusive: it is always re-checked
        await database.execute(
            "ALTER TABLE employees DROP CONSTRAINT employees_company_id_user_id_key"
        )
    await migrate(database.dsn, watches=WATCHES)
    database.leave()


# A node that is killed while it connects leaves a connection that asyncpg has not returned yet.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.chaos
@pytest.mark.timeout(600 + STEPS)
@pytest.mark.parametrize("part", range(PARTS))
def test_each_subscription_gets_exactly_what_it_must_by_the_ledger(
    postgres: str,
    template: str,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(channel, "SKIPPED_SECONDS", 0.1)
    monkeypatch.setattr(session, "REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(leadership, "ELECTION_SECONDS", 0.1)
    name = f"notifier_test_{uuid4().hex[:12]}"
    is_usual = (SEED + part) % 2 == 0
    if not is_usual:  # replays and batches are written in many parts
        monkeypatch.setattr(encoding, "CHUNK_BYTES", 2000)
        monkeypatch.setattr(channel, "CHUNK_BYTES", 1000)
        monkeypatch.setattr(channel, "SLICE", 2)
    asyncio.run(_prepare(Database(postgres, name), template, unique=is_usual))
    own, done, begun = STEPS // PARTS, 0, time.monotonic()
    number = part
    while done < own:
        steps = min(EACH, own - done)
        world = Database(postgres, name)
        asyncio.run(_example(world, SEED + number, steps, unique=is_usual))
        done += steps
        pace = done / (time.monotonic() - begun)
        with capfd.disabled():
            text = f"part {part}: {done} of {own} steps, {pace:.1f} a second; seed {SEED + number}"
            sys.stderr.write(f"{text}\n")
        number += PARTS * (1 + PARTS % 2)  # so it stays even or odd, which decides what is usual
    asyncio.run(Database(postgres, name).drop())
