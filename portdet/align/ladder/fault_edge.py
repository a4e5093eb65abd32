"""Faults at a session's edge: what conversion, resuming, the data pipeline and the optimiser's formula get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from portdet.align.ladder.fault_graph import entry, of_class
from portdet.align.ladder.fault_planting import Fault, Planting, Subject
from portdet.align.ladder.fault_recipe import any_update, trained
from portdet.align.ladder.fault_session import Edge, Taken
from portdet.session import Array, Arrays, Batch

AVERAGE = ("step/ema/*",)  # a rule for all of it: where the weights have hardly moved yet, the first may not show
Change = Callable[[Subject], tuple[Edge, tuple[str, ...]] | None]


def _edge(name: str, real: str, change: Change, since: int = 0) -> Fault:
    def plant(subject: Subject) -> Planting | None:
        found = change(subject)
        return Planting(found[1], edge=found[0], since=since) if found else None

    return Fault(name, real, "edge", plant)


# ---------------------------------------------------------------------- weights on their way in
def _kernel(subject: Subject) -> str:
    """The middle one of the square kernels larger than 1x1."""
    shapes = {name: info.shape for name, info in subject.detector.graph.weights().items()}
    square = [name for name, shape in shapes.items() if len(shape) == 4 and shape[2] == shape[3] > 1]
    return square[len(square) // 2]


def _transposed(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    name = f"weights/{_kernel(subject)}"
    turn = (0, 1, 3, 2)
    return Edge(loads=lambda state: {**state, name: np.ascontiguousarray(state[name].transpose(turn))}), (name,)


def _halved(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    name = f"weights/{_kernel(subject)}"
    return Edge(loads=lambda state: {**state, name: state[name].astype(np.float16).astype(np.float32)}), (name,)


def _exchanged(first: str, second: str) -> tuple[Edge, tuple[str, ...]]:
    pair = f"weights/{first}", f"weights/{second}"
    return Edge(loads=lambda state: {**state, pair[0]: state[pair[1]], pair[1]: state[pair[0]]}), pair[:1]


def _statistics_exchanged(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    norms = of_class(subject.detector.graph, "BatchNorm2d")
    norm = norms[len(norms) // 2].path
    return _exchanged(f"{norm}.running_mean", f"{norm}.running_var")


def _kernels_exchanged(subject: Subject) -> tuple[Edge, tuple[str, ...]] | None:
    """The first two kernels of one shape."""
    seen: dict[tuple[int, ...], str] = {}
    for name, info in subject.detector.graph.weights().items():
        if len(info.shape) == 4 and info.shape in seen:
            return _exchanged(seen[info.shape], name)
        seen.setdefault(info.shape, name)
    return None


def _without_momentum(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    def loads(state: Arrays) -> Arrays:
        return {name: np.zeros_like(a) if name.startswith("momentum/") else a for name, a in state.items()}

    return Edge(loads=loads), any_update(subject)


def _average_anew(subject: Subject) -> tuple[Edge, tuple[str, ...]] | None:
    def loads(state: Arrays) -> Arrays:
        return {n: state[n.replace("ema/", "weights/", 1)] if n.startswith("ema/") else a for n, a in state.items()}

    if not subject.recipe.ema:
        return None
    return Edge(loads=loads), AVERAGE


CONVERSION = [
    _edge("a kernel transposed", "RT-DETR's script transposes what is square too (RT-DETR #177)", _transposed),
    _edge("a kernel through float16", "a file of half precision in between", _halved),
    _edge("mean and variance exchanged", "darknet's order of a norm's four arrays mapped by position",
          _statistics_exchanged),
    _edge("two kernels exchanged", "weights mapped by their order, not by name (RT-DETR #273)", _kernels_exchanged),
    _edge("momentum not restored", "a checkpoint without the optimiser's slots", _without_momentum, since=1),
    _edge("average not restored", "resuming starts the average at the weights (YOLOX #1318)", _average_anew, since=1),
]  # fmt: skip


# ---------------------------------------------------------------------- images and batches
def _first_layer(subject: Subject) -> str:
    return f"forward/{entry(subject.detector.graph.children['backbone'])}"


def _rounded(bits: int) -> Callable[[Array], Array]:
    """To that many bits of mantissa, half up."""
    lost = 23 - bits

    def cut(images: Array) -> Array:
        raw = np.ascontiguousarray(images, np.float32).view(np.uint32)
        return ((raw + np.uint32(1 << (lost - 1))) >> np.uint32(lost) << np.uint32(lost)).view(np.float32)

    return cut


def _images(change: Callable[[Subject], Callable[[Array], Array]]) -> Change:
    return lambda subject: (Edge(images=change(subject)), (_first_layer(subject),))


def _normalised_otherwise(subject: Subject) -> Callable[[Array], Array]:
    """By mean and deviation 0.5, as Inception; by those of ImageNet where that is the model's own."""
    shape = (1, 3, 1, 1)
    mean, std = (np.reshape(np.float32(v), shape) for v in (subject.detector.fields.mean, subject.detector.fields.std))
    return lambda images: (((images * std + mean) - np.float32(0.5)) / np.float32(0.5)).astype(np.float32)


def _moved(images: Array) -> Array:
    """One pixel to the right, as a crop or a letterbox rounded otherwise."""
    return np.ascontiguousarray(np.roll(images, 1, axis=3))


def _twice(batch: Batch, step: int) -> Batch:
    images = batch.images.copy()
    images[1:] = images[:1]
    return replace(batch, images=images)


def _one_wrong(batch: Batch, step: int) -> Batch:
    """From step 2 on the last image is another one's."""
    if step < 2:
        return batch
    images = batch.images.copy()
    images[-1] = images[0]
    return replace(batch, images=images)


def _boxes_moved(batch: Batch, step: int) -> Batch:
    return replace(batch, boxes=np.where(batch.valid[..., None], batch.boxes + np.float32(1), batch.boxes))


LOSSES = ("loss/xy",)
INPUTS = [
    _edge("10 bits of mantissa", "TF32 by default on one card and not on another (Paddle #34763)",
          _images(lambda subject: _rounded(10))),
    _edge("7 bits of mantissa", "bfloat16 left on from mixed precision", _images(lambda subject: _rounded(7))),
    _edge("another normalisation", "Inception's 0.5 for ImageNet's mean and deviation", _images(_normalised_otherwise)),
    _edge("images moved by a pixel", "borders of letterboxes rounded up for down", _images(lambda subject: _moved)),
    _edge("the same image twice", "a buffer handed on before it was read", lambda s: (Edge(batch=_twice), LOSSES)),
    _edge("a wrong sample from step 2 on", "another shuffle of one rank", lambda s: (Edge(batch=_one_wrong), LOSSES),
          since=2),
    _edge("boxes moved by a pixel", "x2 = x1 + w - 1 of VOC for COCO's", lambda s: (Edge(batch=_boxes_moved), LOSSES)),
]  # fmt: skip


# ---------------------------------------------------------------------- what a step leaves
def _stepped(change: Callable[[Subject, Taken], Arrays], first: Callable[[Subject], tuple[str, ...]]) -> Change:
    def plant(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
        return Edge(stepped=lambda taken: {**taken.after, **change(subject, taken)}), first(subject)

    return plant


def _directions(subject: Subject, taken: Taken) -> Arrays:
    """By weight: gradient and decay, as the step added them to the momentum."""
    m = np.float32(subject.recipe.momentum)
    return {n: taken.after[f"momentum/{n}"] - m * taken.before[f"momentum/{n}"] for n in trained(subject)}


def _rates(subject: Subject, taken: Taken) -> dict[str, np.float32]:
    return {n: np.float32(taken.values.lr * g.lr_scale) for g in subject.recipe.groups for n in g.names}


def _moved_by(subject: Subject, taken: Taken, momentum: Arrays, rates: dict[str, np.float32]) -> Arrays:
    """Weights moved by `rates` times `momentum`; the average sees them."""
    keep = np.float32(taken.values.ema_decay)
    out: Arrays = {}
    for name, velocity in momentum.items():
        weight = taken.before[f"weights/{name}"] - rates[name] * velocity
        out |= {f"weights/{name}": weight, f"momentum/{name}": velocity}
        if subject.recipe.ema:
            out[f"ema/{name}"] = keep * taken.before[f"ema/{name}"] + (1 - keep) * weight
    return out


def _rate_inside(subject: Subject, taken: Taken) -> Arrays:
    """v = m v + lr g; w -= v."""
    m, rates = np.float32(subject.recipe.momentum), _rates(subject, taken)
    velocity = {n: m * taken.before[f"momentum/{n}"] + rates[n] * g for n, g in _directions(subject, taken).items()}
    return _moved_by(subject, taken, velocity, dict.fromkeys(rates, np.float32(1)))


def _dampened(subject: Subject, taken: Taken) -> Arrays:
    """v = m v + (1 - m) g."""
    m = np.float32(subject.recipe.momentum)
    velocity = {n: m * taken.before[f"momentum/{n}"] + (1 - m) * g for n, g in _directions(subject, taken).items()}
    return _moved_by(subject, taken, velocity, _rates(subject, taken))


def _decoupled(subject: Subject, taken: Taken) -> Arrays:
    """The weight shrinks by itself; from zero momentum the same weights, so that only the momentum tells."""
    return {f"momentum/{n}": taken.after[f"momentum/{n}"] - np.float32(g.weight_decay) * taken.before[f"weights/{n}"]
            for g in subject.recipe.groups if g.weight_decay for n in g.names}  # fmt: skip


def _decayed(subject: Subject) -> tuple[str, ...]:
    return tuple(f"step/momentum/{n}" for g in subject.recipe.groups if g.weight_decay for n in g.names)


def _no_step(subject: Subject, taken: Taken) -> Arrays:
    """An update that was skipped as if it had overflowed; the statistics were kept."""
    names = [f"{part}/{name}" for name in trained(subject) for part in ("weights", "momentum")]
    return {name: taken.before[name] for name in names}


def _biased_variance(subject: Subject, taken: Taken) -> Arrays:
    """Running variances from the sum of squares over n, not n - 1; in the average too."""
    out: Arrays = {}
    count, keep = len(taken.batch.images), np.float32(taken.values.ema_decay)
    for norm in of_class(subject.detector.graph, "BatchNorm2d"):
        traced = norm.methods["forward", True].inputs[0].dims
        scale = taken.batch.images.shape[2] / subject.detector.graph.methods["loss", True].inputs[0].dims[2]
        samples = count * round(traced[2] * scale) * round(traced[3] * scale)
        name, m = f"{norm.path}.running_var", np.float32(norm.config["momentum"])
        old, new = taken.before[f"weights/{name}"], taken.after[f"weights/{name}"]
        less = (new - (1 - m) * old) / np.float32(samples)
        out[f"weights/{name}"] = new - less
        if subject.recipe.ema:
            out[f"ema/{name}"] = taken.after[f"ema/{name}"] - (1 - keep) * less
    return out


def _averaged_buffers(subject: Subject, taken: Taken) -> Arrays:
    """The norms' statistics as they are."""
    buffers = [n for n, info in subject.detector.graph.weights().items() if not info.trainable]
    return {f"ema/{n}": taken.after[f"weights/{n}"] for n in buffers}


def _late_average(subject: Subject, taken: Taken) -> Arrays:
    """The average of the weights before the update."""
    keep = np.float32(taken.values.ema_decay)
    names = list(subject.detector.graph.weights())
    return {f"ema/{n}": keep * taken.before[f"ema/{n}"] + (1 - keep) * taken.before[f"weights/{n}"] for n in names}


def _averaging(change: Change) -> Change:
    return lambda subject: change(subject) if subject.recipe.ema else None


def _not_finite(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    name = _kernel(subject)

    def gradients(found: Arrays) -> Arrays:
        array = found[name].copy()
        array.flat[0] = np.nan
        return {**found, name: array}

    return Edge(gradients=gradients), (f"grad/{name}",)


def _held_rate(subject: Subject) -> tuple[Edge, tuple[str, ...]] | None:
    """The rate of the first step for ever."""
    first = subject.values(0)
    if subject.values(1).lr == first.lr:
        return None
    return Edge(values=lambda values, step: replace(values, lr=first.lr)), any_update(subject)


def _average_off(subject: Subject) -> tuple[Edge, tuple[str, ...]]:
    return Edge(values=lambda values, step: replace(values, ema_decay=values.ema_decay * 0.99)), AVERAGE


OPTIMISER = [
    _edge("rate of the first step held", "a number compiled into the graph of the step", _held_rate, since=1),
    _edge("decay of the average 1 % off", "half precision of a constant", _averaging(_average_off)),
    _edge("rate inside the velocity", "Caffe's and Keras' momentum, which remembers old rates",
          _stepped(_rate_inside, any_update)),
    _edge("gradient dampened", "v = m v + (1 - m) g, dampening of another framework",
          _stepped(_dampened, any_update)),
    _edge("decay decoupled from the gradient", "AdamW's decay under the name of L2", _stepped(_decoupled, _decayed)),
    _edge("a step not taken", "an overflow that was none (mindyolo #203)", _stepped(_no_step, any_update)),
    _edge("biased running variance", "Paddle stores the variance over n, torch over n - 1",
          _stepped(_biased_variance, lambda s: ("step/weights/*.running_var",))),
    _edge("average copies statistics", "YOLOv5's older average left the norms' buffers out",
          _averaging(_stepped(_averaged_buffers, lambda s: ("step/ema/*.running_*",)))),
    _edge("average before the update", "its update called before the optimiser's",
          _averaging(_stepped(_late_average, lambda s: AVERAGE))),
    _edge("NaN in a gradient", "sigmoid cross entropy overflows on one device (PaddleDetection #8263)", _not_finite),
]  # fmt: skip
