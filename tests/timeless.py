"""An event loop with a simulated clock: it jumps to the next timer when nothing else is ready."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec

Arguments = ParamSpec("Arguments")


class _Impatient(selectors.BaseSelector):
    """Advances the clock instead of waiting; file descriptors that are ready are still reported."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready:
            assert timeout is not None, "deadlock: no timer and no ready file descriptor"
            self.now += max(0.0, timeout)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class Timeless(asyncio.SelectorEventLoop):
    """For tests without I/O: simulated hours take no real time."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now


def timeless(
    test: Callable[Arguments, Coroutine[Any, Any, None]],
) -> Callable[Arguments, None]:
    """Runs a test on a loop with a simulated clock."""

    @functools.wraps(test)
    def run(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        with asyncio.Runner(loop_factory=Timeless) as runner:
            runner.run(test(*arguments, **keywords))

    return run
