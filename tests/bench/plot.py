"""A plot of cost against viewers, as SVG, with both axes in powers of ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 244, 36, 48
COLOURS = ("#555555", "#0969da", "#1a7f37", "#8250df", "#bf8700", "#cf222e", "#0a7ea4")


@dataclass(frozen=True)
class Curve:
    """A server's points: viewers, and µs of CPU for each delivery."""

    name: str
    points: Sequence[tuple[int, float]]


def plot(curves: Sequence[Curve]) -> str:
    """The SVG; curves over WebSocket are drawn through, those over SSE dashed."""
    powers_x = _powers([count for curve in curves for count, _ in curve.points])
    powers_y = _powers([cost for curve in curves for _, cost in curve.points])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, "CPU for each delivery against viewers of a job", "start", bold=True),
        *_grid(powers_x, powers_y),
    ]
    names = sorted({_server(curve) for curve in curves}, key=[_server(c) for c in curves].index)
    for place, curve in enumerate(curves):
        colour = COLOURS[names.index(_server(curve)) % len(COLOURS)]
        parts += _drawn(curve, colour, place, powers_x, powers_y)
    return "\n".join([*parts, "</svg>", ""])


def _server(curve: Curve) -> str:
    return curve.name.rpartition(",")[0]


def _powers(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))


def _x(value: float, powers: tuple[int, int]) -> float:
    share = (math.log10(value) - powers[0]) / (powers[1] - powers[0])
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, powers: tuple[int, int]) -> float:
    share = (math.log10(value) - powers[0]) / (powers[1] - powers[0])
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _grid(powers_x: tuple[int, int], powers_y: tuple[int, int]) -> list[str]:
    parts = []
    for power in range(powers_x[0], powers_x[1] + 1):
        x = _x(10.0**power, powers_x)
        parts.append(_line((x, TOP), (x, HEIGHT - BOTTOM)))
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{10**power:,}", "middle"))
    for power in range(powers_y[0], powers_y[1] + 1):
        y = _y(10.0**power, powers_y)
        parts.append(_line((LEFT, y), (WIDTH - RIGHT, y)))
        parts.append(_text(LEFT - 8, y + 4, f"{10.0**power:g} µs", "end"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, _text(middle, HEIGHT - 10, "viewers", "middle")]


def _drawn(
    curve: Curve, colour: str, place: int, powers_x: tuple[int, int], powers_y: tuple[int, int]
) -> list[str]:
    dashes = ' stroke-dasharray="6 4"' if curve.name.endswith("SSE") else ""
    style = f'fill="none" stroke="{colour}" stroke-width="2"{dashes}'
    points = [(_x(count, powers_x), _y(cost, powers_y)) for count, cost in curve.points]
    path = " ".join(f"{x},{y}" for x, y in points)
    x, y = WIDTH - RIGHT + 16, TOP + 12 + 22 * place
    return [
        f'<polyline points="{path}" {style}/>',
        *(f'<circle cx="{px}" cy="{py}" r="3" fill="{colour}"/>' for px, py in points),
        f'<polyline points="{x},{y} {x + 28},{y}" {style}/>',
        _text(x + 36, y + 4, curve.name, "start"),
    ]


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#dddddd"/>'


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
