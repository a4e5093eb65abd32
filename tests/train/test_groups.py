"""Decay groups and frozen prefixes, worked out by hand for a few names."""

from __future__ import annotations

import pytest

from portdet.errors import PortdetError
from portdet.session import Group
from portdet.train.groups import recipe
from tests.train.fakes import settings

SHAPES = {
    "backbone.layer1.conv.weight": (8, 3, 3, 3),
    "backbone.layer1.norm.weight": (8,),
    "backbone.layer1.norm.bias": (8,),
    "backbone.layer1.norm.running_mean": (8,),
    "backbone.layer1.norm.running_var": (8,),
    "backbone.layer10.conv.weight": (8, 8, 1, 1),
    "head.weight": (21, 8, 1, 1),
    "head.bias": (21,),
}


def test_decay_on_kernels_alone() -> None:
    made = recipe(settings(optim__weight_decay=0.016), SHAPES)
    assert made.groups == (
        Group(("backbone.layer1.conv.weight", "backbone.layer10.conv.weight", "head.weight"), 0.016),
        Group(("backbone.layer1.norm.weight", "backbone.layer1.norm.bias", "head.bias"), 0.0),
    )


def test_paddledetection_decays_the_bias_of_offsets_too() -> None:
    shapes = {"conv2.conv_offset.weight": (27, 8, 3, 3), "conv2.conv_offset.bias": (27,), "output0.bias": (27,)}
    made = recipe(settings(optim__weight_decay=0.5), shapes)
    assert made.groups == (Group(tuple(shapes)[:2], 0.5), Group(("output0.bias",), 0.0))


def test_freezing_stops_at_the_border_of_a_name() -> None:
    made = recipe(settings(optim__freeze=["backbone.layer1"]), SHAPES)
    assert [group.names for group in made.groups] == [("backbone.layer10.conv.weight", "head.weight"), ("head.bias",)]
    assert len(recipe(settings(optim__freeze=["backbone", "head.weight"]), SHAPES).groups) == 1


@pytest.mark.parametrize("prefix", ["bakbone", "backbone.laye", "backbone.layr1"])
def test_unknown_prefix_names_the_nearest(prefix: str) -> None:
    with pytest.raises(PortdetError, match=r"no weight is called .*\n.*did you mean 'backbone"):
        recipe(settings(optim__freeze=[prefix]), SHAPES)


def test_all_frozen_is_an_error() -> None:
    with pytest.raises(PortdetError, match="backbone, head: no weight is left to train"):
        recipe(settings(optim__freeze=["backbone", "head"]), SHAPES)


STAGES = (("backbone.layer1",), ("backbone.layer10", "head.bias"))


def test_freeze_at_counts_stages_and_adds_to_freeze() -> None:
    assert recipe(settings(), SHAPES, STAGES) == recipe(settings(optim__freeze_at=-1), SHAPES)
    trained = [
        [
            name
            for group in recipe(settings(optim__freeze_at=at, **words), SHAPES, STAGES).groups
            for name in group.names
        ]
        for at, words in ((0, {}), (1, {}), (0, {"optim__freeze": ["head"]}))
    ]
    assert trained == [
        ["backbone.layer10.conv.weight", "head.weight", "head.bias"],
        ["head.weight"],
        ["backbone.layer10.conv.weight"],
    ]


@pytest.mark.parametrize(("stages", "has"), [(STAGES, "stages 0 to 1"), ((), "no numbered stages")])
def test_a_stage_that_is_not_there(stages: tuple[tuple[str, ...], ...], has: str) -> None:
    with pytest.raises(PortdetError, match=f"freeze_at = 2: the model has {has}"):
        recipe(settings(optim__freeze_at=2), SHAPES, stages)


def test_what_is_clipped_together() -> None:
    decayed, plain = (group.names for group in recipe(settings(), SHAPES).groups)
    assert recipe(settings(), SHAPES).clipped == ()
    assert recipe(settings(optim__clip_norm=35), SHAPES).clipped == ((*decayed, *plain),)
    assert recipe(settings(optim__clip_norm=35, optim__clip="group"), SHAPES).clipped == (decayed, plain)


def test_the_rest_of_the_recipe() -> None:
    made = recipe(
        settings(optim__clip_norm=35, optim__nesterov=True, optim__loss_scale="dynamic", ema__kind="threshold"), SHAPES
    )
    assert (made.clip_norm, made.nesterov, made.dynamic_scale, made.ema, made.ema_zero_start) == (35, *[True] * 4)
    plain = recipe(settings(ema__kind="none"), SHAPES)
    assert (plain.dynamic_scale, plain.ema, plain.ema_zero_start, plain.momentum) == (False, False, False, 0.9)
