"""Leaf layers against torch.nn in float64: outputs, running statistics, weight names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from portdet.spec import BatchNorm2d, Conv2d, load


def test_conv2d_equals_torch() -> None:
    spec = Conv2d(4, 6, 3, stride=2, pads=(1, 1, 1, 1), groups=2, bias=True)
    peer = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=True, dtype=torch.float64)
    load(spec, {name: value.numpy() for name, value in peer.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 12))
    np.testing.assert_allclose(spec(x), peer(torch.from_numpy(x)).detach().numpy(), rtol=1e-13, atol=1e-14)


def norms(momentum: float) -> tuple[BatchNorm2d, Any]:
    random = np.random.default_rng(1)
    spec = BatchNorm2d(5, momentum=momentum, eps=1e-3)
    peer = torch.nn.BatchNorm2d(5, eps=1e-3, momentum=momentum, dtype=torch.float64)
    weights = {name: random.uniform(0.5, 2, 5) for name, _ in spec.items()}
    load(spec, weights)
    peer.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    return spec, peer


@pytest.mark.parametrize("momentum", [0.1, 0.9])
def test_batch_norm_trains_as_torch(momentum: float) -> None:
    spec, peer = norms(momentum)
    spec.set_training(True)
    for seed in (2, 3, 4):  # several steps, so that the running statistics depend on their earlier values
        x = np.random.default_rng(seed).normal(1, 3, size=(2, 5, 3, 4))
        np.testing.assert_allclose(spec(x), peer(torch.from_numpy(x)).detach().numpy(), rtol=1e-12, atol=1e-13)
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(spec.params[name].array, getattr(peer, name).numpy(), rtol=1e-13)


def test_batch_norm_evaluates_as_torch() -> None:
    spec, peer = norms(0.1)
    before = {name: param.array for name, param in spec.items()}
    x = np.random.default_rng(5).normal(1, 3, size=(2, 5, 3, 4))
    np.testing.assert_allclose(spec(x), peer.eval()(torch.from_numpy(x)).detach().numpy(), rtol=1e-12, atol=1e-13)
    assert all(param.array is before[name] for name, param in spec.items())


def test_the_biased_running_variance_is_told_apart() -> None:
    """Paddle stores the biased one: 1/24 less of the new part here, which these tests must see."""
    spec, peer = norms(0.5)
    spec.set_training(True)
    x = np.random.default_rng(6).normal(1, 3, size=(2, 5, 3, 4))
    before = spec.running_var.array
    spec(x), peer(torch.from_numpy(x))
    biased = 0.5 * before + 0.5 * x.var(axis=(0, 2, 3))
    assert not np.allclose(biased, peer.running_var.numpy(), rtol=1e-3)
