"""The YOLOv3 of Ultralytics (release 9) and of MindYOLO after it: shapes of YOLOv3-DarkNet53, another function.

Both number their layers 0 to 28 and have as many tensors of the same shapes, so that their files could be renamed and
would load. What they compute is another model; see `_DIFFERS`. MindYOLO's converter however puts darknet53.conv.74
under MindYOLO's names (`mindyolo/utils/convert_weight_darknet53.py`), and such a file holds darknet's backbone.
"""

from __future__ import annotations

from collections.abc import Iterator

from portdet_convert.rules import Naming, Rule, Skip, units

_DIFFERS = (
    "it was trained with SiLU instead of (leaky) ReLU after every convolution, epsilon 1e-3 instead of 1e-5 in batch "
    "norm, and boxes decoded as 2 sigmoid(t) - 0.5 and (2 sigmoid(t))^2 instead of sigmoid(t) and exp(t)"
)
_SETTING = "setting of the head, not a weight"


def _paths(conv: str) -> Iterator[tuple[str, str]]:
    """(their unit, ours); `conv` is what they call the two convolutions of a block, before the number."""
    yield "0", "backbone.conv0"
    for stage in range(1, 6):
        yield f"{2 * stage - 1}", f"backbone.conv{stage}"
        block = "" if stage == 1 else ".{i:[0-9]+}"  # one block alone is no sequence
        yield (
            f"{2 * stage}{block}.{conv}{{k:[12]}}",
            f"backbone.layer{stage}.{'0' if stage == 1 else '{i:[0-9]+}'}.conv{{k:[12]}}",
        )
    heads = (
        (f"11.{conv}1", f"11.{conv}2", "12", "13", "14", "15"),
        (f"19.{conv}1", f"19.{conv}2", f"20.{conv}1", f"20.{conv}2", "21", "22"),
        (f"26.{conv}1", f"26.{conv}2", f"27.0.{conv}1", f"27.0.{conv}2", f"27.1.{conv}1", f"27.1.{conv}2"),
    )
    for head, paths in enumerate(heads):
        for number, path in enumerate(paths):
            yield path, f"backblock{head}.conv{number}"
    yield from (("16", "conv1"), ("23", "conv2"))


def _naming(
    name: str, conv: str, norm: dict[str, str], prefixes: tuple[str, ...], refused: str, note: str = ""
) -> Naming:
    leaves = [("conv.weight", "conv.weight"), *((f"bn.{theirs}", f"norm.{ours}") for theirs, ours in norm.items())]
    outputs = [
        (f"28.m.{2 - head}.{leaf}", f"backblock{head}.conv6.{leaf}") for head in range(3) for leaf in ("weight", "bias")
    ]
    settings = [f"{prefix}28.{leaf}" for prefix in ("", *prefixes) for leaf in ("anchors", "anchor_grid", "stride")]
    return Naming(
        name,
        (*units(_paths(conv), leaves), *(Rule(theirs, ours) for theirs, ours in outputs)),
        (
            Skip("{path}.num_batches_tracked", "counter of batch norm, not a weight"),
            *(Skip(s, _SETTING) for s in settings),
        ),
        prefixes,
        (Skip(refused, _DIFFERS),),
        note,
    )


MINDYOLO = _naming(
    "MindYOLO",
    "conv",
    {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"},
    ("model.model.", "model.", "ema.model.model.", "ema.model."),
    "{i:1[1-9]|2[0-8]}.{rest}",
    "a backbone alone under MindYOLO's names: taken for darknet53.conv.74, which its converter puts there; a backbone "
    "cut from weights that MindYOLO trained would not transfer (SiLU, epsilon 1e-3)",
)
ULTRALYTICS = _naming(
    "Ultralytics",
    "cv",
    {leaf: leaf for leaf in ("weight", "bias", "running_mean", "running_var")},
    ("model.", "model.model.", "module.model.", "ema.model.", "state_dict.model."),
    "{rest}",
)
