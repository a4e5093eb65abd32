"""The measurements of all backends side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SLOW_CONVOLUTION = 5.0  # GFLOP/s; a core with AVX2 does 30 and more, oneDNN's reference kernel about 1
ERRORS = 2.0  # standard errors that a share must lie above 0 to be one
LOUD = 0.05  # standard error of a ratio from which on it tells nothing of portdet, whose cost is below that

Found = Mapping[str, Any]


def table(report: Mapping[str, Found]) -> str:
    """Ratios, speed and memory by backend; `report` holds what `measure` returned. Below it, what its own error makes
    meaningless.

    Of several backends, the last columns have each one's step over torch's, or the first one's.
    """
    first = next(iter(report.values()))
    base = "torch" if "torch" in report else next(iter(report))
    head = ("backend", "mode", "threads", "bare s", "portdet s", "ratio", "of best", "EMA", "alone", "images/s",
            "RSS GB", "device GB", "conv GFLOP/s", f"bare :{base}", f"portdet :{base}")  # fmt: skip
    rows = [head, *(_row(name, found, report[base]) for name, found in report.items())]
    if len(report) == 1:
        rows = [row[:-2] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:{'<' if i < 2 else '>'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]
    devices = dict.fromkeys(str(found["session"].get("device")) for found in report.values())
    lines.insert(
        0,
        f"batch {first['batch']} of {first['imgsz']} x {first['imgsz']}, device {', '.join(devices)}, "
        f"EMA {first['ema_kind']}; medians of {first['bare']['count']} steps ± standard error",
    )
    return "\n".join([*lines, *(line for name, found in report.items() for line in _doubts(name, found))])


def _row(name: str, found: Found, base: Found) -> tuple[str, ...]:
    bare, loop, session = found["bare"], found["portdet"], found["session"]
    told = not _lost(found)
    return (
        name,
        str(session.get("mode", "?")),
        str(session.get("threads", "?")),
        f"{bare['median']:.4g}",
        f"{loop['median']:.4g}",
        f"{loop['median'] / bare['median']:.3f} ± {_error(loop, bare):.3f}",
        f"{loop['best'] / bare['best']:.3f}",
        f"{found['ema_share']:.2%} ± {found['ema_share_error']:.2%}" if told else f"? ± {found['ema_share_error']:.2%}",
        "" if found["ema_alone_share"] is None else f"{found['ema_alone_share']:.2%}",
        f"{found['batch'] / loop['median']:.3g}",
        f"{found['rss_bytes'] / 2**30:.2f}",
        f"{found['device_bytes'] / 2**30:.2f}",
        f"{found['convolution_gflops']:.1f}",
        f"{bare['median'] / base['bare']['median']:.2f}",
        f"{loop['median'] / base['portdet']['median']:.2f}",
    )


def _error(over: Found, under: Found) -> float:
    """Standard error of the ratio of two medians."""
    parts = (times["error"] / times["median"] for times in (over, under))
    return float(over["median"] / under["median"] * sum(part**2 for part in parts) ** 0.5)


def _lost(found: Found) -> bool:
    """Whether the EMA's share is lost in its error."""
    return not found["ema_share"] > ERRORS * found["ema_share_error"]


def _doubts(name: str, found: Found) -> list[str]:
    """What a reader would take for a figure of portdet's and is one of the machine's."""
    lines = []
    error = _error(found["portdet"], found["bare"])
    if error > LOUD:
        lines.append(f"{name}: the ratio's standard error is {error:.3f}, so it tells nothing of portdet")
    if _lost(found):
        alone = found["ema_alone_share"]
        instead = "" if alone is None else f"; by itself its update takes {alone:.2%} of a step"
        figures = f"{found['ema_share']:.2%} ± {found['ema_share_error']:.2%}"
        lines.append(f"{name}: the EMA's share of a step, {figures}, is lost in its error{instead}")
    if lines:
        lines.append("  -> the machine is too loaded to tell: end other programs, or raise --steps")
    if found["convolution_gflops"] < SLOW_CONVOLUTION:
        lines.append(f"{name}: one 3x3 convolution runs at {found['convolution_gflops']:.2f} GFLOP/s, which is slow")
        if name == "mindspore":
            lines.append("  -> on a CPU with AVX-512 set ONEDNN_MAX_CPU_ISA=AVX2 before the start")
    return lines
