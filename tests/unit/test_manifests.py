"""The Kubernetes manifests and proxy configurations fit Kubernetes' schemas, and the program: settings, ports, paths, times, the image's user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.routing import Route

from notifier.health import Health
from notifier.server import EXIT_SECONDS
from notifier.settings import PREFIX, Settings
from notifier.web.pages import Pages

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
DEPLOYMENT = (KUBERNETES / "deployment.yaml").read_text()
FILES = sorted(
    path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".yaml", ".yml", ".service"}
)


MANIFESTS = [
    (path.name, document)
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] != "Kustomization"  # of kubectl, not of the cluster
]


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda manifest: f"{manifest[0]}-{manifest[1]['kind']}"
)
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_a_manifest(manifest: tuple[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest[1], version, strict=True)


def test_kubernetes_refuses_a_misspelt_property() -> None:
    text = DEPLOYMENT.replace("readinessProbe:", "readyProbe:")
    assert text != DEPLOYMENT
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(next(yaml.safe_load_all(text)), "1.37", strict=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_setting_that_a_file_names_exists(file: Path) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"NOTIFIER_CONFIG"}
    for name in re.findall(r"NOTIFIER_[A-Z_]+", file.read_text()):
        assert name in known


def test_the_probes_use_pages_and_ports_that_exist() -> None:
    pages = {route.path for route in Pages(Health()).status() if isinstance(route, Route)}
    probes = re.findall(r"(\w+)Probe: \{httpGet: \{path: (\S+), port: (\w+)\}", DEPLOYMENT)
    assert {(kind, path) for kind, path, _ in probes} == {
        ("readiness", "/readyz"),
        ("liveness", "/livez"),
    }
    ports = dict(re.findall(r"\{name: (\w+), containerPort: (\d+)\}", DEPLOYMENT))
    assert {path for _, path, _ in probes} <= pages
    assert {port for _, _, port in probes} <= set(ports)
    assert f'{{name: NOTIFIER_STATUS_PORT, value: "{ports["status"]}"}}' in DEPLOYMENT
    assert ports["http"] == str(Settings.model_fields["port"].default)


def test_a_pod_has_time_to_drain_and_runs_as_the_user_of_the_image() -> None:
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", DEPLOYMENT)
    assert int(grace) > EXIT_SECONDS + 5
    (user,) = re.findall(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text())
    for name in ("deployment.yaml", "migrate.yaml"):
        manifest = (KUBERNETES / name).read_text()
        assert f"runAsUser: {user}," in manifest
        assert "readOnlyRootFilesystem: true" in manifest
        assert "enableServiceLinks: false" in manifest


def test_the_kustomization_names_each_manifest() -> None:
    text = (KUBERNETES / "kustomization.yaml").read_text()
    (resources,) = re.findall(r"resources: \[(.*)\]", text)
    named = {*resources.split(", "), "kustomization.yaml"}
    assert named == {path.name for path in KUBERNETES.glob("*.yaml")}
    assert "files: [notifier.toml]" in text
    assert (KUBERNETES / "notifier.toml").is_file()
