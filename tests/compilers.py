"""Compilers that the tests use where they are at hand; in CI a missing one is a failure."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
TYPESCRIPT = ROOT / "tests" / "typescript"
INSTALLED = ROOT / ".venv" / "typescript"


def skip(missing: str) -> NoReturn:
    """Skips the test; in CI, which installs every language, it fails."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def typescript() -> Path:
    """The compiler that `tests/typescript/package-lock.json` names, installed by npm at the first call."""
    npm = shutil.which("npm")
    compiler = INSTALLED / "node_modules" / ".bin" / "tsc"
    if npm is None:
        skip("no npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = (TYPESCRIPT / "package-lock.json").read_bytes()
        installed = INSTALLED / "package-lock.json"
        if not compiler.exists() or installed.read_bytes() != locked:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(TYPESCRIPT / name, INSTALLED)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
                cwd=INSTALLED,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                skip(f"npm cannot install TypeScript: {done.stderr[-300:]}")
    return compiler


def mono() -> Path:
    """Mono's C# compiler."""
    compiler = shutil.which("mcs")
    if compiler is None:
        skip("no Mono")
    return Path(compiler)
