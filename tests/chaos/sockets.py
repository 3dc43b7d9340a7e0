"""Clients with several subscriptions, on connections that keep every byte that is written to them."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from notifier.delivery.encoding import DEFLATED, EVENTS, TEXT, Encoding
from notifier.delivery.session import Session, Stage
from notifier.delivery.transport import TransportListener, Write
from notifier.errors import Closure
from notifier.messages import JSON
from tests.chaos.images import Image, message, passes, properties
from tests.chaos.local import LocalNode
from tests.services import token

Message = dict[str, Any]

ENCODINGS = (TEXT, DEFLATED, EVENTS)
MEMBER, GUEST, OUTSIDER = "u1", "u2", "u3"
"""The guest loses and regains companies; the outsider only ever has the first one; the member has both."""

TAIL = b"\0\0\xff\xff"
"""The end of a compressed message, which is not sent (RFC 7692, 7.2.1)."""


class Wire:
    """A connection without a network. `written`: the texts of all frames, decompressed, as they were written."""

    def __init__(self, encoding: Encoding) -> None:
        self.listener: TransportListener | None = None
        self.encoding = encoding
        self.messages: list[Message] = []
        self.written: list[bytes] = []
        self.closure: Closure | None = None
        self.waits: list[float] = []
        """How long the next calls of `drain` wait, in seconds: replays go on while others write."""
        self._is_paused = False

    @property
    def write_direct(self) -> Write | None:
        return None if self._is_paused else self._take

    def write(self, frames: bytes, bodies: Sequence[JSON]) -> None:
        taken = self._take(frames)
        self.written += bodies  # a server without frames of its own sends these
        assert taken == [json.loads(body) for body in bodies]

    async def drain(self) -> None:
        await asyncio.sleep(self.waits.pop() if self.waits else 0)

    def replayed(self) -> None: ...

    def end(self, closure: Closure) -> None:
        self.closure = closure

    def pause(self, *, is_paused: bool) -> None:
        """Begins or ends back-pressure."""
        if is_paused != self._is_paused and self.listener is not None:
            self._is_paused = is_paused
            (self.listener.paused if is_paused else self.listener.resumed)()

    def _take(self, frames: bytes) -> list[Message]:
        texts = list((_events if self.encoding is EVENTS else _frames)(frames))
        self.written += [frames] if self.encoding is EVENTS else texts
        messages = [json.loads(text) for text in texts]
        self.messages += messages
        return messages


def _events(text: bytes) -> Iterator[bytes]:
    """The data of server-sent events."""
    for event in text.split(b"\n\n")[:-1]:
        yield b"\n".join(re.findall(rb"^data: (.*)$", event, re.MULTILINE))


def _frames(frames: bytes) -> Iterator[bytes]:
    """The texts of WebSocket frames without a mask (RFC 6455, 5.2)."""
    while frames:
        first, length, start = frames[0], frames[1], 2
        if length > 125:
            start = 4 if length == 126 else 10
            length = int.from_bytes(frames[2:start])
        text, frames = frames[start : start + length], frames[start + length :]
        assert first & 0xBF == 0x81
        assert len(text) == length
        yield zlib.decompressobj(wbits=-15).decompress(text + TAIL) if first & 0x40 else text


@dataclass
class Following:
    """What one client has of one company, through all its subscriptions."""

    company: str
    wanted: dict[str, Any]
    position: int = 0
    live: bool = False
    received: list[tuple[int, Message, dict[str, Any]]] = field(default_factory=list)
    """Changes with their position, and the filter that they came under."""
    skipped: list[tuple[range, dict[str, Any]]] = field(default_factory=list)
    states: list[tuple[int, list[Message], dict[str, Any]]] = field(default_factory=list)
    """Rows with their entity and the position of StateEnd, and the filter."""
    arrived: list[tuple[int, int, int]] = field(default_factory=list)
    """Transactions with the position of Arrived, and how many changes were received before it."""
    rows: list[Message] = field(default_factory=list)
    without_access: list[tuple[int, int]] = field(default_factory=list)
    """Positions that came while its user had no access, each with the transaction that had taken it."""

    def rewind(self, back: int) -> None:
        """Forgets the last messages; those of transactions that have arrived come again."""
        self.position = max(0, self.position - back)
        self.arrived.clear()

    def receive(self, message: Message) -> None:
        """Checks that a message follows what is there."""
        assert self.live, ("a message without a subscription", message)
        kind = message["Type"]
        if kind == "State":
            entity, rows = message["Data"]["Entity"], message["Data"]["Rows"]
            self.rows += [{**row, "Entity": entity} for row in rows]
        elif kind == "StateEnd":
            assert message["Data"]["Position"] == self.position
            self.states.append((self.position, self.rows, self.wanted))
        elif kind == "Arrived":
            data = message["Data"]
            self.arrived.append((int(data["Tx"]), data["Position"], len(self.received)))
        else:
            self._advance(message)

    def _advance(self, message: Message) -> None:
        position = message["Position"]
        if message["Type"] == "Skipped":
            assert position > self.position, (self.position, message)
            self.skipped.append((range(self.position + 1, position + 1), self.wanted))
        else:
            assert position == self.position + 1, (self.position, message)
            self.received.append((position, message, self.wanted))
        self.position = position

    def check(self, log: Sequence[tuple[int, str, Image | None, Image | None]]) -> None:
        """Compares it with the company's log as its user sees it, position 1 first."""
        for position, received, wanted in self.received:
            tx, entity, before, after = log[position - 1]
            compare(received, message(entity, before, after), tx)
            assert passes(wanted, entity, before, after), received
        for positions, wanted in self.skipped:
            for position in positions:
                tx, entity, before, after = log[position - 1]
                assert not passes(wanted, entity, before, after), (position, log[position - 1])
        for position, tx in self.without_access:
            assert tx in {entry[0] for entry in log[position - 1 :]}, "delivered without access"
        for tx, position, count in self.arrived:
            assert tx not in {entry[0] for entry in log[position:]}
            late = [each for _, each, _ in self.received[count:] if int(each["Tx"]) == tx]
            assert not late, "changes came after the transaction had arrived"
        for position, rows, wanted in self.states:
            self._check_state(rows, wanted, log[:position])

    def _check_state(
        self,
        rows: Sequence[Message],
        wanted: Mapping[str, Any],
        log: Sequence[tuple[int, str, Image | None, Image | None]],
    ) -> None:
        there: dict[tuple[str, str], Image] = {
            ("Company", self.company): {"id": self.company, "name": ""}
        }
        for _, entity, before, after in log:
            if after is not None:
                there[entity, after["id"]] = after
            elif before is not None:
                del there[entity, before["id"]]
        expected = {
            name: properties(name[0], image)
            for name, image in there.items()
            if passes(wanted, name[0], None, image)
        }
        found = {(row["Entity"], row[f"{row['Entity']}Id"]): row for row in rows}
        assert len(found) == len(rows), "a row was sent twice"
        assert found.keys() == expected.keys()
        for name, row in found.items():
            assert expected[name].items() <= row.items()


def compare(received: Message, expected: Message | None, tx: int) -> None:
    """Requires a message to be the expected one."""
    assert expected is not None, received
    assert received["Type"] == expected["Type"], (received, expected)
    assert expected["Data"].items() <= received["Data"].items(), (received, expected)
    assert received.get("Old") == expected.get("Old"), (received, expected)
    assert received["Tx"] == str(tx)


class Client:
    """A user with a socket, whose places survive it.

    `barred`: companies that it may not see now, or never, and the transaction that took access; 0 for none.
    """

    def __init__(self, name: str, user: str, encoding: Encoding, epoch: str) -> None:
        self.name = name
        self.user = user
        self.epoch = epoch
        self.barred: dict[str, int] = {}
        self.followings: dict[str, Following] = {}
        self.awaited: dict[tuple[str, int], str] = {}
        self.written: list[bytes] = []
        self._encoding = encoding
        self._session: Session | None = None
        self._wire = Wire(encoding)

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.stage is not Stage.ENDED

    async def connect(self, node: LocalNode, *waits: float) -> None:
        """Resumes all its companies on a node, with their filters. `waits`: how long the first parts of replays take."""
        self.leave()
        self._wire = Wire(self._encoding)
        self._wire.waits = list(waits)
        self._wire.written = self.written
        self._session = Session(node.node.services, self._wire)
        await self._send({"type": "authenticate", "token": token(self.user)})
        for following in list(self.followings.values()):
            await self.subscribe(following.company, following.wanted, resume=True)

    async def subscribe(
        self,
        company: str,
        wanted: dict[str, Any],
        *,
        resume: bool,
        back: int = 0,
        state: bool = False,
    ) -> None:
        """Subscribes, or replaces the filter; with `resume` from the place that it has, or `back` from there."""
        if not self.connected:
            return
        self.receive()
        known = self.followings.get(company)
        data = {"companyId": company, **wanted}
        if state:
            data["state"] = True
        after = max(0, known.position - back) if known is not None and resume else None
        if after is not None:
            data |= {"after": after, "epoch": self.epoch}
        await self._send({"type": "subscribe", "data": data})
        answers = [each for each in self._wire.messages if each["Type"] == "SubscribeResult"]
        if not answers:
            assert not self.connected
            return
        (answer,) = answers
        assert answer["Data"]["CompanyId"] == company
        if not answer["Success"]:
            code = answer["Error"]["Code"]
            refusals = {"unavailable", "state_unavailable"}
            if company in self.barred or self.user == GUEST:
                refusals.add("company_forbidden")
            assert code in refusals, answer
            self.receive()
            return
        # What came before the answer is of the former filter.
        before = self._wire.messages.index(answer)
        later, self._wire.messages = (
            self._wire.messages[before + 1 :],
            self._wire.messages[:before],
        )
        self.receive()
        following = self.followings.setdefault(company, Following(company, wanted))
        if after is not None:  # what came since from the former subscription comes again
            assert answer["Data"]["Recovered"] is True
            assert answer["Data"]["Position"] == after
        following.wanted, following.live, following.rows = wanted, True, []
        following.position = answer["Data"]["Position"]
        if after is not None:  # what is behind that place comes again, under this filter
            following.arrived = [each for each in following.arrived if each[1] <= after]
        assert answer["Data"]["Epoch"] == self.epoch
        self._wire.messages = [*later, *self._wire.messages]
        self.receive()

    async def unsubscribe(self, company: str) -> None:
        if not self.connected:
            return
        await self._send({"type": "unsubscribe", "data": {"companyId": company}})
        self.receive()
        if company in self.followings:
            self.followings[company].live = False

    async def wait(self, company: str, tx: int, allowed: str) -> None:
        """Awaits a transaction. `allowed`: the answers that may come, beside those of a lost subscription."""
        if self.connected and (company, tx) not in self.awaited:
            self.awaited[company, tx] = allowed
            await self._send({"type": "await", "data": {"companyId": company, "tx": str(tx)}})

    def pause(self, *, is_paused: bool) -> None:
        """Begins or ends back-pressure."""
        self._wire.pause(is_paused=is_paused)

    def receive(self) -> None:
        """Takes the messages since the last look."""
        received, self._wire.messages = self._wire.messages, []
        for each in received:
            match each["Type"]:
                case "CompanyRevoked":
                    company = each["Data"]["CompanyId"]
                    assert company in self.barred or self.user == GUEST
                    self.followings[company].live = False
                case "AuthenticationResult" | "SubscribeResult" | "UnsubscribeResult":
                    pass
                case "Error":
                    code, data = each["Error"]["Code"], each["Data"]
                    allowed = self.awaited.pop((data["CompanyId"], int(data["Tx"])))
                    assert code in {"not_subscribed", *allowed.split()}, each
                case _:
                    company = each["Data"]["CompanyId"]
                    assert company in self.followings, each
                    following = self.followings[company]
                    following.receive(each)
                    if "Position" in each and company in self.barred:
                        following.without_access.append((each["Position"], self.barred[company]))
                    if each["Type"] == "Arrived":
                        allowed = self.awaited.pop((company, int(each["Data"]["Tx"])))
                        assert "arrived" in allowed, each

    def leave(self) -> None:
        """Leaves without closing."""
        self.receive()
        if self._session is not None:
            self._session.closed()
            self._session = None
        self.awaited.clear()
        for following in self.followings.values():
            following.live = False

    async def _send(self, command: dict[str, Any]) -> None:
        assert self._session is not None
        try:
            await self._session.receive(json.dumps(command))
        except Closure:
            self._session.closed()
