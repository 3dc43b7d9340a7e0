"""Programs and rights that single tests need. Without one a test is skipped; in CI, which has them all, it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip(missing: str) -> NoReturn:
    """Skips the test that calls it; in CI the test fails."""
    if _in_ci():
        pytest.fail(missing)
    pytest.skip(missing)


def needs(present: object, missing: str) -> pytest.MarkDecorator:
    """Marks a test that is skipped unless `present` is true; in CI it runs, and fails."""
    return pytest.mark.skipif(not present and not _in_ci(), reason=missing)


def _in_ci() -> bool:
    return bool(os.environ.get("CI"))
