"""The fixture of tests that need sessions but neither connections nor a database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from notifier.delivery import session as sessions
from tests.unit.worlds import World, settle

# An environment that was made without the extra `otel`; in CI there is none.
collect_ignore = (
    [] if find_spec("opentelemetry.sdk") or os.environ.get("CI") else ["test_tracing.py"]
)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Refusals take no time. In the end nothing may be left of the sessions."""
    monkeypatch.setattr(sessions, "REFUSED_SECONDS", 0.0)
    world = World()
    yield world
    for session in world.sessions:
        session.closed()
    await settle()
    assert not world.admission.connections
    assert not world.admission._users
    assert not any(channel.pins or len(channel) for channel in world.log.hub._channels.values())
