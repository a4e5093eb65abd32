"""What the frameworks lay out or call differently in a layer, for files of models that are not known.

Such a file keeps its names and its values as they are, so that nothing is lost and the way back is exact. Paddle lays
the weight of a Linear out as (in, out), torch and MindSpore as (out, in), and each calls the parts of a batch norm
otherwise: who loads the file must know. Convolutions agree in all three.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from portdet_convert.files.source import BFLOAT16, Arrays

FRAMEWORKS = {"pth": "torch", "ckpt": "MindSpore", "pdparams": "Paddle"}
"""Whose a format is; safetensors and npz are nobody's."""
_AXES = {"torch": "(out, in)", "MindSpore": "(out, in)", "Paddle": "(in, out)"}
_NORM = {
    "torch": ("weight", "bias", "running_mean", "running_var"),
    "MindSpore": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Paddle": ("weight", "bias", "_mean", "_variance"),
}


def matrices(arrays: Arrays) -> list[str]:
    """Tensors that may be the weight of a Linear: two axes, floating-point numbers."""
    return [
        name
        for name, array in arrays.items()
        if array.ndim == 2 and min(array.shape) > 1 and (array.dtype.kind == "f" or array.dtype == BFLOAT16)
    ]


def axes(arrays: Arrays, name: str) -> str:
    """`(in, out)` or `(out, in)` where the bias beside a matrix shows it, else ''."""
    path, _, leaf = name.rpartition("weight")
    bias = arrays.get(f"{path}bias{leaf}")
    rows, columns = arrays[name].shape
    if bias is None or bias.ndim != 1 or rows == columns:
        return ""
    return {rows: "(out, in)", columns: "(in, out)"}.get(len(bias), "")


def notes(source: str, target: str, arrays: Arrays) -> list[str]:
    """What to know of a file of format `source` that is written as `target` under its own names, a line each."""
    return [*_linear(source, target, arrays), *_norms(FRAMEWORKS.get(target), arrays)]


def untransposed(source: str, target: str, arrays: Arrays) -> list[str]:
    """The matrices, if the target's framework lays a Linear out otherwise than the file does, or may do so."""
    laid, wanted = _laid(source, arrays), _AXES.get(FRAMEWORKS.get(target, ""), "")
    agree = laid == wanted if laid and wanted else laid != "(in, out)" and wanted != "(in, out)"
    return [] if agree else matrices(arrays)


def _laid(source: str, arrays: Arrays) -> str:
    """Of the file's framework, or what its biases show; '' where nothing does."""
    if source in FRAMEWORKS:
        return _AXES[FRAMEWORKS[source]]
    shown = {axes(arrays, name) for name in matrices(arrays)} - {""}
    return shown.pop() if len(shown) == 1 else ""


def _linear(source: str, target: str, arrays: Arrays) -> list[str]:
    if not (found := untransposed(source, target, arrays)):
        return []
    laid, whose = _laid(source, arrays), FRAMEWORKS.get(target)
    here = f"in this file a Linear's weight is {laid}" if laid else "a Linear's weight may be (in, out) in this file"
    there = f"{whose}'s is {_AXES[whose]}" if whose else "torch's and MindSpore's are (out, in)"
    sure = [name for name in found if axes(arrays, name)]
    biases = f"; by their biases these are: {_few(sure)}" if sure else ""
    return [
        f"{len(found)} matrices are written as they are, NOT transposed: {_few(found)}",
        f"  {here}, {there}: transpose the weights of Linear layers when you load them{biases}",
    ]


def _norms(target: str | None, arrays: Arrays) -> list[str]:
    for framework, leaves in _NORM.items():
        norms = [name.removesuffix(leaves[2]) for name in arrays if name.endswith(f".{leaves[2]}")]
        if norms and target and leaves != _NORM[target]:
            theirs, ours = ", ".join(leaves), ", ".join(_NORM[target])
            return [f"{len(norms)} batch norms keep {framework}'s names ({theirs}); {target}'s are {ours}"]
    return []


def _few(names: Collection[str]) -> str:
    few: Sequence[str] = list(names)[:3]
    return ", ".join(few) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
