"""What published rules of comparison would say to the same tensors: one run against one run, no notion of noise.

They are the defaults of tools that people use to align ports, written again from their documentation; they look at
activations, outputs, losses and gradients. The state after a step is seen by none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from portdet.align.compare.distance import distance
from portdet.session import Array

Rule = Callable[[str, Array, Array], bool]
"""Whether a tensor counts as different: its name, the candidate's, the reference's."""

LEVELS = ("forward", "loss", "grad")


def _mean(name: str, got: Array, want: Array) -> bool:
    a, b = (float(np.mean(array, dtype=np.float64)) for array in (got, want))
    return not abs(a - b) <= 1e-7 * abs(b)


def _mean_absolute(name: str, got: Array, want: Array) -> bool:
    outputs = name == "forward/predict" or name.startswith("loss/")
    return outputs and not float(np.mean(np.abs(got.astype(np.float64) - want))) <= 1e-6


def _allclose(tolerance: float) -> Rule:
    return lambda name, got, want: not np.allclose(got, want, rtol=tolerance, atol=tolerance)


def _cosine(name: str, got: Array, want: Array) -> bool:
    if not np.isfinite(got).all() or not np.isfinite(want).all():
        return True
    apart = distance(got, want)
    return apart.cosine < 0.99 or float(np.abs(got.astype(np.float64) - want).max(initial=0.0)) > 1e-3


RULES: dict[str, Rule] = {
    "means to 1e-7 (PaDiff)": _mean,
    "mean difference 1e-6 (reprod_log)": _mean_absolute,
    "allclose 1e-4 (troubleshooter)": _allclose(1e-4),
    "cosine 0.99 and largest 1e-3 (msprobe)": _cosine,
    "allclose 1e-3": _allclose(1e-3),
}


def flagged(candidate: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, bool]:
    """By rule: whether it calls any tensor of LEVELS different. A tensor that is missing is flagged by all."""
    names = [name for name in reference if name.partition("/")[0] in LEVELS]
    said = dict.fromkeys(RULES, False)
    for name in names:
        if name not in candidate or candidate[name].shape != reference[name].shape:
            return dict.fromkeys(RULES, True)
        got, want = candidate[name], reference[name]
        for rule, differs in RULES.items():
            said[rule] = said[rule] or differs(name, got, want)
    return said
