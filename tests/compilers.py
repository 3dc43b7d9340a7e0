"""Compilers that some tests use (see installed.py where one is missing)."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import playwright

from tests.installed import skip

ROOT = Path(__file__).parents[1]
JAVASCRIPT = ROOT / "clients" / "js"
INSTALLED = ROOT / ".venv" / "javascript"


def node() -> str:
    """A Node with a WebSocket class: Playwright's, or the system's if it is new enough."""
    programs = (str(Path(playwright.__file__).parent / "driver" / "node"), shutil.which("node"))
    found = next((each for each in programs if each and _has_web_socket(each)), None)
    if found is None:
        skip("no Node that has WebSocket")
    return found


def _has_web_socket(program: str) -> bool:
    if not Path(program).exists():
        return False
    answer = subprocess.run(
        [program, "--print", "typeof WebSocket"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip() == "function"


def npm_packages() -> Path:
    """A directory with the development dependencies of the JavaScript package, installed by npm at the first call."""
    npm = shutil.which("npm")
    if npm is None:
        skip("no npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = (JAVASCRIPT / "package-lock.json").read_bytes()
        complete = INSTALLED / "complete"
        if not complete.exists() or complete.read_bytes() != locked:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(JAVASCRIPT / name, INSTALLED)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
                cwd=INSTALLED,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                skip(f"npm cannot install the development dependencies: {done.stderr[-300:]}")
            complete.write_bytes(locked)
    return INSTALLED


def tool(name: str) -> list[str | Path]:
    """The command of one of these packages, on a Node that is new enough for all of them."""
    return [node(), npm_packages() / "node_modules" / ".bin" / name]


def packed(place: Path) -> Path:
    """The JavaScript package as `npm pack` makes it."""
    done = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(place)],
        cwd=JAVASCRIPT,
        capture_output=True,
        text=True,
        check=True,
    )
    return place / done.stdout.strip()


def lay_out(place: Path) -> Path:
    """Copies the package and the tests' programs into a directory in which they find their dependencies."""
    for name in ("clients/js", "tests/client", "tests/javascript"):
        ignored = shutil.ignore_patterns("node_modules", "__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    modules = place / "node_modules"
    modules.mkdir()
    for entry in (npm_packages() / "node_modules").iterdir():
        (modules / entry.name).symlink_to(entry)
    (modules / "postgres-notifier").symlink_to(place / "clients" / "js")
    return place


def mono(program: Literal["mcs", "mono"] = "mcs") -> str:
    """A program of Mono: its C# compiler, or its runtime."""
    path = shutil.which(program)
    if path is None:
        skip("no Mono")
    return path


def by_mono() -> list[str]:
    """The words that run an executable by Mono.

    Its usual selector of sockets ends a process now and then while the first socket connects, on a busy machine: "Assertion at
    threadpool-io-poll.c:59, condition `!is_new' not met". The one with epoll does not.
    """
    return ["env", "MONO_ENABLE_AIO=1", mono("mono")]


def dotnet(place: Path, *sources: Path, program: str = "Driver") -> list[str]:
    """Compiles the .NET client with a program by Mono, without a warning; returns the command that runs it."""
    compiler = mono()
    executable = place / f"{program}.exe"
    client = sorted((ROOT / "clients" / "dotnet" / "src").glob("*.cs"))
    given = sources or (ROOT / "tests" / "dotnet" / "Driver.cs",)
    options = ["-langversion:7.2", "-warn:4", "-warnaserror"]
    if not sources:
        options.append(f"-doc:{executable}.xml")  # each public member of the client is documented
    subprocess.run([compiler, *options, f"-out:{executable}", *client, *given], check=True)
    return [*by_mono(), str(executable)]
