"""Alert rules, their run books and the dashboard name metrics that exist, and agree with one another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from notifier import metrics
from notifier.transport.refusals import Reason
from tests.blocks import blocks
from tests.installed import needs

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = (PROMETHEUS / "alerts.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)\n +expr: >-\n +(.+)\n", RULES)
RUNBOOKS = ROOT / "docs" / "runbooks"

needs_promtool = needs(shutil.which("promtool"), "no promtool")


@cache
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "notifier.json").read_text())
    return loaded


def expressions() -> list[str]:
    """Every PromQL expression of the rules and of the dashboard."""
    shown = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    return [*(expression for _, expression in ALERTS), *shown]


def existing() -> dict[str, set[str]]:
    """The series of each metric, with the names of their labels."""
    metrics.expect_links("node")
    metrics.PATH.labels("postgres")
    assert len(Reason) > 1  # its module shows the refused handshakes when it is imported
    return {
        sample.name: {*sample.labels}
        for metric in REGISTRY.collect()
        if metric.name.startswith("notifier_")
        for sample in metric.samples
    }


def test_every_metric_and_label_that_is_named_exists() -> None:
    known = existing()
    for expression in expressions():
        for name, labels in re.findall(r"(notifier_\w+)(?:\{([^}]*)\})?", expression):
            assert name in known, expression
            named = set(re.findall(r"(\w+)=", labels)) - {"job", "instance"}
            assert named <= known[name], expression
    grouped = {
        label.strip()
        for expression in expressions()
        for labels in re.findall(r"by \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    assert grouped <= {"job", "instance", "le"}.union(*known.values())


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(expressions())
    missing = {re.sub(r"_(bucket|sum|count)$", "", name) for name in existing()}
    assert {name for name in missing if name not in shown} == set()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_alert_has_a_run_book_and_a_test() -> None:
    names = [name for name, _ in ALERTS]
    assert len(names) == RULES.count("- alert:")
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(names)
    index, tests = (
        (RUNBOOKS / "README.md").read_text(),
        (PROMETHEUS / "alerts_test.yml").read_text(),
    )
    for name, expression in ALERTS:
        assert f"runbook: docs/runbooks/{name}.md" in RULES
        assert f"[{name}]({name}.md)" in index
        assert f"- name: {name}\n" in tests
        page = (RUNBOOKS / f"{name}.md").read_text()
        assert f"    {expression}\n" in page, f"{name}.md shows another expression"
        for heading in ("What it means", "What to look at", "What to do"):
            assert re.search(rf"^## {heading}\n\n\S", page, re.MULTILINE), name


@needs_promtool
@pytest.mark.parametrize("command", [("check", "alerts.yml"), ("test", "alerts_test.yml")])
def test_promtool_accepts_the_rules_and_runs_their_tests(command: tuple[str, str]) -> None:
    kind, file = command
    ran = subprocess.run(
        ["promtool", kind, "rules", file], cwd=PROMETHEUS, capture_output=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


@needs_promtool
def test_promtool_accepts_the_configuration_in_operations_md(tmp_path: Path) -> None:
    pages = blocks(ROOT / "docs" / "operations.md")
    (configuration,) = [each.text for each in pages if each.language == "yaml"]
    (tmp_path / "prometheus.yml").write_text(configuration)
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    ran = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    assert b"rule files found" in ran.stdout + ran.stderr
