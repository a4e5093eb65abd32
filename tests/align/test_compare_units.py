"""The parts of the comparison, each against figures by hand or another program: dumps, distances, gates, words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from portdet.align.compare import Dump, DumpWriter, Envelope, Median, compare, dump, exact, false_alarms, perturb
from portdet.align.compare.distance import distance
from portdet.align.compare.names import Renamed, Some
from portdet.errors import PortdetError

F = np.float32


# ---------------------------------------------------------------- dumps
def tensors() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {
        "forward/z": np.arange(12, dtype=F).reshape(3, 4),
        "forward/a": np.array([True, False]),
        "loss/total": np.array(2.5, np.float64),
        "grad/empty": np.zeros((0, 3), np.float16),
        "step/count": np.array([-7], np.int64),
    }


def written(path: Path, names: int = 0) -> Path:
    with DumpWriter(path, {"program": "ours", "seed": "3"}) as out:
        for name, array in tensors().items():
            out.put(name, array)
        for number in range(names):
            out.put(f"forward/{'long' * 20}.{number}", np.full(3, number, F))
    return path


@pytest.mark.parametrize("names", [0, 2000], ids=["short", "header that outgrows its place"])
def test_a_dump_keeps_order_and_bits_and_safetensors_reads_it(tmp_path: Path, names: int) -> None:
    path = written(tmp_path / "a.safetensors", names)
    found, theirs = Dump(path), load_file(path)
    assert list(found)[:5] == list(tensors())
    assert len(found) == len(theirs) == 5 + names
    assert found.about == {"program": "ours", "seed": "3"}
    for name, want in tensors().items():
        for got in (found[name], theirs[name]):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            assert got.tobytes() == want.tobytes()
    if names:
        last = f"forward/{'long' * 20}.1999"
        assert list(found)[-1] == last
        assert found[last].tolist() == theirs[last].tolist() == [1999.0] * 3


def test_a_file_of_safetensors_is_a_dump(tmp_path: Path) -> None:
    save_file({"b": np.ones(3, F), "a": np.zeros((2, 2), np.int32)}, tmp_path / "x.safetensors", {"by": "them"})
    found = Dump(tmp_path / "x.safetensors")
    assert {name: found[name].tolist() for name in found} == {"b": [1.0] * 3, "a": [[0, 0], [0, 0]]}


def test_bfloat16_comes_as_float32(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = np.array([0x3FC0, 0xC000], "<u2").tobytes()  # 1.5 and -2
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert Dump(tmp_path / "b.safetensors")["x"].tolist() == [1.5, -2.0]


def test_a_put_is_a_copy_and_what_is_read_too(tmp_path: Path) -> None:
    live = np.ones(3, F)
    with DumpWriter(tmp_path / "a.safetensors") as out:
        out.put("x", live)
        live[:] = 9
    found = Dump(tmp_path / "a.safetensors")
    found["x"][:] = 5
    assert found["x"].tolist() == [1.0] * 3


def dumped(path: Path, *arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]], stop: bool = False) -> None:
    with DumpWriter(path) as out:
        for array in arrays:
            out.put("x", array)
        if stop:
            raise RuntimeError


def test_a_dump_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        dumped(tmp_path / "a.safetensors", np.ones(3, F), stop=True)
    with pytest.raises(PortdetError, match="is in the dump already"):
        dumped(tmp_path / "b.safetensors", np.ones(3, F), np.ones(3, F))
    with pytest.raises(PortdetError, match="complex64"):
        dumped(tmp_path / "c.safetensors", np.ones(3, np.complex64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_damaged_dump_is_an_error(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(PortdetError, match=r"a\.safetensors: not a safetensors file"):
        Dump(path)


def test_blocks_are_moved_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"...abcdefg")
    with path.open("rb+") as file:
        dump._shift(file, 3, 5, 7, block=3)
    assert path.read_bytes()[5:] == b"abcdefg"


# ---------------------------------------------------------------- figures
def test_a_distance_by_hand() -> None:
    found = distance(np.array([3.0, 4.5], F), np.array([3.0, 4.0], F))
    assert found.max_rel == 0.5 / 4
    assert found.rel_l2 == pytest.approx(0.5 / 5)
    assert found.cosine == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    assert found.signed_ulp == pytest.approx(0.25 / 2**-22), "rms 3.54 has an ulp of 2**-22"
    assert not found.equal
    assert distance(np.ones(3, F), np.ones(3, F)).equal
    zero = distance(np.array([0.0, 0.5], F), np.zeros(2, F))
    assert (zero.max_rel, zero.rel_l2, zero.cosine) == (1.0, 1.0, 0.0)
    assert distance(np.zeros((0, 3), F), np.zeros((0, 3), F)).equal


def test_a_distance_over_blocks_is_that_of_the_whole() -> None:
    random = np.random.RandomState(0)
    want = random.randn(3, 300_001).astype(F)
    got = (want * (1 + 1e-4 * random.randn(*want.shape))).astype(F)
    a, b = got.astype(float).ravel(), want.astype(float).ravel()
    found = distance(got, want)
    assert found.max_rel == pytest.approx(np.abs(a - b).max() / np.abs(b).max(), rel=1e-12)
    assert found.rel_l2 == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-9)


def test_perturb_moves_every_value_by_one_ulp_in_its_own_way() -> None:
    one = {"a": np.array([1.0, -3.0, 0.0, 1e-3] * 500, F), "i": np.arange(3)}
    moved = perturb(one, 4)
    apart = np.abs(moved["a"] - one["a"]) / np.spacing(np.abs(one["a"]))
    nonzero = one["a"] != 0
    assert set(np.unique(apart[nonzero])) <= {0.5, 1.0}, "below a power of two the neighbour is half as far"
    assert (moved["a"][~nonzero] == 0).all()
    assert 0.45 < (moved["a"] > one["a"])[nonzero].mean() < 0.55
    assert (moved["i"] == one["i"]).all()
    assert moved["a"].tobytes() == perturb({"a": one["a"]}, 4)["a"].tobytes(), "neighbours do not matter"
    assert moved["a"].tobytes() != perturb(one, 5)["a"].tobytes()


# ---------------------------------------------------------------- gates
@pytest.mark.parametrize(
    ("got", "said"),
    [
        (np.ones((2, 3), F), "has shape (2, 3) instead of (3, 2)"),
        (np.ones((3, 2)), "is float64 instead of float32"),
        (np.ones((3, 2), np.int32), "is int32 instead of float32"),
        (np.array([[1, 1], [1, np.nan], [1, 1]], F), "has 1 NaN instead of 0, first apart at (1, 1)"),
        (np.array([[1, 1], [1, 1], [-np.inf, 1]], F), "has 1 -inf instead of 0, first apart at (2, 0)"),
    ],
)
def test_exact_gates(got: np.ndarray[tuple[int, ...], np.dtype[np.generic]], said: str) -> None:
    assert exact.values(got, np.ones((3, 2), F)) == said
    result = compare({"x": np.ones((3, 2), F)}, [{"x": got}])
    assert result.passed is False
    assert result.first is not None
    assert (result.first.status, result.first.words) == ("broken", said)


def test_equal_nan_and_integers() -> None:
    nan = np.array([np.nan, 1.0, np.inf], F)
    assert exact.values(nan, nan.copy()) == ""
    assert exact.values(np.ones(2), np.ones(2, F), widths=False) == ""
    assert exact.values(np.array([1, 2, 3]), np.array([1, 5, 4])) == "differs in 2 of 3 values, first at (1,)"
    assert distance(nan, nan.copy()).equal
    holes = distance(np.array([np.inf, 2.0, np.nan], F), np.array([0.0, 1.0, 1.0], F))
    assert holes.max_rel == 1.0, "what is not finite in either is left out"


def test_names_that_only_one_program_has() -> None:
    result = compare({"a/x": np.ones(2, F), "a/stem": np.ones(2, F)}, [{"a/x": np.ones(2, F), "a/stm": np.ones(2, F)}])
    assert [(f.name, f.words) for f in result.guilty()] == [
        ("a/stem", "is missing in the other program; did you mean 'a/stm'?"),
        ("a/stm", "is in the other program alone"),
    ]


# ---------------------------------------------------------------- the rule
def noisy(seed: int, noise: float = 1e-6) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.RandomState(seed)
    return {name: (1 + noise * random.uniform(-1, 1, 50)).astype(F) for name in ("forward/a", "forward/b", "grad/c")}


def calibrated() -> Envelope:
    envelope = Envelope()
    for seed in range(16):
        envelope.add(noisy(0, 0), noisy(seed + 1))
    return envelope


def test_first_in_order_of_appearance_not_the_largest(tmp_path: Path) -> None:
    bad = noisy(99)
    bad["forward/b"] = bad["forward/b"] + F(3e-5)
    bad["grad/c"] = bad["grad/c"] * 2
    result = compare(noisy(0, 0), [bad], calibrated())
    assert result.first is not None
    assert result.first.name == "forward/b"
    assert 45 < result.first.ratio < 55, "of the norms; that of the largest differences is 30"
    assert result.words().startswith("Different, first in forward/b: it lies apart by 3")
    assert "All 1 before it agree" in result.words()
    assert "Of the 1 after it 1 differ too" in result.words()
    assert result.levels()["grad"][:2] == (1, 1)
    result.save(tmp_path / "compare.json")
    kept = json.loads((tmp_path / "compare.json").read_text())
    assert (kept["first"], kept["passed"], kept["self_runs"]) == ("forward/b", False, 16)
    assert [row["status"] for row in kept["tensors"]] == ["noise", "different", "different"]


def test_noise_passes_and_without_self_runs_nothing_is_decided() -> None:
    assert compare(noisy(0, 0), [noisy(50)], calibrated()).passed is True
    assert "within 10 times the self-noise" in compare(noisy(0, 0), [noisy(50)], calibrated()).words()
    blind = compare(noisy(0, 0), [noisy(50)])
    assert blind.passed is None
    assert blind.words().startswith("Undecided")
    assert compare(noisy(0, 0), [noisy(0, 0)]).passed is True, "equal bits need no tolerance"


def test_what_rounding_hides_is_said() -> None:
    envelope = calibrated()
    loud = noisy(70)
    loud["grad/c"][3] += F(0.05)
    envelope.add(noisy(0, 0), loud)
    result = compare(noisy(0, 0), [noisy(71)], envelope)
    assert [finding.name for finding in result.wide()] == ["grad/c"]
    assert "In 1 of them rounding alone moves values so far that faults below 1% do not show (below 50% in grad/c)" in (
        result.words()
    )
    assert compare(noisy(0, 0), [noisy(71)], calibrated()).wide() == []


def test_the_median_of_three_forgives_one_kink_but_not_two() -> None:
    runs = [noisy(seed) for seed in (60, 61, 62)]
    runs[1]["grad/c"][7] += F(0.5)
    assert compare(noisy(0, 0), runs, calibrated()).passed is True
    assert compare(noisy(0, 0), runs[1:2], calibrated()).passed is False
    runs[2]["grad/c"][7] += F(0.5)
    assert compare(noisy(0, 0), runs, calibrated()).passed is False
    assert Median(runs)["grad/c"][7] == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_median_is_numpy_s(count: int) -> None:
    random = np.random.RandomState(count)
    runs = [{"x": random.randn(4, 50).astype(F)} for _ in range(count)]
    runs[0]["x"][0, 0] = np.nan
    want = np.median(np.stack([run["x"] for run in runs]), axis=0)
    np.testing.assert_array_equal(Median(runs)["x"], want)
    assert Median(runs)["x"].dtype == F


def test_a_tensor_without_noise_is_held_to_one_ulp() -> None:
    envelope = Envelope()
    envelope.add({"x": np.ones(4, F)}, {"x": np.ones(4, F)})
    one = np.nextafter(np.ones(4, F), F(2))
    assert compare({"x": np.ones(4, F)}, [{"x": one}], envelope).passed is True
    assert compare({"x": np.ones(4, F)}, [{"x": one + F(3e-6)}], envelope).passed is False


def test_an_envelope_comes_back_and_must_fit(tmp_path: Path) -> None:
    calibrated().save(tmp_path / "envelope.json")
    assert Envelope.load(tmp_path / "envelope.json") == calibrated()
    with pytest.raises(PortdetError, match="the self-runs have no tensor 'other'"):
        compare({"other": np.ones(2, F)}, [{"other": np.zeros(2, F)}], calibrated())
    with pytest.raises(PortdetError, match="not one of the reference: 'grad/c' is missing"):
        calibrated().add(noisy(0), {"forward/a": np.ones(50, F), "forward/b": np.ones(50, F)})
    with pytest.raises(PortdetError, match="no run of the other program"):
        compare(noisy(0), [])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(PortdetError, match=r"x\.json: is \[\]: no map of names to values"):
        Envelope.load(tmp_path / "x.json")


def test_the_bound_of_no_alarm() -> None:
    assert false_alarms(0, 30) == "0 of 30 healthy runs raise an alarm (95 %: below 9.5% of all)"
    assert false_alarms(2, 30) == "2 of 30 healthy runs raise an alarm"


def test_whether_a_tensor_is_there_is_known_without_reading_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ladder asks thousands of times: nine in ten of its seconds went into the names nearest to absent ones."""
    with DumpWriter(tmp_path / "a.safetensors") as out:
        out.put("conv", np.zeros(3, np.float32))
    whole = Dump(tmp_path / "a.safetensors")
    views = [whole, Median([whole, whole]), Renamed(whole, {}), Some(whole, lambda name: True)]
    for kind in {type(view) for view in views}:
        monkeypatch.setattr(kind, "__getitem__", lambda self, name: pytest.fail(f"{type(self).__name__} reads {name}"))
    for view in views:
        assert "conv" in view
        assert "norm" not in view
