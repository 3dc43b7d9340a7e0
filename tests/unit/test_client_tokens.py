"""How the client obtains tokens from the application."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from notifier.client.tokens import TokenSource, TokenUnavailable
from tests.timeless import timeless


@timeless
async def test_the_function_may_be_a_coroutine_or_not() -> None:
    async def later() -> str:
        return "later"

    assert await TokenSource(lambda: "now", 1).fetch() == "now"
    assert await TokenSource(later, 1).fetch() == "later"


@pytest.mark.parametrize("result", ["", None, 7])
@timeless
async def test_anything_but_a_text_is_an_error(result: Any) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        await TokenSource(lambda: result, 1).fetch()
    assert str(caught.value.__cause__) == "get_token() returned no token"


@timeless
async def test_a_function_that_hangs_is_given_up() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TokenUnavailable) as caught:
        await TokenSource(hang, 30).fetch()
    assert str(caught.value.__cause__) == "get_token() did not answer"
    assert asyncio.get_running_loop().time() == pytest.approx(30)


@pytest.mark.parametrize("fault", [OSError("provider down"), TimeoutError("provider slow")])
@timeless
async def test_its_own_error_is_the_cause(fault: Exception) -> None:
    def fail() -> str:
        raise fault

    with pytest.raises(TokenUnavailable) as caught:
        await TokenSource(fail, 1).fetch()
    assert caught.value.__cause__ is fault


def test_a_refused_token_is_remembered_until_another_is_accepted() -> None:
    tokens = TokenSource(lambda: "t", 1)
    assert tokens.refusal("t") is None
    tokens.refuse("t", 4401)
    assert tokens.refusal("t") == 4401
    assert tokens.refusal("u") is None
    tokens.forget_refusal()
    assert tokens.refusal("t") is None
