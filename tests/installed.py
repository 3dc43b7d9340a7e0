"""Programs and rights that single tests need. Without one a test is skipped; in CI, which has them all, it fails.

In CI too, a test of a feature that a version of PostgreSQL lacks is skipped: CI runs each test on version 18 as well.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.databases import Database


def skip(missing: str) -> NoReturn:
    """Skips the test that calls it; in CI the test fails."""
    if _in_ci():
        pytest.fail(missing)
    pytest.skip(missing)


def needs(present: object, missing: str) -> pytest.MarkDecorator:
    """Marks a test that is skipped unless `present` is true; in CI it runs, and fails."""
    return pytest.mark.skipif(not present and not _in_ci(), reason=missing)


async def skip_before(major: int, database: Database, feature: str) -> None:
    """Skips the test that calls it where PostgreSQL is older than the version that brought the feature."""
    version = await database.fetchval("SELECT current_setting('server_version_num')::int")
    if version < major * 10_000:
        pytest.skip(f"{feature} came with PostgreSQL {major}")


def _in_ci() -> bool:
    return bool(os.environ.get("CI"))
