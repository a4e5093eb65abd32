"""Line charts as inline SVG: sharp at any size, and coloured by the page's own style sheet in light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 50
_MOST_POINTS = 600  # a longer curve is drawn by the means of equal stretches


@dataclass(frozen=True)
class Curve:
    """Points of one backend; `index` picks colour, marker and thickness."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    index: int


@dataclass(frozen=True)
class Background:
    """What the curves are held against: (x, low, high) of a band, drawn shaded, and grey curves by name."""

    band: Sequence[tuple[float, float, float]] = ()
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]] = ()


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
    curves = [_thin(_positive(curve)) if log else _thin(curve) for curve in curves]
    behind = background or Background()
    points = [point for _, curve in behind.curves for point in curve]
    points += [(x, edge) for x, *edges in behind.band for edge in edges]
    xs = [x for curve in curves for x in curve.xs] + [x for x, _ in points]
    ys = [math.log10(y) if log else y for curve in curves for y in curve.ys] + [y for _, y in points]
    if not xs:
        return '<p class="quiet">Nothing was measured.</p>'
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = (math.floor(min(ys) * 3) / 3, math.ceil(max(ys) * 3) / 3) if log else (0.0, max(max(ys), 1e-9))
    if not log and min(ys) < 0:
        y_high = max(map(abs, ys))
        y_low = -y_high
    y_ticks = _decades(y_low, y_high) if log else _steps(y_low, y_high, 5)
    y_high = max(y_high, y_ticks[-1], y_low + 1e-9) if not log else max(y_high, y_low + 1 / 3)

    def at(x: float, y: float) -> tuple[float, float]:
        y = math.log10(y) if log else y
        return (
            round(_LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT), 1),
            round(HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="curves over {escape(x_label)}">']
    for tick in y_ticks:
        _, y = at(x_low, 10**tick if log else tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 6}" text-anchor="end">{_label(tick, log)}</text>')
    for tick in (t for t in _steps(x_low, x_high, 6) if t == int(t)):
        x, _ = at(tick, 1)
        parts.append(f'<text class="tick" x="{x}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle">{tick:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts += _behind(behind, at)
    for curve in curves:
        parts.append(_curve(curve, [at(x, y) for x, y in zip(curve.xs, curve.ys, strict=True)], markers))
    return "".join(parts) + "</svg>"


def _behind(behind: Background, at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    """The band as one shape, the grey curves as dashed lines."""
    edge = [at(x, high) for x, _, high in behind.band] + [at(x, low) for x, low, _ in reversed(behind.band)]
    out = [f'<polygon class="band" points="{_path(edge)}"/>'] if edge else []
    for name, points in behind.curves:
        shown = [at(x, y) for x, y in points]
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
    width = max(1.2, 4.2 - 1.3 * curve.index)
    out = [f'<polyline class="curve c{curve.index}" stroke-width="{width:g}" points="{path}"/>']
    if markers or len(points) < 3:
        radius = max(2.0, 5 - curve.index)
        for (x, y), at, value in zip(points, curve.xs, curve.ys, strict=True):
            note = f"<title>{escape(curve.name)}, {at:g}: {value:.4g}</title>"
            out.append(f'<circle class="dot c{curve.index}" cx="{x}" cy="{y}" r="{radius:g}">{note}</circle>')
    return "".join(out)


def _positive(curve: Curve) -> Curve:
    kept = [(x, y) for x, y in zip(curve.xs, curve.ys, strict=True) if y > 0 and math.isfinite(y)]
    return Curve(curve.name, [x for x, _ in kept], [y for _, y in kept], curve.index)


def _thin(curve: Curve) -> Curve:
    stride = -(-len(curve.xs) // _MOST_POINTS)
    if stride <= 1:
        return curve
    starts = range(0, len(curve.xs), stride)
    xs, ys = ([sum(v[i : i + stride]) / len(v[i : i + stride]) for i in starts] for v in (curve.xs, curve.ys))
    return Curve(curve.name, xs, ys, curve.index)


def _steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from `low` on, the last one at or just below `high`."""
    raw = max(high - low, 1e-12) / about
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten in between; with 2 and 5 where that would be fewer than three."""
    multiples = (1,) if math.floor(high) - math.ceil(low) >= 2 else (1, 2, 5)
    ticks = [e + math.log10(m) for e in range(math.floor(low), math.ceil(high) + 1) for m in multiples]
    return [t for t in ticks if low - 1e-9 <= t <= high + 1e-9]


def _label(tick: float, log: bool) -> str:
    value = 10**tick if log else tick
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
