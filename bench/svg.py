"""A line chart as an SVG text: the x axis in equal steps from point to point, y from zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 50, 50
MARGIN = 20  # for numbers of seven digits
COLOURS = ("#d1495b", "#00798c", "#7a7a7a", "#edae49")
GRID, INK, PAPER = "#dddddd", "#333333", "#ffffff"


@dataclass(frozen=True)
class Chart:
    """`lines`: name → one value for each x."""

    title: str
    x_label: str
    y_label: str
    xs: Sequence[int]
    lines: Mapping[str, Sequence[float]]

    def svg(self) -> str:
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} 0 {WIDTH + MARGIN} {HEIGHT}"',
                f'role="img" font-family="sans-serif" font-size="13" fill="{INK}">',
                f"<title>{escape(self.title)}</title>",
                f'<rect x="{-MARGIN}" width="{WIDTH + MARGIN}" height="{HEIGHT}" fill="{PAPER}"/>',
                _text(LEFT, 22, self.title, "start", 'font-weight="bold"'),
                _text(LEFT, 40, self.y_label, "start"),
                *self._grid(),
                *self._curves(),
                "</svg>\n",
            )
        )

    def _top(self) -> float:
        """A round number above every value."""
        most = max(value for values in self.lines.values() for value in values)
        power = 10.0 ** math.floor(math.log10(most))
        return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= most)

    def _x(self, index: int) -> float:
        return LEFT + index * (WIDTH - LEFT - RIGHT) / max(len(self.xs) - 1, 1)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self._top() * (HEIGHT - TOP - BOTTOM)

    def _grid(self) -> Iterator[str]:
        for part in range(6):
            value = self._top() * part / 5
            y = self._y(value)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
            yield _text(LEFT - 8, y + 4, f"{value:,.0f}", "end")
        for index, x in enumerate(self.xs):
            yield _text(self._x(index), HEIGHT - BOTTOM + 20, f"{x:,}", "middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, self.x_label, "middle")

    def _curves(self) -> Iterator[str]:
        heights: list[float] = []
        by_height = sorted(self.lines.items(), key=lambda line: self._y(line[1][-1]))
        colours = dict(zip(self.lines, COLOURS, strict=False))
        for name, values in by_height:
            points = [(self._x(i), self._y(value)) for i, value in enumerate(values)]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            colour = colours[name]
            yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            yield from (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points
            )
            # A name stands at its line's end, or below the one before.
            height = max(points[-1][1] + 4, heights[-1] + 16 if heights else 0)
            heights.append(height)
            yield _text(WIDTH - RIGHT + 10, height, name, "start", f'fill="{colour}"')


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
