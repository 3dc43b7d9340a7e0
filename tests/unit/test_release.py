"""One version everywhere."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from notifier import __version__, cli, metrics
from notifier.web import asyncapi
from release.__main__ import require_version

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


def test_examples_and_the_dotnet_client_have_it_too() -> None:
    example = json.loads((ROOT / "examples" / "react" / "package.json").read_text())
    assert example["dependencies"]["postgres-notifier"] == __version__
    project = (ROOT / "clients" / "dotnet" / "Notifier.Client.csproj").read_text()
    assert re.findall(r"<Version>(.+)</Version>", project) == [__version__]


def test_the_program_and_its_metrics_report_it() -> None:
    printed = CliRunner().invoke(cli.app, ["--version"]).stdout
    require_version("the program", printed)
    assert REGISTRY.get_sample_value("notifier_build_info", {"version": __version__}) == 1
    assert metrics.__name__  # its import has registered the metric
    with pytest.raises(SystemExit, match=r"the image is notifier 0\.0\.1"):
        require_version("the image", "notifier 0.0.1\n")


def test_the_descriptions_of_the_protocol_have_one_version_of_their_own() -> None:
    for name in ("asyncapi.json", "openapi.json"):
        described = json.loads((ROOT / "docs" / name).read_text())
        assert described["info"]["version"] == asyncapi.VERSION


def test_the_upgrade_is_tested_from_an_older_version() -> None:
    (wheel,) = (ROOT / "tests" / "upgrade").glob("*.whl")
    previous = wheel.name.split("-")[1]
    assert [int(part) for part in previous.split(".")] < [
        int(part) for part in __version__.split(".")
    ]
