"""The protocols by which the relay reports the stages of a batch to its tracing, and a no-op implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from notifier.relay.changes import Change

NO_LINKS: Final[Mapping[int, str]] = {}


class BatchTrace(Protocol):
    """The trace of one batch. It begins with the statement that reads the changes."""

    links: Mapping[int, str]
    """What the messages of a traced transaction carry as `traceparent`, by transaction id."""

    def read(self, changes: Sequence[Change]) -> None:
        """The changes were read."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """The batch is in this stage during the block: net, store or publish."""

    def end(self) -> None:
        """The batch is stored and published."""


class RelayTracer(Protocol):
    """Traces batches."""

    def begin(self) -> BatchTrace:
        """Changes are read from now on."""


class Untraced:
    """The trace of a batch, and the tracer, where tracing is off."""

    links = NO_LINKS
    _stage = nullcontext()

    def begin(self) -> BatchTrace:
        """Nothing is traced."""
        return self

    def read(self, changes: Sequence[Change]) -> None:
        """Nothing is traced."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Nothing is traced."""
        del name
        return self._stage

    def end(self) -> None:
        """Nothing is traced."""


UNTRACED: Final = Untraced()
