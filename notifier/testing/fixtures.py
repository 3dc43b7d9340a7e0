"""The fixtures. Each may be replaced by one of the same name in `conftest.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from notifier.demo.postgres import EmbeddedPostgres
from notifier.testing import databases
from notifier.testing.service import RunningNotifier

Schema: TypeAlias = str | Callable[[str], object] | None
"""SQL, or a function that makes the tables in the database of a URL; None: the calendar."""


@pytest.fixture(scope="session")
def notifier_postgres() -> Iterator[str]:
    """The URL of a server, as a superuser: an embedded one, in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="notifier-") as name:
        Path(name).chmod(0o755)  # started by root, the server runs as another user
        with EmbeddedPostgres(Path(name) / "data", durable=False) as server:
            yield server.dsn()


@pytest.fixture(scope="session")
def notifier_schema() -> Schema:
    """The application's tables. To be replaced by one that makes yours."""
    return None


@pytest.fixture(scope="session")
def notifier_settings() -> Mapping[str, Any]:
    """Settings in lower case, as `Settings` takes them. Others come from the environment and `notifier.toml`."""
    return {}


@pytest.fixture(scope="session")
def notifier_template(
    notifier_postgres: str, notifier_schema: Schema, notifier_settings: Mapping[str, Any]
) -> Iterator[str]:
    """The name of a database with the application's tables and the notifier's, which is copied for each test."""
    name = f"notifier_template_{uuid4().hex[:12]}"
    databases.create(notifier_postgres, name)
    databases.prepare(databases.url(notifier_postgres, name), notifier_schema, notifier_settings)
    yield name
    databases.drop(notifier_postgres, name)


@pytest.fixture
def notifier_database_url(notifier_postgres: str, notifier_template: str) -> Iterator[str]:
    """The URL of a database for this test alone."""
    name = f"notifier_test_{uuid4().hex[:12]}"
    databases.copy(notifier_postgres, name, notifier_template)
    yield databases.url(notifier_postgres, name)
    databases.drop(notifier_postgres, name)


@pytest.fixture
def notifier(
    notifier_database_url: str, notifier_settings: Mapping[str, Any]
) -> Iterator[RunningNotifier]:
    """A node that is ready, on this test's database."""
    with RunningNotifier(notifier_database_url, notifier_settings) as running:
        yield running
