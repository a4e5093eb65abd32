"""What can be told of a backend without its framework: the words of its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from portdet.backends import load_backend, write_source
from portdet.conformance.fixtures import SECTIONS, fixture
from portdet.conformance.op_cases import LAYERS
from portdet.conformance.rows import Row, holds
from portdet.lower.names import native_names
from portdet.lower.text import INFIX
from portdet.ops import OPS
from portdet.session import Options

OWN = {"neg", "getitem"}
"""Ops that Python's own syntax writes, unless a table has words for them."""


def check(backend: str, options: Options, folder: Path) -> list[Row]:
    """A row for each op and leaf layer, and one for each detector's source."""
    return [*_words(backend), *_sources(backend, folder)]


def _words(backend: str) -> Iterator[Row]:
    target = load_backend(backend).target
    for name in sorted(set(OPS) - set(LAYERS)):
        there = name in target.ops or name in INFIX or name in OWN
        yield holds("table", f"op {name}", "-", there, "no text: add a line to the target's `ops`")
    for layer, leaves in {
        "Conv2d": ("weight", "bias"),
        "BatchNorm2d": ("weight", "bias", "running_mean", "running_var"),
    }.items():
        missing = [leaf for leaf in leaves if layer not in target.layers or leaf not in target.layers[layer].names]
        yield holds("table", f"layer {layer}", "-", not missing, f"no framework's name for {', '.join(missing)}")


def _sources(backend: str, folder: Path) -> Iterator[Row]:
    """The source of each detector compiles as Python, and no two weights share a native name."""
    target = load_backend(backend).target
    for name in SECTIONS:
        detector, _, _ = fixture(name)
        try:
            source = write_source(detector, target, folder / f"{len(name)}.py")
            compile(source.text, str(source.path), "exec")
            names = native_names(detector.graph, target)
        except Exception as error:
            yield Row("table", f"source of {name}", "-", "failed", f"{type(error).__name__}: {error}")
            continue
        yield holds(
            "table", f"source of {name}", "-", len(set(names.values())) == len(names), "two weights share a native name"
        )
