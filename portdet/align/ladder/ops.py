"""The level `ops`: each op and layer that the model uses, in each backend, against the reference in numpy (float64)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portdet.align.ladder.outcome import Outcome, Row
from portdet.align.ladder.plan import Plan
from portdet.backends import load_backend
from portdet.conformance.layers import LAYERS as layer_cases
from portdet.conformance.op_cases import LAYERS
from portdet.conformance.rows import Row as Line
from portdet.conformance.rows import declared
from portdet.data import open_dataset
from portdet.ir.graph import Function, ModuleGraph
from portdet.ops import OPS
from portdet.processes.child import run_child
from portdet.train.job import model_of

TIMEOUT = 7200.0
DECLARED = "declared failures"  # the fact's name


def outcome(plan: Plan, backend: str, say: Callable[[str], None]) -> Outcome:
    """Value, type and gradient of every sample of the ops and leaf layers of the model's graph, in the configuration's
    mode.

    What the backend declares as known failures is shown with its reason and fails nothing.
    Raises PortdetError for a process that dies.
    """
    config = plan.configuration(backend)
    detector = model_of(config, open_dataset(config.data, "train").names)
    used = ops_of(detector.graph)
    others = sorted(set(OPS) - set(LAYERS) - set(used))
    chosen, settings = load_backend(backend), config.train
    layers = sorted({module.class_name for module in detector.graph.walk()} & {name.split()[0] for name in layer_cases})
    mode = chosen.default_mode if settings.mode == "default" else settings.mode
    request = {"backend": backend, "mode": mode, "device": settings.device, "threads": settings.threads}
    lines: list[Line] = []
    for section, only in (("ops", used), ("layers", layers)):
        answer = run_child("portdet.conformance.child", {**request, "section": section, "only": only}, timeout=TIMEOUT)
        lines += declared([Line(**line) for line in answer], chosen.known_failures)
    rows = [row_of(line) for line in lines]
    known = [row for row in rows if row.status == "known"]
    found = Outcome.of("ops", backend, rows, _words(rows, used, layers, others))
    found.facts = {"ops": f"{len(used)} of the model's graph", "layers": ", ".join(layers), "mode": mode}
    found.facts["left out"] = f"{len(others)} ops that it does not use: {', '.join(others)}" if others else "none"
    found.facts |= {DECLARED: "; ".join(f"{row.name}: {row.words}" for row in known)} if known else {}
    return found


def ops_of(graph: ModuleGraph) -> list[str]:
    """Names of the ops in all methods that were traced, without those of leaf layers."""
    seen: set[Function] = set()

    def ops(function: Function) -> Iterator[str]:
        if function in seen:
            return
        seen.add(function)
        for node in function.nodes:
            if node.call is None:
                yield node.op
            else:
                yield from ops(node.call.function)

    functions = [f for module in graph.walk() if not module.leaf for f in module.methods.values()]
    return sorted({name for function in functions for name in ops(function) if name in OPS} - set(LAYERS))


def row_of(line: Line) -> Row:
    """A line of the checklist as the ladder has it; a passed one carries how far it was off."""
    if line.outcome == "passed":
        apart = float(line.detail or 0)
        return Row(line.key, "noise" if apart else "same", max_rel=apart)
    if line.outcome == "known":
        return Row(line.key, "known", line.detail)
    if line.outcome == "passed unexpectedly":
        return Row(line.key, "doubtful", line.detail)
    off = " of the largest value" in line.detail
    return Row(line.key, "different" if off else "broken", f"is off by {line.detail}" if off else line.detail)


def _words(rows: list[Row], used: list[str], layers: list[str], others: list[str]) -> str:
    bad = [row for row in rows if row.guilty]
    left = f"{len(others)} ops are not used by it and were left out"
    if bad:
        return f"{len(bad)} of {len(rows)} values and gradients are wrong, first {bad[0].name}: {bad[0].words}"
    known = sum(row.status == "known" for row in rows)
    what = f"all {len(used)} ops and {len(layers)} layers of the model"
    words = f"{what} as numpy has them ({len(rows)} values and gradients); {left}"
    return words + (f"; {known} declared as known failures" if known else "")
