"""The lock files name versions and hashes, and no registry."""

from __future__ import annotations

import json
import re

import pytest

from tests.services import ROOT


@pytest.mark.parametrize("name", ["requirements", "requirements-demo", "requirements-serve"])
def test_a_python_lock_file_has_a_hash_for_each_version_and_no_url(name: str) -> None:
    text = (ROOT / f"{name}.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lock_file_of_the_version_matrix_has_hashes_and_no_url() -> None:
    text = (ROOT / "tests" / "versions" / "package-lock.json").read_text()
    assert "://" not in text
    packages = {path: entry for path, entry in json.loads(text)["packages"].items() if path}
    assert [path.rpartition("-")[2] for path in packages] == ["14", "15", "16", "17"]
    for path, entry in packages.items():
        assert entry["version"].startswith(path.rpartition("-")[2])
        assert entry["integrity"].startswith("sha512-")
