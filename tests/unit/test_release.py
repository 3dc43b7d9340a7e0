"""One version everywhere."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

from notifier import __version__

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"


def test_client_image_and_changelog_have_the_version_of_the_package() -> None:
    assert f'export const version = "{__version__}";' in (CLIENT / "src" / "client.js").read_text()
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    package = json.loads((CLIENT / "package.json").read_text())
    assert {lock["version"], lock["packages"][""]["version"], package["version"]} == {__version__}
    kustomization = (ROOT / "deploy" / "kubernetes" / "kustomization.yaml").read_text()
    assert re.findall(r"newTag: (\S+)", kustomization) == [__version__]
    released = re.findall(
        r"^## \[([\d.]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert released[0][0] == __version__
    date.fromisoformat(released[0][1])


def test_the_upgrade_is_tested_from_an_older_version() -> None:
    (wheel,) = (ROOT / "tests" / "upgrade").glob("*.whl")
    previous = wheel.name.split("-")[1]
    assert [int(part) for part in previous.split(".")] < [
        int(part) for part in __version__.split(".")
    ]
