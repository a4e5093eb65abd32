"""Sketches: norms and exact facts by hand-made cases; faults caught and healthy runs passed as with whole tensors."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portdet.align.compare import Dump, DumpWriter, Envelope, compare, false_alarms
from portdet.align.compare.distance import distance, distances
from portdet.align.compare.sketch import SIZE, Sketches, parts, sketch
from portdet.align.ladder.fault_planting import Fault, Planting
from portdet.session import Array, Arrays
from portdet_torch import hooks
from tests.align.compare_case import CALM, KINKED, Bench
from tests.align.planted import first_named, planted
from tests.align.test_compare_yolov3 import HELD_OUT


def sketched(arrays: Arrays) -> Arrays:
    found: Arrays = {}
    sketches = Sketches(found.__setitem__)
    for name, array in arrays.items():
        sketches(name, array)
    return found


def test_every_value_goes_into_one_sum_with_one_sign() -> None:
    count = 3 * SIZE + 5
    for place in (0, 1, SIZE - 1, SIZE, count - 1):
        one = np.zeros(count, np.float32)
        one[place] = 2.5
        sums = sketch(one)
        assert np.flatnonzero(sums).tolist() == [place % SIZE]
        assert abs(sums[place % SIZE]) == 2.5
    two = np.zeros(300 * SIZE, np.float32)
    two[[7, 299 * SIZE]] = 3, 4
    assert np.linalg.norm(sketch(two)) == 5, "in another sum, since the 257th row starts another block"


def test_it_is_linear_and_knows_no_layout() -> None:
    random = np.random.RandomState(0)
    a, b = (random.randint(-1000, 1000, (7, 300, 90)).astype(np.float32) for _ in range(2))
    assert (sketch(a - b) == sketch(a) - sketch(b)).all(), "sums of whole numbers are exact"
    assert (sketch(np.asfortranarray(a)) == sketch(a)).all()
    assert (sketch(a.transpose(0, 2, 1)) == sketch(a.transpose(0, 2, 1).copy())).all()
    assert not (sketch(a, seed=1) == sketch(a)).all()
    assert sketch(a.astype(np.float16)).tolist() == sketch(a.astype(np.float64)).tolist()


@pytest.mark.parametrize("kind", ["noise", "one channel", "one column", "constant", "repeated"])
def test_norms_are_kept(kind: str) -> None:
    """Over 200 seeds the estimate scatters around the norm by 1 / sqrt(2 SIZE) = 4.5 %, also where values repeat."""
    random = np.random.RandomState(1)
    x = np.zeros((4, 64, 20, 25), np.float32)
    if kind == "noise":
        x[:] = random.standard_normal(x.shape)
    elif kind == "one channel":
        x[:, 7] = 1e-3
    elif kind == "one column":
        x[..., 3] = 1
    elif kind == "constant":
        x[:] = 0.1
    else:
        x[:] = random.standard_normal((1, 1, 20, 25))
    norm = float(np.linalg.norm(x.astype(np.float64)))
    ratios = np.array([np.linalg.norm(sketch(x, seed=seed)) / norm for seed in range(200)])
    assert abs(ratios.mean() - 1) < 0.01
    assert 0.035 < ratios.std() < 0.065
    assert 0.8 < ratios.min() < ratios.max() < 1.2


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    x = np.random.RandomState(2).standard_normal((20, 30)).astype(np.float32)
    clean = x.copy()
    for value, place in ((math.nan, 3), (math.inf, 50), (math.inf, 51), (-math.inf, 7)):
        x.reshape(-1)[place] = value
        clean.reshape(-1)[place] = 0
    found, want = parts(x), parts(clean)
    assert found["#facts"][1:4].tolist() == [1, 2, 1]
    assert found["#facts"][5:].tolist() == [20, 30]
    assert (found[""] == want[""]).all()
    assert float(found["#largest"]) == float(np.abs(clean).max()) == float(want["#largest"])
    moved = x.copy()
    moved.reshape(-1)[[3, 4]] = 0, math.nan
    assert parts(moved)["#facts"][4] != found["#facts"][4], "the same counts elsewhere"


def test_exact_gates_work_on_sketches() -> None:
    x = np.random.RandomState(2).standard_normal((20, 30)).astype(np.float32)
    whole = {"forward/a": x, "forward/n": np.arange(600), "forward/s": x[0]}
    envelope = Envelope()
    envelope.add(sketched(whole), sketched(whole))
    holed, turned, other = x.copy(), x.T.copy(), np.arange(600)
    holed[4, 5], other[599] = math.nan, 0
    for change, name in (
        ({"forward/a": holed}, "forward/a#facts"),
        ({"forward/a": turned}, "forward/a#facts"),
        ({"forward/a": x.astype(np.float64)}, "forward/a#facts"),
        ({"forward/n": other}, "forward/n"),
        ({"forward/n": np.arange(600, dtype=np.int32)}, "forward/n#facts"),
        ({"forward/s": x[1]}, "forward/s"),
    ):
        first = compare(sketched(whole), [sketched({**whole, **change})], envelope).first
        assert first is not None
        assert first.name == name


def test_a_view_is_not_kept() -> None:
    x = np.ones(8, np.float32)
    found = sketched({"a": x})
    x[:] = 2
    assert (found["a"] == 1).all()


def test_many_distances_at_once_are_those_one_by_one() -> None:
    random = np.random.RandomState(3)
    pairs = []
    for size in (1, 2, 251, 4096, 5000, 0, 7):
        for spread in (0.0, 1e-7, 1.0):
            want = random.standard_normal(size).astype(np.float32)
            pairs.append(((want + spread * random.standard_normal(size)).astype(np.float32), want))
    pairs.append((np.ones(5, np.float32), np.zeros(5, np.float32)))
    pairs.append((np.array([1.0, math.nan, 3.0], np.float32), np.array([1.5, 2.0, math.inf], np.float32)))
    for found, (a, b) in zip(distances(pairs), pairs, strict=True):
        alone = distance(a, b)
        assert found.equal == alone.equal
        for field in ("max_rel", "rel_l2", "cosine", "signed_ulp"):
            assert getattr(found, field) == pytest.approx(getattr(alone, field), rel=1e-9, abs=1e-12)


class Box(nn.Module):  # type: ignore[misc]
    """Returns what its part returned, changed in place or not."""

    def __init__(self, change: bool) -> None:
        super().__init__()
        self.part, self.change = nn.Linear(40, 40), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.part(x)
        return y.mul_(2) if self.change else y


@pytest.mark.parametrize("change", [False, True])
def test_a_tensor_seen_twice_is_sketched_once_unless_it_changed(change: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Box(change))
    calls: list[int] = []

    def counted(array: Array, *how: int) -> Arrays:
        calls.append(array.size)
        return parts(array, *how)

    monkeypatch.setattr("portdet.align.compare.sketch.parts", counted)
    x = torch.randn(10, 40)
    found: Arrays = {}
    whole: Arrays = {}
    with hooks.collected(net, Sketches(found.__setitem__)):
        net(x).sum().backward()
    with hooks.collected(net, whole.__setitem__):
        net(x).sum().backward()
    assert len(calls) == 4 if change else 2
    assert found.keys() == sketched(whole).keys()
    for name, array in sketched(whole).items():
        assert found[name].tobytes() == array.tobytes(), name


# ---------------------------------------------------------------------- on a real model


class SketchBench(Bench):
    """The same runs, seen through sketches."""

    def __init__(self, draw: int) -> None:
        super().__init__(draw)
        self.whole, self.full_envelope = self.reference, self.envelope
        self.reference, self.envelope = sketched(self.whole), Envelope()
        for seed in range(16):
            self.envelope.add(self.reference, self.run(self.session, range(seed, seed + 1))[0])

    def run(self, *given: object) -> list[Arrays]:
        return [sketched(arrays) for arrays in super().run(*given)]  # type: ignore[arg-type]


bench = functools.cache(SketchBench)


def test_distances_of_sketches_are_those_of_tensors() -> None:
    """On every tensor of a step: self-noise of about 1e-7, and the difference between two batches of weights.

    Sums in float32 add up to 1e-7 of the norm, less than an ulp, which the self-noise has too.
    """
    it = bench(CALM)
    ratios, floor = [], 1e-7
    for other in (super(SketchBench, it).run(it.session, range(77, 78))[0], Bench(KINKED).reference):
        for name, want in it.whole.items():
            true = distance(other[name], want).rel_l2
            if want.size > SIZE and true > 2e-8:
                estimate = distance(sketch(other[name]), sketch(want)).rel_l2
                assert abs(estimate - true) < 0.25 * true + floor, name
                if true > 20 * floor:
                    ratios.append(estimate / true)
    found = np.array(ratios)
    print(f"{found.size} distances: within {np.abs(found - 1).max():.1%}, median {np.median(np.abs(found - 1)):.1%}")
    assert found.size > 100
    assert np.abs(found - 1).max() < 0.25
    assert np.median(np.abs(found - 1)) < 0.05


def test_a_dump_of_sketches_is_a_dump(tmp_path: Path) -> None:
    it = bench(CALM)
    for name, arrays in (("full", it.whole), ("small", sketched(it.whole))):
        with DumpWriter(tmp_path / name) as out:
            for key, array in arrays.items():
                out.put(key, array)
    stored = Dump(tmp_path / "small")
    assert compare(stored, it.run(it.session, range(300, 303)), it.envelope).passed


@pytest.mark.parametrize(("fault", "planting"), planted(), ids=lambda one: getattr(one, "name", ""))
def test_planted_faults_are_caught_and_their_place_named_first(fault: Fault, planting: Planting) -> None:
    first = first_named(bench(CALM), planting).partition("#")[0]
    assert planting.names(first), f"{first or 'nothing'} instead of {planting.expected}"


@pytest.mark.slow
@pytest.mark.parametrize("draw", [CALM, KINKED])
def test_no_false_alarm_in_30_held_out_runs(draw: int) -> None:
    it = bench(draw)
    results = [it.compare(it.session, range(start, start + 3)) for start in range(1000, 1000 + 3 * HELD_OUT, 3)]
    alarms = sum(not result.passed for result in results)
    print(false_alarms(alarms, HELD_OUT), max(f.ratio for r in results for f in r.findings))
    assert alarms == 0
