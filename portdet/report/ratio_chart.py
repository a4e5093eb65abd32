"""Charts of cross/self ratios: a point a tensor, on a log scale with the bounds that the verdicts have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from portdet.report.html import COLOURS
from portdet.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Frame, decades, steps

BOUNDS = {1.0: "as far as it lies from itself", 4.0: "doubtful", 10.0: "different"}
"""Ratio -> what begins there (the first is a landmark only)."""


@dataclass(frozen=True)
class Point:
    """x: place in the network's order, or a training step's; ratio: positive, infinite without any noise."""

    x: float
    ratio: float
    name: str
    backend: int
    guilty: bool


def ratio_chart(
    points: Sequence[Point], x_label: str, ticks: Mapping[float, str] | None = None, joined: bool = False
) -> str:
    """Guilty points are crosses, the first of each backend named; what has a ratio of 0 (the same bits) has no place
    on a log scale and is left out. joined: lines connect a backend's points."""
    points = [point for point in points if point.ratio > 0]
    finite = [math.log10(point.ratio) for point in points if math.isfinite(point.ratio)]
    low = min([math.floor(min(finite)) if finite else -1, -1])
    high = max([math.ceil(max(finite) + 0.3) if finite else 2, 2])
    ends = (min((p.x for p in points), default=0.0), max((p.x for p in points), default=1.0))
    ends = (min([ends[0], *(ticks or {})]), max([ends[1], ends[0] + 1, *(ticks or {})]))
    frame = Frame(ends, (max(low, -3), high), log=True)
    marks = ticks if ticks is not None else {t: f"{t:g}" for t in steps(*frame.x, 6) if t == int(t)}
    shown = decades(*frame.y)
    stride = -(-len(shown) // 7)
    parts = frame.draw(x_label, marks, shown[::stride], label=f"cross/self ratio over {x_label}")
    parts += _bounds(frame)
    if joined:
        parts += _lines(points, frame)
    parts += [_dot(point, frame) for point in sorted(points, key=lambda p: p.guilty)]
    parts += _names(points, frame)
    return "".join(parts) + "</svg>"


def _bounds(frame: Frame) -> list[str]:
    """Lines at the bounds; the zones of doubt and difference are tinted up to the top."""
    (_, top), height = frame.at(frame.x[0], 10 ** frame.y[1]), HEIGHT - BOTTOM
    at = {bound: frame.at(frame.x[0], bound)[1] for bound in BOUNDS}
    width = WIDTH - LEFT - RIGHT
    parts = [
        f'<rect class="zone bad" x="{LEFT}" y="{top}" width="{width}" height="{at[10.0] - top:g}"/>',
        f'<rect class="zone open" x="{LEFT}" y="{at[10.0]}" width="{width}" height="{at[4.0] - at[10.0]:g}"/>',
    ]
    for bound, words in BOUNDS.items():
        y = at[bound]
        below = 11 if bound == 4.0 and at[4.0] - at[10.0] < 12 else -4
        parts.append(f'<path class="bound" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        if y + below < height:
            parts.append(
                f'<text class="tick small" x="{WIDTH - RIGHT - 3}" y="{y + below:g}" text-anchor="end">'
                f"{bound:g} {words}</text>"
            )
    return parts


def _dot(point: Point, frame: Frame) -> str:
    x, y = frame.at(point.x, min(point.ratio, 10 ** frame.y[1]))
    colour = f"c{point.backend % COLOURS}"
    amount = f"{point.ratio:,.3g}" if math.isfinite(point.ratio) else "without bound"
    note = f"<title>{escape(point.name)}: {amount}</title>"
    if point.guilty:
        return f'<path class="cross {colour}" d="M{x - 5:g} {y - 5:g}l10 10m0 -10l-10 10">{note}</path>'
    return f'<circle class="dot {colour}" cx="{x}" cy="{y}" r="2.4">{note}</circle>'


def _lines(points: Sequence[Point], frame: Frame) -> list[str]:
    lines = []
    for backend in dict.fromkeys(point.backend for point in points):
        path = " ".join(
            "{},{}".format(*frame.at(p.x, min(p.ratio, 10 ** frame.y[1]))) for p in points if p.backend == backend
        )
        lines.append(f'<polyline class="curve c{backend % COLOURS}" stroke-width="2" points="{path}"/>')
    return lines


def _names(points: Sequence[Point], frame: Frame) -> list[str]:
    """The first guilty point of each backend, by name, on the side where there is room."""
    out = []
    for backend in dict.fromkeys(point.backend for point in points):
        first = next((p for p in points if p.backend == backend and p.guilty), None)
        if first is None:
            continue
        x, y = frame.at(first.x, min(first.ratio, 10 ** frame.y[1]))
        left = x > (LEFT + WIDTH) / 2
        out.append(
            f'<text class="named c{backend % COLOURS}" x="{x + (-9 if left else 9):g}" y="{max(y + 5, 22):g}" '
            f'text-anchor="{"end" if left else "start"}">{escape(_short(first.name))}</text>'
        )
    return out


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"…{name[-33:]}"
