"""Charts of cross/self ratios: a point a tensor, on a log scale with the bounds that the verdicts have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from portdet.report.html import COLOURS
from portdet.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Frame, decades, steps

_LINE = 17  # height of a name
BOUNDS = {1.0: "own noise", 4.0: "doubtful", 10.0: "different"}
"""Ratio -> what begins there (the first is a landmark only)."""


@dataclass(frozen=True)
class Point:
    """x: place in the network's order, or a training step's; ratio: positive, infinite without any noise."""

    x: float
    ratio: float
    name: str
    backend: int
    guilty: bool
    kink: bool = False


def ratio_chart(
    points: Sequence[Point], x_label: str, ticks: Mapping[float, str] | None = None, joined: bool = False
) -> str:
    """Guilty points are crosses, the first of each backend named; kinks are rings.

    What has a ratio of 0 (the same bits) has no place on a log scale and is left out. joined: lines connect a backend's
    healthy points.
    """
    points = [point for point in points if point.ratio > 0]
    finite = [math.log10(point.ratio) for point in points if math.isfinite(point.ratio)]
    low = max(min([-1, *(math.floor(power) for power in finite)]), -3)
    high = max([2.0, *(math.ceil(power + 0.3) for power in finite)])
    ends = (min((p.x for p in points), default=0.0), max((p.x for p in points), default=1.0))
    ends = (min([ends[0], *(ticks or {})]), max([ends[1], ends[0] + 1, *(ticks or {})]))
    guilty = [] if joined else [point for point in points if point.guilty]
    first = list({point.backend: point for point in reversed(guilty)}.values())[::-1]
    high += (high - low) * _LINE * len(first) / (HEIGHT - TOP - BOTTOM - _LINE * len(first))  # room for their names
    frame = Frame(ends, (low, high), log=True)
    marks = ticks if ticks is not None else {t: f"{t:g}" for t in steps(*frame.x, 6) if t == int(t)}
    shown = decades(*frame.y)
    stride = -(-len(shown) // 7)
    parts = frame.draw(x_label, marks, shown[::stride], label=f"cross/self ratio over {x_label}")
    parts += _bounds(frame)
    if joined:
        parts += _lines(points, frame)
    parts += [_dot(point, frame) for point in sorted(points, key=lambda p: p.guilty)]
    parts += [*_words(frame), *_names(first)]
    return "".join(parts) + "</svg>"


def _bounds(frame: Frame) -> list[str]:
    """Lines at the bounds; the zones of doubt and difference are tinted up to the top."""
    _, top = frame.at(frame.x[0], 10 ** frame.y[1])
    at = {bound: frame.at(frame.x[0], bound)[1] for bound in BOUNDS}
    width = WIDTH - LEFT - RIGHT
    parts = [
        f'<rect class="zone bad" x="{LEFT}" y="{top}" width="{width}" height="{at[10.0] - top:g}"/>',
        f'<rect class="zone open" x="{LEFT}" y="{at[10.0]}" width="{width}" height="{at[4.0] - at[10.0]:g}"/>',
    ]
    return parts + [f'<path class="bound" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>' for y in at.values()]


def _words(frame: Frame) -> list[str]:
    """What the bounds mean, over the points: above each line, below that of 4 where there is no room."""
    at = {bound: frame.at(frame.x[0], bound)[1] for bound in BOUNDS}
    shift = {1.0: 15, 4.0: 13 if at[4.0] - at[10.0] < 16 else -4, 10.0: -4}
    return [
        f'<text class="tick small over" x="{WIDTH - RIGHT - 3}" y="{at[bound] + shift[bound]:g}" text-anchor="end">'
        f"{bound:g} {words}</text>"
        for bound, words in BOUNDS.items()
    ]


def _dot(point: Point, frame: Frame) -> str:
    x, y = frame.at(point.x, min(point.ratio, 10 ** frame.y[1]))
    colour = f"c{point.backend % COLOURS}"
    amount = f"{point.ratio:,.3g}" if math.isfinite(point.ratio) else "without bound"
    note = f"<title>{escape(point.name)}: {amount}</title>"
    if point.guilty:
        return f'<path class="cross {colour}" d="M{x - 5:g} {y - 5:g}l10 10m0 -10l-10 10">{note}</path>'
    if point.kink:
        return f'<circle class="cross {colour}" cx="{x}" cy="{y}" r="4">{note}</circle>'
    return f'<circle class="dot {colour}" cx="{x}" cy="{y}" r="2.4">{note}</circle>'


def _lines(points: Sequence[Point], frame: Frame) -> list[str]:
    lines = []
    for backend in dict.fromkeys(point.backend for point in points):
        own = [point for point in points if point.backend == backend and not point.guilty]
        path = " ".join("{},{}".format(*frame.at(point.x, point.ratio)) for point in own)
        lines.append(f'<polyline class="curve c{backend % COLOURS}" stroke-width="2" points="{path}"/>')
    return lines


def _names(first: Sequence[Point]) -> list[str]:
    """Guilty points by name, at the top, one below the other."""
    return [
        f'<text class="named c{point.backend % COLOURS}" x="{LEFT + 8}" y="{TOP + _LINE * (place + 1) - 3}">'
        f"first: {escape(_short(point.name))}</text>"
        for place, point in enumerate(first)
    ]


def _short(name: str) -> str:
    return name if len(name) <= 38 else f"…{name[-37:]}"
