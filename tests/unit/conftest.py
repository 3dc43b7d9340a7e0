"""The fixture of tests that need sessions but neither connections nor a database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from notifier.delivery import session as sessions
from tests.unit.worlds import World, settle

# Libraries that an older environment may lack; in CI each of them is there.
collect_ignore = [
    file
    for file, library in {
        "test_tracing.py": "opentelemetry.sdk",
        "test_sbom.py": "cyclonedx",
    }.items()
    if not os.environ.get("CI") and find_spec(library) is None
]


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
