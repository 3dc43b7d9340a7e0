"""The JavaScript package as it would be published: its files, types and size."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from notifier import __version__
from notifier.web import javascript
from tests.compilers import JAVASCRIPT, lay_out, node, packed, tool

pytestmark = pytest.mark.timeout(600)
"""The first test that needs them installs the packages of npm."""

CORE_BYTES = 8 * 1024
"""The client for WebSockets, minified and compressed; what it loads only where it is needed is not counted."""


def run(place: Path, *command: str | Path) -> str:
    """The output of a program that must find nothing wrong."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_is_complete_and_its_types_resolve(tmp_path: Path) -> None:
    tarball = packed(tmp_path)
    assert __version__ in tarball.name
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    sources = {f"src/{path.name}" for path in (JAVASCRIPT / "src").iterdir()}
    assert names == {"package.json", "README.md", "LICENSE", *sources}
    run(tmp_path, *tool("publint"), tarball, "--strict")
    run(tmp_path, *tool("attw"), tarball, "--profile", "esm-only")


@pytest.mark.slow
def test_the_core_is_small_and_loads_http_only_where_it_is_needed(tmp_path: Path) -> None:
    options = ("--bundle", "--splitting", "--minify", "--format=esm", "--target=es2022")
    run(
        tmp_path,
        *tool("esbuild"),
        JAVASCRIPT / "src" / "client.js",
        *options,
        f"--outdir={tmp_path}",
    )
    core = len(gzip.compress((tmp_path / "client.js").read_bytes(), 9))
    assert core <= CORE_BYTES
    assert [path.name[:5] for path in tmp_path.glob("*-*.js")] == ["http-"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory in which the package, its development dependencies and the tests' programs find each other."""
    return lay_out(tmp_path)


@pytest.mark.slow
def test_sources_and_types_agree(project: Path) -> None:
    """`tsc --strict` checks the sources, and what applications write and must not write."""
    run(project, *tool("tsc"), "-p", "tests/client")


@pytest.mark.slow
def test_a_tanstack_collection_follows_the_rows_and_awaits_its_own_writes(project: Path) -> None:
    run(project, node(), "tests/javascript/tanstack.mjs")


@pytest.mark.slow
def test_a_server_renders_the_react_binding_without_a_connection(project: Path) -> None:
    run(project, node(), "tests/javascript/server.mjs")


def test_the_service_serves_the_modules_as_one_file(tmp_path: Path) -> None:
    text = javascript.client()
    assert "import(" not in text
    (tmp_path / "client.mjs").write_text(text)
    script = "import('./client.mjs').then((all) => console.log(JSON.stringify(Object.keys(all))))"
    assert json.loads(run(tmp_path, node(), "-e", script)) == [
        "ArrivalError",
        "connect",
        "version",
    ]
