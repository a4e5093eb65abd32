"""Canonical weight names and a framework's own."""

from __future__ import annotations

from portdet.ir.graph import ModuleGraph
from portdet.lower.target import Target


def native_names(graph: ModuleGraph, target: Target) -> dict[str, str]:
    """Canonical name -> the name that the generated module gives it, in the spec's order."""
    names = {}
    for module in graph.walk():
        for leaf in module.params:
            prefix = f"{module.path}." if module.path else ""
            names[prefix + leaf] = prefix + target.native_name(module.class_name, leaf)
    return names
