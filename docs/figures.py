"""Draws docs/lowerings.svg: a module of the spec beside its three lowerings, as they are now.

python docs/figures.py
"""

from __future__ import annotations

import inspect
import re
from html import escape
from pathlib import Path

from portdet.backends import load_backend
from portdet.files import write_text
from portdet.lower import emit
from portdet.models import load_model
from portdet.models.layers import ConvNorm

TITLES = {"torch": "PyTorch", "mindspore": "MindSpore", "paddle": "Paddle"}
LINE, CHAR, PAD, HEAD = 18, 7.5, 16, 34
WORDS = r"\b(class|def|return|if|else|for|in|self|super|True|False|None)\b"


def class_of(source: str, name: str) -> list[str]:
    """The lines of the first class whose name starts with `name`."""
    lines = source.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {name}"))
    stop = next((i for i in range(start + 1, len(lines)) if lines[i] and not lines[i].startswith(" ")), len(lines))
    return [re.sub(r"  # .*", "", line) for line in lines[start:stop] if line.strip()]


def panel(x: float, y: float, width: float, height: float, title: str, lines: list[str], tone: str) -> str:
    rows = []
    for number, line in enumerate(lines):
        text = re.sub(WORDS, r'<tspan class="w">\1</tspan>', escape(line, quote=False))
        rows.append(f'<text x="{x + PAD}" y="{y + HEAD + 16 + number * LINE}" xml:space="preserve">{text}</text>')
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="p"/>'
        f'<rect x="{x}" y="{y}" width="{width}" height="26" rx="8" fill="{tone}"/>'
        f'<text x="{x + PAD}" y="{y + 18}" class="t">{title}</text>' + "".join(rows)
    )


def main() -> None:
    spec = [line for line in inspect.getsource(ConvNorm).splitlines() if '"""' not in line and line.strip()]
    panels = [("spec: portdet/models/layers.py", spec, "#334155")]
    graph = load_model({"name": "yolov3", "profile": "darknet"}, imgsz=416).graph
    for (name, title), tone in zip(TITLES.items(), ("#c2410c", "#0f766e", "#1d4ed8"), strict=True):
        source = emit(graph, load_backend(name).target, title="")
        panels.append((f"{title}: portdet emit --backend {name}", class_of(source, "ConvNorm"), tone))
    left = max(len(line) for line in panels[0][1]) * CHAR + 2 * PAD
    right = max(len(line) for _, lines, _ in panels[1:] for line in lines) * CHAR + 2 * PAD
    heights = [HEAD + 10 + LINE * len(lines) for _, lines, _ in panels]
    total = max(heights[0], sum(heights[1:]) + 2 * 14)
    parts = [panel(10, 10, left, total, *panels[0])]
    y = 10.0
    for (title, lines, tone), height in zip(panels[1:], heights[1:], strict=True):
        parts.append(panel(left + 50, y, right, height, title, lines, tone))
        middle = y + height / 2
        parts.append(f'<path d="M{left + 14} {middle} H{left + 44}" stroke="#64748b" stroke-width="2"/>')
        parts.append(
            f'<path d="M{left + 38} {middle - 5} L{left + 46} {middle} L{left + 38} {middle + 5}" fill="#64748b"/>'
        )
        y += height + 14
    style = (
        "text{font:12.4px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#0f172a}"
        ".t{fill:#fff;font-weight:bold}.w{fill:#7c3aed}.p{fill:#f8fafc;stroke:#cbd5e1}"
    )
    width, height = left + right + 60, total + 20
    write_text(
        Path(__file__).with_name("lowerings.svg"),
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>' + "".join(parts) + "</svg>\n",
    )


if __name__ == "__main__":
    main()
