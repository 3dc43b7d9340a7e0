"""The Python client on links that lose, repeat and reorder messages and close with any code.

Whatever happens, its reports are dense; once the link is good again, they are complete.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from notifier.client import Message, Pace, Position, Recovered, Resync
from notifier.client.client import Client
from tests.timeless import timeless
from tests.unit.fake_server import Peer, authenticated, change, now, resync, subscribed, summary

CLOSES = [1000, 1001, 1005, 1006, 1011, 1012, 4408, 4419, 4429, 4500, 4503, 4508]


class Log:
    """A company's log of messages. `kept` is the position up to which they were pruned."""

    def __init__(self) -> None:
        self.epoch = 1
        self.kept = 0
        self.messages: list[Any] = []

    def append(self, dice: random.Random) -> None:
        position = len(self.messages) + 1
        bulk = dice.random() < 0.05
        message = resync(position, epoch=self.name) if bulk else change(position)
        if dice.random() < 0.02:
            message["lost"] = True  # never delivered, however often the client requests it
        self.messages.append(message)

    def replace(self) -> None:
        """Begins a new epoch."""
        self.epoch += 1
        self.messages = []
        self.kept = 0

    @property
    def name(self) -> str:
        return f"e{self.epoch}"

    @property
    def head(self) -> Position:
        return Position(len(self.messages), self.name)


class BadLink(Peer):
    """The server's end of a link that loses, repeats and reorders."""

    def __init__(self, log: Log, dice: random.Random, bad: Callable[[], bool]) -> None:
        super().__init__()
        self._log, self._dice, self._bad = log, dice, bad
        self._following = False

    async def send(self, message: str) -> None:
        command = json.loads(message)
        if self._happens(0.03):
            return
        match command["type"]:
            case "authenticate":
                self.transmit(authenticated())
            case "ping":
                self.transmit({"Type": "Pong"})
            case _:
                self._subscribe(**command["data"])

    def _subscribe(self, companyId: str, after: int = -1, epoch: str = "") -> None:  # noqa: N803 - as on the wire
        log = self._log
        resumes = epoch == log.name and log.kept <= after <= log.head.after
        resumes = resumes and not self._happens(0.1)
        position = after if resumes else log.head.after
        self.transmit(subscribed(companyId, position, log.name, resumes if after >= 0 else None))
        self._following = True
        for message in log.messages[position:]:
            self.transmit(message)

    def follow(self) -> None:
        """Transmits the newest message."""
        if self._following:
            self.transmit(self._log.messages[-1])

    def transmit(self, message: Any) -> None:
        if "lost" in message or self._happens(0.05):
            return
        text = json.dumps(message)
        for _ in range(2 if self._happens(0.05) else 1):
            self._frames.put_nowait(text)
        if self._happens(0.05) and self._frames.qsize() > 1:
            self._frames.put_nowait(self._frames.get_nowait())

    def _happens(self, chance: float) -> bool:
        return self._bad() and self._dice.random() < chance


@timeless
async def fuzz(seed: int, counts: Counter[str]) -> None:
    dice = random.Random(seed)
    log = Log()
    links: list[BadLink] = []
    bad = True
    last: Position | None = None
    tokens = 0

    def get_token() -> str:
        nonlocal tokens
        tokens += 1
        return f"token-{tokens}"

    async def open_socket(_: str) -> BadLink:
        if bad and dice.random() < 0.1:
            raise OSError("unreachable")
        links.append(BadLink(log, dice, lambda: bad))
        return links[-1]

    async def check_reports(client: Client) -> None:
        nonlocal last
        async for report in client:
            counts[summary(report)[0]] += 1
            match report:
                case Message():
                    assert last == Position(report.position - 1, report.epoch), "dense positions"
                    last = Position(report.position, report.epoch)
                case Recovered():
                    assert last == Position(report.position, report.epoch)
                case Resync():
                    counts[report.reason] += 1
                    last = None
                    await asyncio.sleep(dice.choice([0, 0, 3]))
                    last = Position(report.position, report.epoch)

    def start() -> Client:
        pace = Pace(jitter=dice.random)
        position = client.position if client is not None else None
        return Client("ws://x/", get_token, "a", position, pace=pace, open_socket=open_socket)

    def commit() -> None:
        log.append(dice)
        for link in links:
            link.follow()

    client: Client | None = None
    for life in range(4):
        client = start()
        last = client.position
        async with client:
            checking = asyncio.create_task(check_reports(client))
            for _ in range(60):
                if dice.random() < 0.02:
                    log.replace()
                    for link in links:
                        await link.close_with(4503)
                commit()
                if dice.random() < 0.03:
                    log.kept = max(0, log.head.after - 3)
                if links and dice.random() < 0.05:
                    await links[-1].close_with(dice.choice(CLOSES))
                await asyncio.sleep(dice.choice([0, 0.1, 0.1, 0.5, 20]))
                assert not checking.done()
            if life == 3:
                bad = False
                while client.position != log.head or last != client.position:
                    if round(now()) % 7 == 0:
                        commit()
                    await asyncio.sleep(1)
                    assert not checking.done()
                    assert now() < 10_000, "not complete in time"
        await checking


def test_on_any_link_the_reports_are_dense_and_finally_complete() -> None:
    counts: Counter[str] = Counter()
    for seed in range(30):
        try:
            fuzz(seed, counts)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    for kind in ("message", "recovered", "start", "expired", "epoch", "gap", "bulk"):
        assert counts[kind], (kind, counts)
