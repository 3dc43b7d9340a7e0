"""A test that cannot run is not skipped silently in CI."""

from __future__ import annotations

import re

import pytest

from tests.installed import needs, skip
from tests.services import ROOT

BY_VERSION = {
    "postgres/test_dumps.py",
    "postgres/test_notification_queue.py",
}
"""Files with tests of what older versions of PostgreSQL lack; CI runs them on version 18 too."""


def test_a_missing_program_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert needs(None, "no compiler").args == (True,)
    with pytest.raises(pytest.skip.Exception, match="no compiler"):
        skip("no compiler")
    monkeypatch.setenv("CI", "1")
    assert needs(None, "no compiler").args == (False,)
    with pytest.raises(pytest.fail.Exception, match="no compiler"):
        skip("no compiler")


def test_no_other_test_skips_by_itself() -> None:
    tests = ROOT / "tests"
    skipping = re.compile(r"pytest\.(skip\(|importorskip|mark\.skip)")
    found = {
        str(path.relative_to(tests))
        for path in tests.rglob("*.py")
        if skipping.search(path.read_text())
    }
    assert found - {"installed.py"} == BY_VERSION
