"""The metrics: names that Prometheus' linter accepts, and every series present from the start."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict

from notifier import __version__, metrics
from notifier.transport.refusals import Reason
from tests.installed import needs


@pytest.fixture
def links() -> None:
    """Those of a node, which expects them when it is created."""
    metrics.expect_links("node", "relay", "stream", "membership")


@pytest.mark.usefixtures("links")
def test_every_metric_has_its_series_before_anything_happened() -> None:
    empty = [
        metric.name
        for metric in REGISTRY.collect()
        if metric.name.startswith("notifier_") and not metric.samples
    ]
    assert empty == []
    text = metrics.exposition().decode()
    for reason in Reason:
        assert f'notifier_handshakes_refused_total{{reason="{reason}"}}' in text
    for link in ("node", "relay"):
        assert f'notifier_reconnects_total{{link="{link}"}}' in text
    assert f'notifier_build_info{{version="{__version__}"}} 1.0' in text


def test_a_file_that_a_worker_has_just_created_hides_no_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(metrics.DIRECTORY, str(tmp_path))
    full = MmapedDict(str(tmp_path / "counter_1.db"))
    full.write_value(json.dumps(["notifier_made_up", "notifier_made_up_total", {}, "help"]), 7, 0)
    full.close()
    (tmp_path / "gauge_livesum_2.db").touch()
    assert "notifier_made_up_total 7.0" in metrics.exposition().decode()


@pytest.mark.usefixtures("links")
def test_a_link_is_shown_only_where_it_is_expected() -> None:
    metrics.show_link("stream", True)
    metrics.show_link("check", True)
    text = metrics.exposition().decode()
    assert 'notifier_database_links_up{link="stream"} 1.0' in text
    assert 'link="check"' not in text
    metrics.show_link("stream", False)
    assert 'notifier_database_links_up{link="stream"} 0.0' in metrics.exposition().decode()


@pytest.mark.usefixtures("links")
@needs(shutil.which("promtool"), "no promtool")
def test_promtool_finds_nothing_to_complain_about() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics.exposition(),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
