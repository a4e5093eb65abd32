"""Which weights decay, which do not, which are frozen: from canonical names and shapes to the backend's `Recipe`.

As in mindspore-ai/models: L2 decay on the weights of convolutions and linear layers, none on biases and norms. As in
PaddleDetection: decay also on the bias of what finds the offsets of a deformable convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from portdet.config import Config
from portdet.errors import PortdetError, nearest
from portdet.session import Group, Recipe
from portdet.state import BUFFERS
from portdet.train.ema import ema


def decays(name: str, shape: Sequence[int]) -> bool:
    """Whether a weight gets L2 decay: kernels, matrices and `conv_offset.bias` do, other vectors and biases do not."""
    return name.endswith(".conv_offset.bias") or (len(shape) > 1 and not name.endswith(".bias"))


def is_below(name: str, prefix: str) -> bool:
    """Whether the path `prefix` leads to `name`: 'layer1' to 'layer1.conv.weight', not to 'layer10.conv.weight'."""
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def recipe(
    config: Config, names_and_shapes: Mapping[str, Sequence[int]], stages: Sequence[Sequence[str]] = ()
) -> Recipe:
    """The backend's recipe: groups with and without decay, in the order of `names_and_shapes`; buffers are left out.

    stages: `Detector.stages`, which `optim.freeze_at` counts. Raises `PortdetError` for a prefix in `optim.freeze` that
    fits no weight, for a stage that does not exist, and where nothing is left to train.
    """
    trainable = {name: tuple(shape) for name, shape in names_and_shapes.items() if not name.endswith(BUFFERS)}
    for prefix in config.optim.freeze:
        if not any(is_below(name, prefix) for name in trainable):
            raise PortdetError(f"optim.freeze: no weight is called '{prefix}'", fix=nearest(prefix, _paths(trainable)))
    frozen = [*config.optim.freeze, *_stages(config.optim.freeze_at, stages)]
    live = {n: s for n, s in trainable.items() if not any(is_below(n, p) for p in frozen)}
    if not live:
        raise PortdetError(f"frozen are {', '.join(frozen)}: no weight is left to train", fix="see optim.freeze")
    decayed = tuple(name for name, shape in live.items() if decays(name, shape))
    plain = tuple(name for name, shape in live.items() if not decays(name, shape))
    groups = (Group(decayed, config.optim.weight_decay), Group(plain, 0.0))
    average = ema(config.ema)
    return Recipe(
        groups=tuple(group for group in groups if group.names),
        momentum=config.optim.momentum,
        nesterov=config.optim.nesterov,
        clip_norm=config.optim.clip_norm,
        clip_groups=config.optim.clip == "group",
        dynamic_scale=config.optim.loss_scale == "dynamic",
        ema=average.active,
        ema_zero_start=average.zero_start,
    )


def _stages(freeze_at: int, stages: Sequence[Sequence[str]]) -> list[str]:
    """Prefixes of the stages up to `freeze_at`, -1: none."""
    if freeze_at >= len(stages):
        has = f"stages 0 to {len(stages) - 1}" if stages else "no numbered stages"
        raise PortdetError(
            f"optim.freeze_at = {freeze_at}: the model has {has}", fix="optim.freeze takes prefixes of weights"
        )
    return [prefix for stage in stages[: freeze_at + 1] for prefix in stage]


def _paths(names: Mapping[str, Sequence[int]]) -> set[str]:
    """All modules above the names, for suggestions: 'a.b.weight' gives a and a.b."""
    return {".".join(parts[:i]) for parts in (name.split(".") for name in names) for i in range(1, len(parts))}
