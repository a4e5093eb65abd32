"""The measurements of all backends side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SLOW_CONVOLUTION = 5.0  # GFLOP/s; a core with AVX2 does 30 and more, oneDNN's reference kernel about 1


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Ratios, speed and memory by backend; `report` holds what `measure` returned.

    Of several backends, the last columns have each one's step over torch's, or the first one's.
    """
    first = next(iter(report.values()))
    base = "torch" if "torch" in report else next(iter(report))
    head = ("backend", "bare s", "portdet s", "ratio", "of best", "EMA", "alone", "images/s", "RSS GB", "device GB",
            "conv GFLOP/s", f"bare :{base}", f"portdet :{base}")  # fmt: skip
    rows = [head, *(_row(name, found, report[base]) for name, found in report.items())]
    if len(report) == 1:
        rows = [row[:-2] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]
    session = first["session"]
    lines.insert(
        0,
        f"batch {first['batch']} of {first['imgsz']} x {first['imgsz']}, device {session.get('device')}, "
        f"mode {session.get('mode')}, {session.get('threads', '?')} threads, EMA {first['ema_kind']}; "
        f"medians of {first['bare']['count']} steps",
    )
    for name, found in report.items():
        if found["convolution_gflops"] < SLOW_CONVOLUTION:
            lines.append(
                f"{name}: one 3x3 convolution runs at {found['convolution_gflops']:.2f} GFLOP/s, which is slow"
            )
            if name == "mindspore":
                lines.append("  -> on a CPU with AVX-512 set ONEDNN_MAX_CPU_ISA=AVX2 before the start")
    return "\n".join(lines)


def _row(name: str, found: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[str, ...]:
    bare, loop = found["bare"], found["portdet"]
    return (
        name,
        f"{bare['median']:.4g}",
        f"{loop['median']:.4g}",
        f"{loop['median'] / bare['median']:.3f}",
        f"{loop['best'] / bare['best']:.3f}",
        f"{found['ema_share']:.2%} ± {found['ema_share_error']:.2%}",
        "" if found["ema_alone_share"] is None else f"{found['ema_alone_share']:.2%}",
        f"{found['batch'] / loop['median']:.3g}",
        f"{found['rss_bytes'] / 2**30:.2f}",
        f"{found['device_bytes'] / 2**30:.2f}",
        f"{found['convolution_gflops']:.1f}",
        f"{bare['median'] / base['bare']['median']:.2f}",
        f"{loop['median'] / base['portdet']['median']:.2f}",
    )
