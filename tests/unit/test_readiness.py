"""Readiness counts everything that a client needs that arrives now (cases.md: F8, F9, E5, 6.6)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from notifier.access.membership import Membership
from notifier.access.tokens import Tokens
from notifier.database.query import Query
from notifier.errors import KeysUnavailable, SchemaMissing, Unreachable
from notifier.health import Health
from notifier.watchdogs import NEWCOMER_DEADLINE, NEWCOMER_SECONDS, watch_newcomers
from tests.services import SECRET
from tests.timeless import timeless


def proven(*parts: str) -> Health:
    """A node whose path from trigger to hub is proven."""
    health = Health(parts)
    health.proven(relay=True, problems=(), waiting=False, backlog=None)
    return health


async def watched(
    health: Health, seconds: float, **checks: Callable[[], Awaitable[object]]
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await watch_newcomers(health, checks)


async def sound() -> None:
    """A check that succeeds."""


def test_a_part_that_was_not_checked_yet_is_not_ready() -> None:
    assert proven("access").reason() == "access: not checked yet"


@timeless
async def test_a_node_is_ready_when_every_part_is_sound() -> None:
    health = proven("access", "keys")
    await watched(health, 1, access=sound, keys=sound)
    assert health.reason() is None


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("lost the database"),  # F9: the pooler died, the LISTEN link lives
        SchemaMissing("no watched table names members"),  # 6.6
        KeysUnavailable("the signing keys cannot be fetched"),  # E5
    ],
)
@timeless
async def test_cases_f9_e5_6_6_a_part_that_fails_is_named_until_it_is_sound_again(
    error: Exception,
) -> None:
    health, failing = proven("access", "keys"), True

    async def check() -> None:
        if failing:
            raise error

    await watched(health, 1, access=check, keys=sound)
    assert health.reason() == f"access: {error}"
    failing = False
    await watched(health, 1, access=check, keys=sound)
    assert health.reason() is None


@timeless
async def test_cases_f9_a_part_that_hangs_is_found_within_ten_seconds() -> None:
    health, hangs = proven("access", "keys"), asyncio.Event()

    async def check() -> None:
        if hangs.is_set():
            await asyncio.Event().wait()

    await watched(health, NEWCOMER_SECONDS + 1, access=check, keys=sound)
    assert health.reason() is None
    hangs.set()
    await watched(health, 10, access=check, keys=sound)
    assert health.reason() == "access: no answer in time"


@timeless
async def test_a_check_that_takes_longer_ends_by_itself() -> None:
    """It may open a connection, and the first of several hosts may not answer."""
    health, ended = proven("access", "keys"), 0

    async def check() -> None:
        nonlocal ended
        await asyncio.sleep(NEWCOMER_DEADLINE + 1)
        ended += 1

    await watched(health, NEWCOMER_DEADLINE + 0.5, access=check, keys=sound)
    assert (ended, health.reason()) == (0, "access: no answer in time")
    await watched(health, NEWCOMER_DEADLINE + 2, access=check, keys=sound)
    assert (ended, health.reason()) == (1, None)


@timeless
async def test_the_error_of_a_check_that_is_ended_is_retrieved() -> None:
    """The event loop would log it with a traceback."""
    logged: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))

    async def check() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unreachable("lost the database") from None

    await watched(proven("access"), 1, access=check)
    await asyncio.sleep(1)
    gc.collect()
    assert not logged


async def test_cases_e5_keys_that_cannot_be_fetched_are_found() -> None:
    tokens = Tokens(jwks_url="http://127.0.0.1:9/keys")
    with pytest.raises(KeysUnavailable):
        await tokens.require_keys()
    await Tokens(secret=SECRET).require_keys()


async def test_where_tokens_decide_no_access_is_queried() -> None:
    query = Query("postgresql://nowhere", "test", pooled=False)
    await Membership(query, "claim", None).require()
    assert query.queries == 0
