"""The worked examples of docs/schemas.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "schemas.md"


class Worked(NamedTuple):
    """One example. `settings`: values of environment variables, by name without the prefix."""

    sql: str
    toml: str
    settings: dict[str, str]


def worked(heading: str) -> Worked:
    """The example under a heading."""
    section = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))
    settings = re.findall(r"NOTIFIER_(\w+)='([^']*)'", blocks.get("sh", ""))
    return Worked(blocks["sql"], blocks["toml"], dict(settings))
