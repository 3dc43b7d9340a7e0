"""The scenarios. Each is a conversation; it raises Wrong where the client leaves it.

Most end with a dropped connection: the position after which the client resumes shows what it has accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from notifier.conformance.peer import Wrong
from notifier.conformance.script import Script

QUIET_SECONDS = 5.0
"""How long a client is watched that has nothing to send."""

GAP_TRIES = 6
"""How often a client may request a gap that is never filled: three times, and a few more."""

RETRY_AFTER_MS = 3000

PING_SECONDS = 60.0
"""How long a connection may be silent before the client sends a ping."""

IDLE_SECONDS = 1.0
"""The client keeps a connection for longer than this once its ping was answered."""

RENEW_SECONDS = 2.0
"""The age of a token that is to be renewed: one of the next second is another one."""


class Scenario(NamedTuple):
    """`text`: what the client must do. `play` raises Wrong. It takes `seconds` at least: the longest begin first."""

    name: str
    text: str
    play: Callable[[Script], Awaitable[None]]
    seconds: float = 0.0


async def drop(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11, 12, 13)
    await peer.drop()
    peer = await script.resumed(13)
    await script.changes(peer, 14)
    await peer.drop()
    await script.resumed(14)


async def delay(script: Script) -> None:
    peer = await script.subscriber(None)
    await peer.nothing(QUIET_SECONDS)
    await script.acknowledge(peer, 10)
    await peer.send_in_fragments(script.change(11, "Ÿ € 𝄞" * 15_000), 0.5)
    script.expected.append(11)
    await peer.drop()
    await script.resumed(11)


async def repeat(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 9, 10, accepted=False)
    await script.changes(peer, 11, 12)
    await script.changes(peer, 11, 12, accepted=False)
    await script.changes(peer, 13)
    await peer.drop()
    peer = await script.resumed(13)
    await script.changes(peer, 13, accepted=False)
    await script.changes(peer, 14)
    await peer.drop()
    await script.resumed(14)


async def gap(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await script.changes(peer, 13, accepted=False)
    await script.subscribed(peer, 11)
    await script.changes(peer, 14, accepted=False)
    await script.acknowledge(peer, 11, recovered=True)
    await script.changes(peer, 12, 13, 14)
    await peer.drop()
    await script.resumed(14)


async def skip(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await script.skipped(peer, 12)
    await script.changes(peer, 13)
    await script.skipped(peer, 17)
    await script.changes(peer, 18)
    await script.skipped(peer, 12)
    await peer.drop()
    peer = await script.resumed(18)
    await script.skipped(peer, 25)
    await peer.drop()
    await script.resumed(25)


async def reorder(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 12, 11, accepted=False)
    data = await script.subscribed(peer, 10, 11)
    await script.acknowledge(peer, data["after"], recovered=True)
    await script.changes(peer, *range(data["after"] + 1, 14))
    script.expected[:] = ["resync", 11, 12, 13]
    await peer.drop()
    await script.resumed(13)


async def endless_gap(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    for _ in range(GAP_TRIES):
        await script.changes(peer, 13, accepted=False)
        data = await script.subscribed(peer, 11, None)
        if data.get("after") is None:
            break
        await script.acknowledge(peer, 11, recovered=True)
    else:
        raise Wrong(f"requested {GAP_TRIES} times what the server does not have")
    await script.acknowledge(peer, 20)
    await script.changes(peer, 21)
    await peer.drop()
    await script.resumed(21)


async def resync(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await script.resync(peer, 15, "bulk")
    await script.changes(peer, 16)
    await peer.drop()
    await script.resumed(16)


async def reload(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await script.resync(peer, 11, "epoch")
    await script.changes(peer, 12)
    await peer.drop()
    await script.resumed(12)


async def epoch(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    script.epoch = "e2"
    await script.resync(peer, 1, "epoch")
    await script.changes(peer, 2)
    await peer.drop()
    await script.resumed(2)


async def not_recovered(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.drop()
    peer = await script.resumed(11, recovered=False)
    script.epoch = "e2"
    await script.acknowledge(peer, 5, recovered=False)
    await script.changes(peer, 6)
    await peer.drop()
    await script.resumed(6)


async def unknown(script: Script) -> None:
    peer = await script.enter()
    await peer.send({"Type": "FromTheFuture", "Data": {"CompanyId": script.company}})
    change = script.change(11) | {"New": {"a": [1, None]}}
    change["Data"]["Added"] = {"deep": [{}]}
    await peer.send(change)
    script.expected.append(11)
    await peer.send({"Type": "Error", "Error": {"Code": "new_code", "Message": "…"}})
    await script.changes(peer, 12)
    await peer.drop()
    await script.resumed(12)


async def restart(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.close(1012)
    peer = await script.resumed(11)
    await script.changes(peer, 12)
    await peer.close(4508)
    await script.resumed(12)


async def retry_after(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    closed_at = asyncio.get_running_loop().time()
    await peer.close(4429, wait_ms=RETRY_AFTER_MS)
    peer = await script.resumed(11)
    waited = peer.connected_at - closed_at
    if waited < RETRY_AFTER_MS / 1000:
        raise Wrong(f"returned after {waited:.1f} s; RetryAfterMs was {RETRY_AFTER_MS}")


async def silence(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    peer.silent = True
    await peer.command("ping", seconds=PING_SECONDS)
    peer.freeze()
    await script.resumed(11)


async def idle(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.command("ping", seconds=PING_SECONDS)
    await asyncio.sleep(IDLE_SECONDS)
    await script.changes(peer, 12)
    await peer.drop()
    await script.resumed(12)


async def renew(script: Script) -> None:
    peer = await script.enter()
    await asyncio.sleep(RENEW_SECONDS)
    await peer.send({"Type": "TokenExpiring", "Data": {"ExpiresAt": "2026-11-22T19:00:00Z"}})
    await peer.authenticate()
    await script.changes(peer, 11)
    await peer.drop()
    await script.resumed(11)


async def expired(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.close(4419)
    await script.absent(peer.token)


async def refused_token(script: Script) -> None:
    peer = await script.connection()
    command = await peer.command("authenticate")
    error = {"Code": "token_invalid", "Message": "the token is not valid"}
    await peer.send({"Type": "AuthenticationResult", "Success": False, "Error": error})
    await peer.close(4401, reconnect=False)
    await script.absent(command.get("token"))


async def revoke(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.send({"Type": "CompanyRevoked", "Data": {"CompanyId": script.company}})
    await peer.nothing(QUIET_SECONDS)
    await script.absent()


async def forbidden(script: Script) -> None:
    peer = await script.subscriber(None)
    await peer.refuse(script.company, "company_forbidden")
    await peer.nothing(QUIET_SECONDS)
    await script.absent()


async def broken(script: Script) -> None:
    peer = await script.enter()
    await script.changes(peer, 11)
    await peer.close(4400, reconnect=False)
    await script.absent()


SCENARIOS = (
    Scenario("drop", "resume after the last message when the connection breaks", drop),
    Scenario("delay", "wait for a late answer, and read a large message in fragments", delay),
    Scenario("repeat", "drop messages that it has already", repeat),
    Scenario("gap", "request what is missing before it goes on", gap),
    Scenario("skip", "continue behind a Skipped, which reports nothing and is no gap", skip),
    Scenario("reorder", "take a message that comes too early for a gap", reorder),
    Scenario(
        "endless-gap", "stop requesting what the server does not have, and reload", endless_gap
    ),
    Scenario("silence", "drop a connection on which a ping is not answered", silence, 25),
    Scenario("idle", "ping a silent connection, and keep it when that is answered", idle, 15),
    Scenario("renew", "authenticate on the same socket before the token expires", renew, 30),
    Scenario("resync", "reload at a Resync, and continue behind it", resync),
    Scenario("reload", "reload at a Resync at the position that it has", reload),
    Scenario("epoch", "adopt the epoch and the smaller position of a new log", epoch),
    Scenario("not-recovered", "reload when a position cannot be recovered", not_recovered),
    Scenario("unknown", "ignore types, properties and error codes that it does not know", unknown),
    Scenario("restart", "return after 1012 and 4508, and resume", restart),
    Scenario("retry-after", "wait as long as RetryAfterMs demands", retry_after),
    Scenario("expired", "not present an expired token again", expired),
    Scenario("refused-token", "not present a refused token again", refused_token),
    Scenario("revoke", "not subscribe again when access was revoked", revoke),
    Scenario("forbidden", "not subscribe again to a company that was refused", forbidden),
    Scenario("broken", "not connect again after 4400, a fault of the client", broken),
)
