"""`python -m release [--run] [--image]`: wheel, sdist, bill of materials and checksums in dist/, and an image.

Everything is built twice, from two copies of the source, and must be equal byte by byte. With `--run` the wheel is
installed in an empty environment, without compilers, and `notifier demo` must answer from it; then the tutorial is done
with it, and timed. With `--image` the container image is built from the wheel, where a Docker engine answers.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from notifier import __version__
from release import sbom
from tests.newcomer import LIMIT_SECONDS, TYPING_SECONDS, Newcomer

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"

IN_WHEEL = (
    *("notifier/sql/functions/capture.sql", "notifier/sql/queries/read_changes.sql"),
    *("notifier/migrations/env.py", "notifier/migrations/versions/0001_log.py"),
    *("notifier/javascript/client.js", "notifier/demo/static/index.html"),
    *("notifier/notifier.schema.json", "notifier/py.typed"),
)
IN_SDIST = (
    *("sql/functions/capture.sql", "migrations/env.py", "clients/js/src/client.js"),
    *("deploy/grafana/notifier.json", "docs/protocol.md", "tests/conftest.py", "Makefile"),
    *("requirements.lock", "requirements-demo.lock", "requirements-serve.lock"),
)

DEMO_SECONDS = 120.0
"""How long `notifier demo` may take until its page answers; the first time it creates a cluster."""


def released() -> int:
    """The version's date in CHANGELOG.md, in seconds: the time of all files, on every machine."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[{re.escape(__version__)}\] - (\d{{4}}-\d\d-\d\d)$", text, re.MULTILINE
    )
    if section is None:
        raise SystemExit(f"CHANGELOG.md has no section of {__version__} with a date")
    return int(datetime.fromisoformat(section[1]).replace(tzinfo=UTC).timestamp())


def build(source: Path, to: Path, epoch: int) -> list[Path]:
    """Wheel and sdist of a source tree."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(to)],
        cwd=source,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sorted(to.iterdir())


def require_equal(one: Path, other: Path) -> None:
    """Two files of the same bytes."""
    if one.read_bytes() != other.read_bytes():
        raise SystemExit(f"{one.name} is not reproducible: {one} and {other} differ")


def require_content(wheel: Path, sdist: Path) -> None:
    """What users need is in both files, and nothing that a build left behind."""
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for names, wanted, file in ((in_wheel, IN_WHEEL, wheel), (in_sdist, IN_SDIST, sdist)):
        if missing := set(wanted) - names:
            raise SystemExit(f"{file.name} lacks {', '.join(sorted(missing))}")
        left = [name for name in names if re.search(r"\.py[co]$|(^|/)\.(git|venv)/|NOTES", name)]
        if left:
            raise SystemExit(f"{file.name} holds {', '.join(left[:5])}")


def make(epoch: int) -> Path:
    """Builds everything into dist/; the wheel."""
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        place = Path(name)
        first, second = place / "first", place / "second"
        first.mkdir()
        second.mkdir()
        built = build(ROOT, first, epoch)
        sdist, wheel = sorted(built, key=lambda path: path.suffix)
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
        unpacked = place / sdist.name.removesuffix(".tar.gz")
        for again in build(unpacked, second, epoch):  # from the sdist, which must be complete
            require_equal(first / again.name, again)
        require_content(wheel, sdist)
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        for file in built:
            shutil.copy(file, DIST)
    made = DIST / wheel.name
    lock = (ROOT / "requirements-serve.lock").read_text(encoding="utf-8")
    bill = DIST / f"postgres_notifier-{__version__}.cdx.json"
    sbom.write(bill, lock, __version__, _sha256(made), epoch)
    sums = [f"{_sha256(path)}  {path.name}" for path in sorted(DIST.iterdir())]
    (DIST / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    return made


def require_version(what: str, printed: str) -> None:
    """`notifier --version` has printed that of the sources."""
    if printed.strip() != f"notifier {__version__}":
        raise SystemExit(f"{what} is {printed.strip()}, not notifier {__version__}")


def image(wheel: Path) -> str | None:
    """Builds the image from the wheel; its name and size, None where no Docker engine answers.

    PYTHON_IMAGE in the environment replaces the base image. The image has the tags `notifier:X.Y.Z` and `notifier`.
    """
    if shutil.which("docker") is None or _docker("version", check=False) is None:
        return None
    name, package = f"notifier:{__version__}", wheel.relative_to(ROOT)
    base = os.environ.get("PYTHON_IMAGE")
    given = ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    tags = ["--tag", name, "--tag", "notifier"]
    _docker("build", "--quiet", *tags, "--build-arg", f"PACKAGE={package}", *given, str(ROOT))
    confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    require_version("the image", _docker("run", "--rm", *confined, name, "--version") or "")
    user = _docker("run", "--rm", *confined, "--entrypoint", "id", name, "-u")
    if user == "0":
        raise SystemExit("the image runs as root")
    size = int(_docker("image", "inspect", "--format", "{{.Size}}", name) or 0)
    return f"{name}, {size / 1e6:.0f} MB"


def _docker(*words: str, check: bool = True) -> str | None:
    """What a command of Docker prints; None where it fails, unless `check` raises then."""
    done = subprocess.run(["docker", *words], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.strip()
    if check:
        raise SystemExit(f"docker {words[0]}: {done.stderr.strip()}")
    return None


def run(wheel: Path) -> float:
    """Installs the wheel in an empty environment and runs `notifier demo`; seconds until its page answered."""
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        place = Path(name)
        place.chmod(0o755)  # started by root, PostgreSQL runs as another user
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
        python, lock = str(place / "venv/bin/python"), str(ROOT / "requirements-demo.lock")
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        binaries = ["--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*pip, "install", *binaries, "--requirement", lock], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
        subprocess.run([*pip, "check"], check=True)
        return _demo(place / "venv/bin/notifier", place)


def _demo(notifier: Path, place: Path) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {name: each for name, each in os.environ.items() if not name.startswith("NOTIFIER_")}
    environ.pop("PYTHONPATH", None)
    version = subprocess.run(
        [notifier, "--version"], cwd=place, env=environ, check=True, capture_output=True, text=True
    ).stdout
    require_version("the wheel", version)
    began = time.monotonic()
    demo = subprocess.Popen(
        [notifier, "demo", "--port", str(port), "--data", place / "data"], cwd=place, env=environ
    )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    if b"<!doctype html>" in page.read().lower():
                        return time.monotonic() - began
            except OSError:
                pass
            if demo.poll() is not None or time.monotonic() - began > DEMO_SECONDS:
                raise SystemExit("notifier demo from the wheel does not answer")
            time.sleep(0.1)
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)


def tutorial(wheel: Path) -> None:
    """Does docs/tutorial.md in an empty directory, from the installation on, and prints the seconds of each step."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        place = Path(name)
        place.chmod(0o755)  # started by root, PostgreSQL runs as another user
        kept = {key: each for key, each in os.environ.items() if not key.startswith("NOTIFIER_")}
        kept.pop("PYTHONPATH", None)
        newcomer = Newcomer(place, kept | {"PIP_NO_CACHE_DIR": "1"})
        asyncio.run(newcomer.do(place / "data", str(wheel)))
    for step, seconds in newcomer.seconds.items():
        print(f"{seconds:>9.1f} s {step}")
    count = len(newcomer.seconds)
    print(
        f"{TYPING_SECONDS * count:>9.1f} s reading and typing, {TYPING_SECONDS:g} s for each step"
    )
    met = "met" if newcomer.total <= LIMIT_SECONDS else "missed: is the machine busy?"
    print(f"{newcomer.total:>9.1f} s docs/tutorial.md, within {LIMIT_SECONDS:g} s: {met}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--run", action="store_true", help="install the wheel, and run the demo")
    parser.add_argument("--image", action="store_true", help="build the image from the wheel")
    arguments = parser.parse_args()
    wheel = make(released())
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size:>9} {path.relative_to(ROOT)}")
    if arguments.run:
        print(f"notifier demo from the wheel: its page answered after {run(wheel):.1f} s")
        tutorial(wheel)
    if arguments.image:
        print(f"image: {image(wheel) or 'not built, no Docker engine answers'}")


if __name__ == "__main__":
    main()
