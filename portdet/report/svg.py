"""Line charts as inline SVG: sharp at any size, and coloured by the page's own style sheet in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import compress

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 50
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_POINTS = 600  # a longer curve is drawn by the means of equal stretches


@dataclass(frozen=True)
class Curve:
    """Points of one backend; `index` picks colour, marker and thickness. band: (x, low, high), shaded in its colour.
    thin: one of several of its colour."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    index: int
    band: Sequence[tuple[float, float, float]] = ()
    thin: bool = False


@dataclass(frozen=True)
class Background:
    """What the curves are held against: (x, low, high) of a band, drawn shaded, grey curves by name, and vertical
    lines, what they mean -> x."""

    band: Sequence[tuple[float, float, float]] = ()
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]] = ()
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """The axes of a chart: ranges of x and y, where y is a decimal logarithm on a log scale."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies on the drawing; what is beyond the range lies on its edge."""
        y = math.log10(y) if self.log else y
        (left, right), (low, high) = self.x, self.y
        along, up = (x - left) / (right - left), (min(max(y, low), high) - low) / (high - low)
        return (
            round(LEFT + along * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    def draw(self, x_label: str, x_ticks: Mapping[float, str], y_ticks: Sequence[float], label: str = "") -> list[str]:
        """The opened <svg> with its grid; y_ticks in the axis's own measure (logarithms on a log scale)."""
        name = escape(label or f"curves over {x_label}")
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
        for tick in y_ticks:
            _, y = self.at(self.x[0], 10**tick if self.log else tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 7}" y="{y + 6}" text-anchor="end">{_label(tick, self.log)}</text>'
            )
        for tick, words in x_ticks.items():
            x, _ = self.at(tick, 1)
            parts.append(f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{words}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
        return parts


def line_chart(
    curves: Sequence[Curve],
    *,
    x_label: str,
    log: bool = False,
    markers: bool = False,
    background: Background | None = None,
) -> str:
    """A chart of the curves; `log` needs positive values (others are left out), otherwise the axis starts at 0, and is
    as high as deep where there are negative values."""
    curves = [_thin(_positive(curve) if log else _finite(curve)) for curve in curves]
    behind = background or Background()
    points = [point for _, curve in behind.curves for point in curve]
    points += [(x, edge) for x, *edges in behind.band for edge in edges]
    points += [(x, edge) for curve in curves for x, *edges in curve.band for edge in edges]
    xs = [x for curve in curves for x in curve.xs] + [x for x, _ in points]
    ys = [y for curve in curves for y in curve.ys] + [y for _, y in points]
    ys = [math.log10(y) for y in ys if y > 0] if log else ys
    if not ys:
        return '<p class="quiet">Nothing was measured.</p>'
    y_low, y_high = (math.floor(min(ys) * 3) / 3, math.ceil(max(ys) * 3) / 3) if log else (0.0, max(max(ys), 1e-9))
    if not log and min(ys) < 0:
        y_high = max(map(abs, ys))
        y_low = -y_high
    y_ticks = decades(y_low, y_high) if log else steps(y_low, y_high, 5)
    y_high = max(y_high, y_ticks[-1], y_low + 1e-9) if not log else max(y_high, y_low + 1 / 3)
    frame = Frame((min(xs), max(max(xs), min(xs) + 1)), (y_low, y_high), log)
    parts = frame.draw(x_label, {t: f"{t:g}" for t in steps(*frame.x, 6) if t == int(t)}, y_ticks)
    parts += _behind(behind, frame)
    for curve in curves:
        parts += _band(curve.band, frame, f"band c{curve.index}")
    for curve in curves:
        points = [frame.at(x, y) for x, y in zip(curve.xs, curve.ys, strict=True)]
        parts.append(_curve(curve, points, markers))
    return "".join(parts) + "</svg>"


def _band(band: Sequence[tuple[float, float, float]], frame: Frame, kind: str) -> list[str]:
    """As one shape; on a log scale what is not positive lies on the lower edge."""
    floor = 10 ** frame.y[0] if frame.log else -math.inf
    edge = [frame.at(x, max(high, floor)) for x, _, high in band]
    edge += [frame.at(x, max(low, floor)) for x, low, _ in reversed(band)]
    return [f'<polygon class="{kind}" points="{_path(edge)}"/>'] if edge else []


def _behind(behind: Background, frame: Frame) -> list[str]:
    """The band as one shape, the grey curves as dashed lines, the marks with their words."""
    out = _band(behind.band, frame, "band")
    for words, x in behind.marks.items():
        place, _ = frame.at(x, 1)
        left = place > WIDTH / 2
        out.append(f'<path class="mark" d="M{place} {TOP}V{HEIGHT - BOTTOM}"/>')
        out.append(
            f'<text class="tick small" x="{place + (-5 if left else 5):g}" y="{TOP + 14}" '
            f'text-anchor="{"end" if left else "start"}">{escape(words)}</text>'
        )
    for name, points in behind.curves:
        shown = [frame.at(x, y) for x, y in points]
        out.append(
            f'<polyline class="curve published" points="{_path(shown)}"><title>{escape(name)}</title></polyline>'
        )
        for (x, y), (epoch, value) in zip(shown, points, strict=True):
            note = f"<title>{escape(name)}, {epoch:g}: {value:.4g}</title>"
            out.append(f'<path class="published-dot" d="M{x - 4:g} {y}h8M{x} {y - 4:g}v8">{note}</path>')
    return out


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _curve(curve: Curve, points: Sequence[tuple[float, float]], markers: bool) -> str:
    """A polyline, and dots that show their value; later backends are thinner, so that equal curves all show."""
    path = _path(points)
    width = 1.4 if curve.thin else max(1.2, 4.2 - 1.3 * curve.index)
    out = [f'<polyline class="curve c{curve.index}" stroke-width="{width:g}" points="{path}"/>']
    if markers or len(points) < 3:
        radius = max(2.0, 5 - curve.index)
        for (x, y), at, value in zip(points, curve.xs, curve.ys, strict=True):
            note = f"<title>{escape(curve.name)}, {at:g}: {value:.4g}</title>"
            out.append(f'<circle class="dot c{curve.index}" cx="{x}" cy="{y}" r="{radius:g}">{note}</circle>')
    return "".join(out)


def _positive(curve: Curve) -> Curve:
    return _only(curve, [y > 0 and math.isfinite(y) for y in curve.ys])


def _finite(curve: Curve) -> Curve:
    return _only(curve, [math.isfinite(y) for y in curve.ys])


def _only(curve: Curve, kept: Sequence[bool]) -> Curve:
    band = [edges for edges in curve.band if all(map(math.isfinite, edges))]
    return replace(curve, xs=list(compress(curve.xs, kept)), ys=list(compress(curve.ys, kept)), band=band)


def _thin(curve: Curve) -> Curve:
    stride = -(-len(curve.xs) // _MOST_POINTS)
    if stride <= 1:
        return curve
    starts = range(0, len(curve.xs), stride)
    xs, ys = ([sum(v[i : i + stride]) / len(v[i : i + stride]) for i in starts] for v in (curve.xs, curve.ys))
    return replace(curve, xs=xs, ys=ys)


def steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from `low` on, the last one at or just below `high`."""
    raw = max(high - low, 1e-12) / about
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten in between; with 2 and 5 where that would be fewer than three."""
    multiples = (1,) if math.floor(high) - math.ceil(low) >= 2 else (1, 2, 5)
    ticks = [e + math.log10(m) for e in range(math.floor(low), math.ceil(high) + 1) for m in multiples]
    return [t for t in ticks if low - 1e-9 <= t <= high + 1e-9]


def _label(tick: float, log: bool) -> str:
    value = 10**tick if log else tick
    if log and value >= 9999:
        return "10" + str(round(tick)).translate(_RAISED)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
