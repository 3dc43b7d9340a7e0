"""No client receives what its user may not see: by a model, by a marker, by forgeries, by the bytes of an answer."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.clients import Client, Message
from tests.conftest import Connect, Serve
from tests.databases import Connection, Database
from tests.service.calendars import EVENT, Calendar, positions
from tests.service.raw import Raw
from tests.services import SECRET, Service, token
from tests.unit.test_tokens import FORGED, signed

SEED = int(os.environ.get("NOTIFIER_ISOLATION_SEED", "0")) or random.randrange(1, 1 << 31)
"""Printed where the test fails; give it again to see the same."""

# --- a model


class Ledger:
    """Who belongs to which company after each transaction, in the order of their commits."""

    def __init__(self, companies: list[str]) -> None:
        self.states: list[dict[str, frozenset[str]]] = [dict.fromkeys(companies, frozenset())]
        self.done = 0

    @property
    def begun(self) -> int:
        """The number of the last transaction that may have been committed."""
        return len(self.states) - 1

    def begin(self, changed: dict[str, set[str]]) -> int:
        """The next transaction will leave these companies with these users; its number."""
        now = {name: frozenset(users) for name, users in changed.items()}
        self.states.append(self.states[-1] | now)
        return self.begun

    def members(self, company: str) -> set[str]:
        return set(self.states[-1][company])

    def allows(self, user: str, company: str, number: int, first: int, last: int) -> bool:
        """Whether transaction `number` may reach a user whose access was checked somewhere
        between the transactions `first` and `last`: he was a member then, and, if it came later,
        still was when it began.
        """
        for checked in range(first, last + 1):
            until_then = range(checked, max(checked + 1, number))
            if all(user in self.states[at][company] for at in until_then):
                return True
        return False


class Stamped(list[Message]):
    """Messages, and which transactions may have been committed when each arrived."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.at: list[int] = []
        self._ledger = ledger

    def append(self, message: Message) -> None:
        self.at.append(self._ledger.begun)
        super().append(message)


class Roamer:
    """A user who goes from company to company, comes back and resumes."""

    def __init__(self, user: str, ledger: Ledger) -> None:
        self.user = user
        self.ledger = ledger
        self.client: Client | None = None
        self.places: dict[str, tuple[int, str]] = {}
        self.history: list[tuple[Stamped, list[int]]] = []

    async def step(self, chance: random.Random, connect: Connect, nodes: list[Service]) -> None:
        client = self.client
        if client is None or chance.random() < 0.15:
            if client is not None:
                await client.drop()
            client = self.client = await connect(chance.choice(nodes), self.user)
            arrived = Stamped(self.ledger)
            arrived.extend(client.messages)
            arrived.at = [self.ledger.begun] * len(arrived)
            client.messages = arrived
            self.history.append((arrived, []))
        company = chance.choice(list(self.ledger.states[0]))
        after, epoch = self.places.get(company, (None, None))
        if chance.random() < 0.4:
            after = epoch = None
        elif after is not None and chance.random() < 0.3:
            after = chance.randrange(after + 3)
        sent = self.ledger.done
        try:
            answer = await client.set_company(company, after, epoch)
        except (AssertionError, ConnectionClosed):  # too many refusals
            with suppress(AssertionError):
                assert await client.closed() == 4403
            self.client = None
            return
        if answer["Success"]:
            self.history[-1][1].append(sent)
            self.places[company] = (answer["Data"]["Position"], answer["Data"]["Epoch"])

    def check(self) -> int:
        """How many messages arrived; each of them was allowed."""
        count = 0
        for arrived, sent in self.history:
            company, first, position, turns = "", 0, 0, iter(sent)
            for message, at in zip(arrived, arrived.at, strict=True):
                kind = message["Type"]
                if kind == "SetCompanyResult" and message["Success"]:
                    company, first = message["Data"]["CompanyId"], next(turns)
                    position = message["Data"]["Position"]
                elif kind == "CompanyRevoked":
                    assert message["Data"]["CompanyId"] == company, message
                    company = ""
                elif "Position" in message:
                    count += 1
                    assert message["Data"]["CompanyId"] == company, message
                    assert message["Position"] == position + 1, (message, position)
                    position += 1
                    if kind != "Resync":
                        number = int(message["Actor"])
                        assert number <= at, "received before it was committed"
                        assert self.ledger.allows(self.user, company, number, first, at), (
                            self.user,
                            message,
                            first,
                            at,
                        )
        return count


class Writer:
    """An app that hires, dismisses, moves and writes, one transaction after the other."""

    def __init__(self, app: Connection, ledger: Ledger, users: list[str]) -> None:
        self._app = app
        self._ledger = ledger
        self._users = users

    async def step(self, chance: random.Random) -> None:
        ledger = self._ledger
        company, other = chance.sample(list(ledger.states[0]), 2)
        user = chance.choice(self._users)
        here, there = ledger.members(company), ledger.members(other)
        match chance.randrange(11):
            case 0 | 1 if user not in here:
                await self.write({company: here | {user}}, (HIRE, company, user))
            case 2 if user in here:
                await self.write({company: here - {user}}, (DISMISS, company, user))
            case 3 if user in here and user not in there:
                changed = {company: here - {user}, other: there | {user}}
                await self.write(changed, (MOVE, company, user, other))
            case 4 if user in here:
                await self.write({company: here - {user}}, (RETIRE, company, user))
            case 5 if user in here:
                await self.write({company: here}, (DISMISS, company, user), (HIRE, company, user))
            case 6 if user in here:
                await self.write({company: here - {user}}, (DISMISS, company, user))
                await self.write({company: here}, (HIRE, company, user))
            case 7 if chance.random() < 0.15:
                await self.write({company: set()}, ("DELETE FROM companies WHERE id = $1", company))
                await self.write({company: {user}}, (FOUND, company), (HIRE, company, user))
            case 8 if chance.random() < 0.1:
                everywhere: dict[str, set[str]] = {name: set() for name in ledger.states[0]}
                await self.write(everywhere, ("TRUNCATE employees CASCADE",))
            case _:
                title = f"of {company}"
                await self.write({}, (EVENT, company, title), (EVENT, other, f"of {other}"))

    async def write(self, changed: dict[str, set[str]], *statements: tuple[str, ...]) -> None:
        transaction = self._app.transaction()
        await transaction.start()
        number = self._ledger.begin(changed)
        await self._app.execute(f"SET LOCAL notifier.actor = '{number}'")
        for sql, *arguments in statements:
            await self._app.execute(sql, *arguments)
        await transaction.commit()
        self._ledger.done = number


HIRE = "INSERT INTO employees (company_id, user_id, name) VALUES ($1, $2, $2)"
DISMISS = "DELETE FROM employees WHERE company_id = $1 AND user_id = $2"
MOVE = "UPDATE employees SET company_id = $3 WHERE company_id = $1 AND user_id = $2"
RETIRE = "UPDATE employees SET user_id = NULL WHERE company_id = $1 AND user_id = $2"
LAST = "the last of all"
FOUND = "INSERT INTO companies (id, name) VALUES ($1, 'again')"


async def test_no_client_receives_what_the_model_does_not_allow(
    database: Database, serve: Serve, connect: Connect
) -> None:
    print(f"NOTIFIER_ISOLATION_SEED={SEED}")  # noqa: T201 - it repeats the run
    chance = random.Random(SEED)
    nodes = [await serve(database), await serve(database)]
    companies = [
        await database.fetchval("INSERT INTO companies (name) VALUES ('A') RETURNING id::text")
        for _ in range(4)
    ]
    users = ["u1", "u2", "u3", "u4"]
    ledger = Ledger(companies)
    writer = Writer(await database.connect(app=True), ledger, users)
    roamers = [Roamer(user, ledger) for user in users * 3]

    async def write() -> None:
        own = random.Random(chance.random())
        for _ in range(300):
            await writer.step(own)
            if own.random() < 0.5:
                await asyncio.sleep(0.02 * own.random())

    async def roam(roamer: Roamer) -> None:
        own = random.Random(chance.random())
        while not writing.done():
            await roamer.step(own, connect, nodes)
            await asyncio.sleep(0.3 * own.random())

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, *(roam(roamer) for roamer in roamers))
    await _all_are_revoked(writer, ledger, roamers, connect, nodes[0])
    assert sum(roamer.check() for roamer in roamers) > 100


async def _all_are_revoked(
    writer: Writer, ledger: Ledger, roamers: list[Roamer], connect: Connect, node: Service
) -> None:
    """Every client has received the last event, or CompanyRevoked."""
    for company in ledger.states[0]:
        await writer.write(
            {company: ledger.members(company) | {"witness"}}, (HIRE, company, "witness")
        )
        witness = await connect(node, "witness", company)
        await writer.write({}, (EVENT, company, LAST))
        await witness.next("EventCreated")
    for roamer in roamers:
        client = roamer.client
        if client is not None:
            await client.received(_is_revoked)


def _is_revoked(messages: list[Message]) -> bool:
    """Whether the company that was last followed has said its last, or was taken away."""
    company = ""
    for message in messages:
        if message["Type"] == "SetCompanyResult" and message["Success"]:
            company = message["Data"]["CompanyId"]
        elif message["Type"] == "CompanyRevoked" or message.get("Data", {}).get("Title") == LAST:
            company = ""
    return not company


# --- a marker

MARKER = "canary-7f3a"


async def test_c14_nothing_of_a_company_reaches_anybody_else(
    database: Database, serve: Serve, connect: Connect
) -> None:
    service, calendar = await serve(database, log_level="debug"), Calendar(database)
    user = f"{MARKER} user"
    company = await calendar.company(user, name=f"{MARKER} company")
    other = await calendar.company("u1", "u2")
    inside = await connect(service, user, company)
    spies = [
        await connect(service, "u1", other),
        await connect(service, "u2", other, 0, inside.epoch),
        await connect(service, "u1"),
        await connect(service),
    ]
    curious = await connect(service, "u3")
    refused = [
        await curious.set_company(company),
        await curious.set_company(company, 0, inside.epoch),
        await curious.set_company(company, 10**9, inside.epoch),
    ]

    event = await calendar.event(company, f"{MARKER} title")
    await database.execute(
        "UPDATE events SET description = $2, location = $2 WHERE id = $1::text::uuid", event, MARKER
    )
    await database.execute(
        "UPDATE employees SET email = $1, job_title = $1 WHERE company_id = $2", MARKER, company
    )
    await database.execute(
        f"BEGIN; SET LOCAL notifier.actor = '{MARKER} actor';"
        f"UPDATE companies SET name = '{MARKER} renamed' WHERE id = '{company}'; COMMIT"
    )
    await database.execute(
        "UPDATE events SET company_id = $2, title = 'moved', description = NULL, location = NULL"
        " WHERE id = $1::text::uuid",
        event,
        other,
    )
    await database.execute(
        "UPDATE employees SET company_id = $2, user_id = 'u9', name = 'n', email = NULL,"
        " job_title = NULL WHERE company_id = $1 AND user_id = $3",
        company,
        other,
        user,
    )
    await inside.next("CompanyRevoked")
    await calendar.event(company, f"{MARKER} {'x' * 300_000}")
    await calendar.events(company, 1500, f"{MARKER} many")
    await calendar.event(other, "the last")
    for spy in spies[:2]:
        while (await spy.next("EventCreated"))["Data"]["Title"] != "the last":
            pass

    bad = await connect(service.url + f"?token={MARKER}")
    for text in (
        MARKER,
        f'{{"type": "{MARKER}"}}',
        f'{{"type": "setCompany", "data": "{MARKER}"}}',
    ):
        await bad.send(text)
        await bad.expect("Error")
    answer = await bad.authenticate(token=f"{MARKER}.{token(user)}")
    assert not answer["Success"]
    await bad.closed()
    stranger = await connect(service, user)
    assert not (await stranger.set_company(MARKER))["Success"]

    seen = [str(client.messages) + str(client.socket.close_reason) for client in [*spies, bad]]
    seen += [str(client.socket.response) for client in [*spies, bad] if client.socket.response]
    seen += [str(refused), service.log()]
    for path in ("/metrics", "/readyz", "/livez", "/", f"/{company}", "/asyncapi.json"):
        seen.append((await service.get(path)).text)
    for text in seen:
        assert MARKER not in text
        assert company not in text
    assert MARKER in str(inside.messages)


# --- an answer's bytes


async def test_c8_a_foreign_and_an_unknown_company_get_the_same_bytes(
    service: Service, calendar: Calendar, raw: Raw
) -> None:
    foreign = await calendar.company("u2")
    deleted = await calendar.company("u2")
    await calendar.database.execute("DELETE FROM companies WHERE id = $1", deleted)
    requests: list[Any] = [
        {"companyId": foreign},
        {"companyId": foreign.upper()},
        {"companyId": deleted},
        {"companyId": "00000000-0000-0000-0000-000000000000"},
        {"companyId": "11111111-2222-4333-8444-555555555555"},
        {"companyId": "1 OR 1=1"},
        {"companyId": 42},
        {"companyId": foreign, "after": 0, "epoch": "x"},
        {"companyId": deleted, "after": 1 << 62, "epoch": ""},
    ]
    answers = set()
    for data in requests:
        client = await raw.upgrade(service)
        await client.send_text(json.dumps({"type": "authenticate", "token": token("u1")}))
        await client.frame()
        await client.send_text(json.dumps({"type": "setCompany", "data": data}))
        answers.add(await client.frame())
    (answer,) = answers
    assert json.loads(answer.payload)["Error"]["Code"] == "company_forbidden"


async def test_c2_bad_tokens_of_every_kind_are_refused_with_the_same_bytes(
    service: Service, raw: Raw
) -> None:
    """C3 as well: the reason is sent to no client."""
    good, secret = {"sub": "u1", "exp": time.time() + 3600}, SECRET
    bad = [text for text in FORGED.values() if text.isprintable() and len(text) < 16_000]
    bad += [signed({**good, "sub": sub}, key=secret) for sub in ("", None, True, ["u1"])]
    odd_ends: list[object] = [None, "soon", True, [1], {}]
    bad += [signed({**good, "exp": end}, key=secret) for end in odd_ends]
    bad += [signed({**good, **odd}, key=secret) for odd in ({"aud": "x"}, {"nbf": 10**400})]
    bad += [signed(good, {"alg": "HS256", "typ": "logout+jwt"}, key=secret)]
    bad += [signed(good, {"alg": "HS256", "crit": ["exp"]}, key=secret)]
    bad += [signed(good, {"alg": "none"}, key=secret), signed(good, key=secret[::-1])]
    bad += [signed({**good, "companies": "x"}, key=secret), signed(b"[" * 9000, key=secret)]

    async def seen(text: str) -> bytes:
        client = await raw.upgrade(service)
        await client.send_text(json.dumps({"type": "authenticate", "token": text}))
        return await client.ended()

    (answer,) = set(await asyncio.gather(*map(seen, bad)))
    assert b"token_invalid" in answer
    assert b"4401" in answer
    ends: list[float] = [0, -1.5, -(10**400), 1000.0]
    old = [signed({**good, "exp": exp}, key=secret) for exp in ends]
    (answer,) = set(await asyncio.gather(*map(seen, old)))
    assert b"4419" in answer


# --- forgeries


def _lines(count: int) -> list[str]:
    chance = random.Random(SEED)
    company = '{"Type":"EventCreated","Data":{"CompanyId":"%s"},"Position":7}'
    makers: list[Callable[[], str]] = [
        lambda: str(chance.randrange(10 ** chance.randrange(1, 30))),
        lambda: str(-chance.randrange(10**9)),
        lambda: "".join(chr(chance.randrange(1, 0xD7FF)) for _ in range(chance.randrange(1, 50))),
        lambda: chance.randbytes(chance.randrange(1, 16)).hex(),
        lambda: "x" * 7999,
        lambda: company % chance.randrange(99),
        lambda: chance.choice("٤²") * chance.randrange(1, 20),
        lambda: "",
    ]
    return [chance.choice(makers)() for _ in range(count)]


@pytest.mark.parametrize("channel", ["notifier_messages", "notifier_changes"])
async def test_b16_a_forged_notification_is_no_more_than_a_reason_to_read(
    service: Service, calendar: Calendar, connect: Connect, channel: str
) -> None:
    print(f"NOTIFIER_ISOLATION_SEED={SEED}")  # noqa: T201 - it repeats the run
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    app = await calendar.database.connect(app=True)
    for payload in _lines(1000):
        await app.execute("SELECT pg_notify($1, $2)", channel, payload)
    await calendar.events(company, 3)
    arrived = await client.received(lambda messages: messages[-1].get("Position") == 4)
    assert positions(arrived) == [2, 3, 4]
    await client.send({"type": "ping"})
    await client.next("Pong")
    await service.ready()


async def test_a_role_that_listens_on_the_channels_learns_no_row(
    service: Service, calendar: Calendar, connect: Connect
) -> None:
    company = await calendar.company("u1")
    client = await connect(service, "u1", company)
    stranger = await calendar.database.connect(app=True)
    arrived: list[str] = []
    for channel in ("notifier_messages", "notifier_changes"):
        await stranger.add_listener(channel, lambda *seen: arrived.append(str(seen[3])))
    for number in range(20):
        await calendar.event(company, f"{MARKER} {number}")
        await client.expect("EventCreated")
    await stranger.execute("SELECT")
    assert arrived
    # A probe of a node may be among them: it has a number of its own.
    assert all(int(seen.removeprefix("probe ") or "0", 16) >= 0 for seen in arrived)
    assert MARKER not in str(arrived)
    assert company not in str(arrived)
