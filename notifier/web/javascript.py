"""The browser client in one file: the modules of `clients/js/src`, joined.

In the wheel they lie inside the package, in a checkout beside it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

MODULES = ("rows.js", "http.js", "client.js")
"""Each imports only earlier ones. Only the last one's exports are those of the client."""

_IMPORT = re.compile(r"^import .* from \"\./.*\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:class|const|function) )", re.MULTILINE)
_LAZY = re.compile(r"const (\{ .* \}) = await import\(\"\./.*\"\);.*\n")


def folder() -> Path:
    """The directory with the modules."""
    package = Path(__file__).parents[1]
    shipped = package / "javascript"
    return shipped if shipped.is_dir() else package.parent / "clients" / "js" / "src"


@cache
def client() -> str:
    """The content of `/client.js`: a module without imports."""
    *used, main = [(folder() / name).read_text("utf-8") for name in MODULES]
    first, _, main = main.partition("\n")  # names the types, for Deno
    parts = [*(_EXPORT.sub("", text) for text in used), _LAZY.sub("", main)]
    return first + "\n" + "\n".join(_IMPORT.sub("", text) for text in parts)


@cache
def types() -> str:
    """The content of `/client.d.ts`."""
    return (folder() / "client.d.ts").read_text("utf-8")
