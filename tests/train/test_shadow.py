"""The moving average in a CPU's memory, against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from portdet.shadow import SMALL, HostShadow, _shares


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_average_is_its_definition_with_any_number_of_threads(threads: int) -> None:
    random = np.random.default_rng(0)
    shapes = {"a": (SMALL * 2 + 3,), "norm": (5,), "b": (130, 140), "bias": (1,), "c": (3, SMALL, 1)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    shadow = HostShadow(start, weights.__getitem__, threads)
    want = {name: np.zeros(shape) for name, shape in shapes.items()}
    for decay in (0.1, 0.9, 0.999):
        for name, array in weights.items():
            array += random.normal(size=array.shape).astype(np.float32)
            want[name] = decay * want[name] + (1 - decay) * array
        shadow.update(decay)
    for name, array in shadow.arrays().items():
        np.testing.assert_allclose(array, want[name], rtol=2e-6, atol=1e-6)


def test_every_value_is_in_one_share_and_shares_are_equal() -> None:
    sizes = {"a": 10, "b": 1, "c": 100, "d": 7}
    for count in (1, 2, 3, 5):
        shares = _shares(sizes, count)
        found = [(name, i) for share in shares for name, start, end in share for i in range(start, end)]
        assert found == [(name, i) for name, size in sizes.items() for i in range(size)]
        lengths = [sum(end - start for _, start, end in share) for share in shares]
        assert max(lengths) - min(lengths[:-1] or lengths) <= 0
        assert lengths[-1] <= max(lengths)


def test_without_large_weights_no_share_is_empty_handed() -> None:
    weights = {"bias": np.ones(3, np.float32)}
    shadow = HostShadow({"bias": np.zeros(3, np.float32)}, weights.__getitem__, 2)
    shadow.update(0.25)
    np.testing.assert_array_equal(shadow.arrays()["bias"], np.full(3, 0.75, np.float32))
