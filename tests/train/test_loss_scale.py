"""The dynamic loss scale against the rule written out, and torch's GradScaler where torch is there."""

from __future__ import annotations

import pytest

from portdet.errors import PortdetError
from portdet.train.loss_scale import LossScale, loss_scale


def run(scale: LossScale, skips: list[bool]) -> list[float]:
    seen = []
    for step, skipped in enumerate(skips):
        scale.update(skipped=skipped, step=step)
        seen.append(scale.scale)
    return seen


def test_doubles_after_the_window_and_halves_on_overflow() -> None:
    good, bad = False, True
    scale = LossScale(8.0, dynamic=True, window=3)
    assert run(scale, [good] * 3 + [bad, good, good, bad] + [good] * 3) == [8, 8, 16, 8, 8, 8, 4, 4, 4, 8]
    assert (scale.skipped_steps, scale.good_steps) == (2, 0)


def test_never_below_one_then_an_error_that_counts() -> None:
    scale = LossScale(1.5, dynamic=True)
    assert run(scale, [True]) == [1.0]
    with pytest.raises(PortdetError, match=r"step 9: gradients are not finite at loss scale 1 \(2 steps skipped"):
        scale.update(skipped=True, step=9)


def test_static_never_moves() -> None:
    assert run(loss_scale(1024), [False] * 2500) == [1024.0] * 2500


def test_state_continues() -> None:
    scale = loss_scale("dynamic")
    assert (scale.scale, scale.window, scale.dynamic) == (65536.0, 2000, True)
    run(scale, [False] * 1999 + [True] + [False] * 1500)
    again = LossScale(**scale.state())
    assert run(again, [False] * 600) == run(scale, [False] * 600)
    assert again.scale == 65536.0


def test_wrong_setting() -> None:
    with pytest.raises(PortdetError, match="not positive"):
        loss_scale(0)


def test_same_sequence_as_torch() -> None:
    import torch

    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=4)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    skips = [i in (2, 3, 9, 17) for i in range(30)]
    theirs = []
    for skipped in skips:
        weight.grad = None
        scaler.scale((weight * (float("inf") if skipped else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        theirs.append(scaler.get_scale())
    assert run(LossScale(64.0, dynamic=True, window=4), skips) == theirs
