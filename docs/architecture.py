"""Draws docs/img/architecture.svg: the packages of notifier/ and their imports, read from the code.

    python docs/architecture.py

A box is a package, or a module of the top level, with its files; an arrow points from the importing box
to the imported one. Arrows that follow from others (a → b → c implies a → c) are left out, and so are
those to the modules in the last row, which import no package and serve all of them.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "notifier"
DRAWING = ROOT / "docs" / "img" / "architecture.svg"

WIDTH, MARGIN = 1020, 20
"""The drawing is wider if the last row is, or if another does not fit with the narrowest boxes."""

LETTERS = (44, 34, 26, 20)
"""How many letters a line of files may have: the most that lets a row fit."""

LINE, PADDING = 16, 12
GAP_X, GAP_Y = 18, 34
WAY = 4.0
"""The width that an arrow takes in a row that it passes."""

LETTER, NAME_LETTER = 6.6, 8.4
"""Width of a character in a list of files and in a name, in pixels."""

Edges = Mapping[str, frozenset[str]]
"""Importer → imported."""

STYLE = """
    .paper { fill: #ffffff; }
    .box { fill: #ffffff; stroke: #0b6e64; stroke-width: 1.5; }
    .base { fill: #eef3f5; stroke: none; }
    .name { fill: #16202a; font-size: 15px; font-weight: 600; text-anchor: middle; }
    .file { fill: #4d5a66; font-size: 12px; text-anchor: middle; }
    .way { fill: none; stroke: #0b6e64; stroke-width: 1.5; }
    .head { fill: #0b6e64; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0f1318; }
      .box { fill: #232b34; stroke: #5fcfc0; }
      .base { fill: #1a2027; }
      .name { fill: #e8edf2; }
      .file { fill: #a9b4bf; }
      .way { stroke: #5fcfc0; }
      .head { fill: #5fcfc0; }
    }
"""


class Box(NamedTuple):
    """A package or module: its files in lines, and its size in pixels."""

    name: str
    lines: tuple[str, ...]
    width: float
    height: float


def files() -> dict[str, list[Path]]:
    """The Python files of each package, and of the top level's modules, by name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts not in {("__init__",), ("__main__",)}:
            found.setdefault(parts[0], []).append(path)
    return found


def imports(path: Path) -> Iterable[str]:
    """The packages and modules of notifier/ that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("notifier."):
                yield name.split(".")[1]


def edges_of(found: Mapping[str, list[Path]]) -> Edges:
    return {
        name: frozenset(
            other for path in paths for other in imports(path) if other in found and other != name
        )
        for name, paths in found.items()
    }


def base_of(found: Mapping[str, list[Path]], edges: Edges) -> list[str]:
    """The modules that import no package, and that others import."""
    packages = {name for name in found if (PACKAGE / name).is_dir()}
    base = set(found) - packages
    while True:
        kept = {name for name in base if edges[name] <= base}
        if kept == base:
            return sorted(base)
        base = kept


def reduced(edges: Edges) -> Edges:
    """The edges without those that follow from others. Raises RecursionError where there is a circle."""

    def below(name: str) -> frozenset[str]:
        return edges[name].union(*(below(other) for other in edges[name]))

    return {
        name: targets - frozenset().union(*(below(other) for other in targets))
        for name, targets in edges.items()
    }


def rows_of(edges: Edges) -> list[list[str]]:
    """Rows from top to bottom: each name stands one row below the lowest of its importers."""
    depth: dict[str, int] = {}

    def place(name: str, row: int) -> None:
        depth[name] = max(row, depth.get(name, 0))
        for other in edges[name]:
            place(other, depth[name] + 1)

    imported = frozenset().union(*edges.values())
    for name in sorted(set(edges) - imported):
        place(name, 0)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in sorted(depth):
        rows[depth[name]].append(name)
    return rows


def with_ways(rows: list[list[str]], edges: Edges) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Adds a place (`a>b`) to each row that an arrow passes; returns the steps from row to row."""
    depth = {name: number for number, row in enumerate(rows) for name in row}
    rows = [list(row) for row in rows]
    steps = []
    for name in sorted(edges):
        for other in sorted(edges[name]):
            last = name
            for row in range(depth[name] + 1, depth[other]):
                rows[row].append(f"{name}>{other}")
                steps.append((last, f"{name}>{other}@{row}"))
                last = f"{name}>{other}@{row}"
            steps.append((last, other))
    rows = [[f"{n}@{i}" if ">" in n else n for n in row] for i, row in enumerate(rows)]
    return rows, steps


def untangled(rows: list[list[str]], steps: list[tuple[str, str]]) -> list[list[str]]:
    """Orders each row by the mean place of its neighbours above and below, by turns."""
    for turn in range(12):
        downwards = turn % 2 == 0
        numbers = range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1)
        for number in numbers:
            beside = rows[number - 1 if downwards else number + 1]
            place = {name: i / max(1, len(beside) - 1) for i, name in enumerate(beside)}

            def mean(name: str, place: Mapping[str, float] = place) -> float:
                near = [place[a] for a, b in steps if b == name and a in place]
                near += [place[b] for a, b in steps if a == name and b in place]
                return sum(near) / len(near) if near else 0.5

            rows[number] = sorted(rows[number], key=mean)
    return rows


def box(name: str, paths: list[Path], width: int = LETTERS[0]) -> Box:
    stems = [path.stem for path in paths if path.stem != "__init__"]
    is_package = len(paths) > 1 or paths[0].parent != PACKAGE
    lines = (
        tuple(textwrap.wrap(" · ".join(stems), width, break_on_hyphens=False)) if is_package else ()
    )
    longest = max([len(line) * LETTER for line in lines] + [len(name) * NAME_LETTER])
    return Box(name, lines, longest + 2 * PADDING, LINE * (len(lines) + 1) + 2 * PADDING - 4)


def fitted(row: list[str], found: Mapping[str, list[Path]]) -> dict[str, Box]:
    """The boxes of a row, as narrow as it needs."""
    for letters in LETTERS:
        boxes = {name: box(name, found[name], letters) for name in row if name in found}
        if width_of(row, boxes) <= WIDTH:
            break
    return boxes


def width_of(row: list[str], boxes: Mapping[str, Box]) -> float:
    """The width of a row with the smallest gaps, margins included."""
    widths = sum(boxes[name].width if name in boxes else WAY for name in row)
    return widths + GAP_X * (len(row) - 1) + 2 * MARGIN


def drawn(item: Box, x: float, y: float, kind: str = "box") -> list[str]:
    middle = x + item.width / 2
    size = f'width="{item.width:.0f}" height="{item.height:.0f}"'
    parts = [
        f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" {size} rx="8"/>',
        f'<text class="name" x="{middle:.0f}" y="{y + PADDING + 11:.0f}">{escape(item.name)}</text>',
    ]
    parts += [
        f'<text class="file" x="{middle:.0f}" y="{y + PADDING + 11 + LINE * n:.0f}">{escape(line)}</text>'
        for n, line in enumerate(item.lines, 1)
    ]
    return parts


def svg() -> str:
    found = files()
    edges = edges_of(found)
    base = base_of(found, edges)
    kept = reduced(
        {name: targets.difference(base) for name, targets in edges.items() if name not in base}
    )
    rows, steps = with_ways(rows_of(kept), kept)
    rows = untangled(rows, steps)
    fits = [fitted(row, found) for row in rows]
    boxes = {name: item for row in fits for name, item in row.items()}
    small = [box(name, found[name]) for name in base]
    full = max(
        *(width_of(row, boxes) for row in rows), width_of(base, {each.name: each for each in small})
    )
    parts: list[str] = []
    top: dict[str, tuple[float, float]] = {}  # where an arrow ends
    bottom: dict[str, tuple[float, float]] = {}  # where one begins
    y = float(MARGIN)
    for row in rows:
        height = max(boxes[name].height for name in row if name in boxes)
        widths = [boxes[name].width if name in boxes else WAY for name in row]
        gap = min(70.0, (full - 2 * MARGIN - sum(widths)) / max(1, len(row) - 1))
        x = (full - sum(widths) - gap * (len(row) - 1)) / 2
        for name, width in zip(row, widths, strict=True):
            middle = x + width / 2
            top[name] = (middle, y)
            bottom[name] = (middle, y + height)
            if name in boxes:
                bottom[name] = (middle, y + boxes[name].height)
                parts += drawn(boxes[name], x, y)
            else:
                parts.append(f'<path class="way" d="M{middle:.0f} {y:.0f}V{y + height:.0f}"/>')
            x += width + gap
        y += height + GAP_Y
    for start, end in steps:
        (x1, y1), (x2, y2) = bottom[start], top[end]
        bend = (y1 + y2) / 2
        head = "" if ">" in end else ' marker-end="url(#head)"'
        parts.append(
            f'<path class="way" d="M{x1:.0f} {y1:.0f}C{x1:.0f} {bend:.0f} {x2:.0f} {bend:.0f}'
            f' {x2:.0f} {y2:.0f}"{head}/>'
        )
    x = (full - sum(item.width for item in small) - GAP_X * (len(small) - 1)) / 2
    for item in small:
        parts += drawn(item, x, y, "base")
        x += item.width + GAP_X
    height = y + small[0].height + MARGIN
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full:.0f} {height:.0f}" role="img"'
        ' aria-labelledby="title" font-family="system-ui, sans-serif">\n'
        '  <title id="title">The packages of notifier/ and what they import</title>\n'
        f"  <style>{STYLE}  </style>\n"
        '  <defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto"'
        ' markerUnits="userSpaceOnUse"><path class="head" d="M0 0 9 4 0 8z"/></marker></defs>\n'
        f'  <rect class="paper" width="{full:.0f}" height="{height:.0f}" rx="14"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    DRAWING.write_text(svg(), encoding="utf-8")
