"""The bill of materials of a release."""

from __future__ import annotations

import json
from pathlib import Path

from release.sbom import locked, write

LOCK = (Path(__file__).parents[2] / "requirements-serve.lock").read_text()


def test_it_names_the_wheel_and_every_library_of_the_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "bill.json"
    write(path, LOCK, "1.2.3", "ab" * 32, 1_800_000_000)
    bill = json.loads(path.read_text())
    root = bill["metadata"]["component"]
    assert (root["purl"], root["hashes"][0]["content"]) == (
        "pkg:pypi/postgres-notifier@1.2.3",
        "ab" * 32,
    )
    names = {component["name"] for component in bill["components"]}
    assert {"asyncpg", "uvicorn", "opentelemetry-sdk"} <= names
    assert len(names) == len([line for line in LOCK.splitlines() if not line.startswith(" ")])
    for component, line in zip(
        sorted(bill["components"], key=lambda each: each["name"]),
        sorted(locked(LOCK), key=lambda each: each.name),
        strict=True,
    ):
        assert component["version"] == line.version
        assert {each["content"] for each in component["hashes"]} == set(line.hashes)
    edges = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert len(edges[root["bom-ref"]]) == len(names)
    assert "/simple" not in path.read_text()
    again = tmp_path / "again.json"
    write(again, LOCK, "1.2.3", "ab" * 32, 1_800_000_000)
    assert again.read_bytes() == path.read_bytes()
