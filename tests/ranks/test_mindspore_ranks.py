"""Two MindSpore processes on CPU against one with the same global batch.

A gradient's distance is its L2 norm, relative to the largest gradient's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from portdet.backends import load_backend
from portdet.ranks import Place
from portdet.session import Arrays
from tests.backends.harness import ROOT, below, require
from tests.patience import GUARD
from tests.ranks.mindspore_rank import STEPS
from tests.ranks.rank_case import case

CHILD = Path(__file__).with_name("mindspore_rank.py")
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
}  # fmt: skip
WORST = {"yolov3": 1e-5, "ppyolo": 1e-4}
MOVED = {"yolov3": 1e-3, "ppyolo": 0.1}  # PP-YOLO's ReLUs near 0 fall on either side of it within 20 steps

Runs = tuple[Arrays, Arrays, Arrays]  # rank 0, rank 1, the one process


def alone(folder: Path, *cases: str) -> Arrays:
    done = subprocess.run([sys.executable, str(CHILD), str(folder), *cases], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=GUARD, check=False, cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "alone.npz"))


def exact(model: str, folder: Path) -> Arrays:
    """The case's gradients in float64, by torch, in one process."""
    command = [sys.executable, str(CHILD.with_name("exact_child.py")), model, str(folder / "exact.npz")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "exact.npz"))


def launch(folder: Path, *words: str, timeout: float = GUARD) -> tuple[int, str, list[str]]:
    """Exit code of two ranks that run a script, what came through, and what the ranks said."""
    logs = folder / "logs"
    logs.mkdir()
    done = subprocess.run(load_backend("mindspore").launcher.command(2, logs, list(words)), env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)  # fmt: skip
    return done.returncode, done.stdout, [(logs / f"worker_{rank}.log").read_text() for rank in range(2)]


def ranks(folder: Path, *cases: str) -> tuple[Arrays, Arrays]:
    """What two ranks found. Rank 0's words alone come through, without a warning."""
    code, shown, said = launch(folder, str(CHILD), str(folder), *cases)
    assert code == 0, said
    assert shown == "".join(f"{words} on rank 0\n" for words in cases)
    return dict(np.load(folder / "0.npz")), dict(np.load(folder / "1.npz"))


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    require("mindspore")
    folder = tmp_path_factory.mktemp("eager")
    one = alone(folder, "yolov3-eager")
    return *ranks(folder, "meeting-eager", "yolov3-eager", "yolov3-eager-apart", "yolov3-eager-left"), one


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    require("mindspore")
    folder, cases = tmp_path_factory.mktemp("compiled"), ("yolov3-compiled", "ppyolo-compiled")
    one = alone(folder, *cases)
    return *ranks(folder, *cases), one


def runs(request: pytest.FixtureRequest, words: str, reference: str = "") -> Runs:
    """A case's arrays of both ranks, and of the one process."""
    first, second, one = request.getfixturevalue(words.split("-")[1])
    return below(first, words), below(second, words), below(one, reference or words)


def distances(got: Arrays, want: Arrays) -> list[float]:
    """Of each gradient, see above."""
    pairs = [(got[name].astype(float), want[name].astype(float)) for name in want if name.startswith("gradient/")]
    largest = max(np.linalg.norm(theirs) for _, theirs in pairs)
    return [float(np.linalg.norm(ours - theirs) / largest) for ours, theirs in pairs]


def same(first: Arrays, second: Arrays, *prefixes: str) -> bool:
    """Whether arrays below the prefixes are the same bits."""
    names = [name for name in first if name.startswith(prefixes)]
    assert names
    return all(first[name].tobytes() == second[name].tobytes() for name in names)


CASES = pytest.mark.parametrize(
    "words",
    [
        "yolov3-eager",
        *(pytest.param(f"{model}-compiled", marks=pytest.mark.slow) for model in ("yolov3", "ppyolo")),
    ],
)


@CASES
def test_gradients_losses_and_norms_of_the_global_batch(
    request: pytest.FixtureRequest, tmp_path: Path, words: str
) -> None:
    """YOLOv3's gradients lie near those of float64. Two float32 runs may lie twice as far from each other as from it:
    here one process and two ranks are 6e-6 and 5e-6 off, to opposite sides, and torch's one process in float32 6e-6.
    """
    first, second, one = runs(request, words)
    model = words.split("-")[0]
    if model == "yolov3":
        truth = exact(model, tmp_path)
        trained = {name: truth[name] for name in one if name.startswith("gradient/")}
        assert max(distances(first, trained)) <= WORST[model]
        assert max(distances(one, trained)) <= WORST[model]
    else:
        assert max(distances(first, one)) <= WORST[model]
    for name, wanted in below(one, "loss").items():
        assert float(first[f"loss/{name}"]) == pytest.approx(float(wanted), rel=1e-5), name
    for name, array in below(one, "norm").items():
        assert np.linalg.norm(first[f"norm/{name}"] - array) <= 5e-5 * np.linalg.norm(array), name
    assert same(first, second, "gradient", "loss", "norm")


@CASES
def test_steps(request: pytest.FixtureRequest, words: str) -> None:
    """Weights, momentum and EMA: bit-equal on both ranks, near those of one process by what they moved."""
    first, second, one = runs(request, words)
    assert len(first["path"]) == STEPS[words.split("-")[1]]
    np.testing.assert_allclose(first["path"], one["path"], rtol=1e-6 if "yolov3" in words else 1e-3)
    assert first["path"][-1] < first["path"][0]
    assert same(first, second, "weights", "momentum", "ema")
    start = case(words.split("-")[0])[1]
    for part in ("weights", "ema", "momentum"):
        apart, moved = 0.0, 0.0
        for name, theirs in below(one, part).items():
            if "running" in name:
                continue
            ours, theirs = first[f"{part}/{name}"].astype(float), theirs.astype(float)
            apart += float(np.sum((ours - theirs) ** 2))
            moved += float(np.sum((theirs - (0 if part == "momentum" else start[name])) ** 2))
        assert moved > 1e-10
        assert apart**0.5 <= (2 if part == "momentum" else 1) * MOVED[words.split("-")[0]] * moved**0.5, part


@CASES
def test_an_overflow_on_one_rank_skips_the_step_on_both(request: pytest.FixtureRequest, words: str) -> None:
    for run in runs(request, words):
        assert run["skipped"].tolist() == [False] * STEPS[words.split("-")[1]] + [True]


def test_without_the_exchange_the_ranks_drift_apart(request: pytest.FixtureRequest) -> None:
    first, second, one = runs(request, "yolov3-eager-left", "yolov3-eager")
    assert max(distances(first, one)) > 0.1
    assert max(distances(first, second)) > 0.1
    assert not same(first, second, "weights")


def test_without_sync_bn_it_is_another_training(request: pytest.FixtureRequest) -> None:
    """The statistics of half a batch; the stored ones are rank 0's, so that validation does not depend on the rank."""
    first, second, one = runs(request, "yolov3-eager-apart", "yolov3-eager")
    assert max(distances(first, one)) > 0.1
    assert any(np.linalg.norm(first[f"norm/{n}"] - a) > 0.1 * np.linalg.norm(a) for n, a in below(one, "norm").items())
    assert same(first, second, "")


def test_what_ranks_tell_each_other(request: pytest.FixtureRequest) -> None:
    for run in runs(request, "meeting-eager")[:2]:
        assert run["large"][:, 0].tolist() == [0, 1]
        assert "' differs between ranks 0 and 1" in str(run["refused"])


def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    """And the scheduler, which by itself would notice after 30 s."""
    require("mindspore")
    script = tmp_path / "script.py"
    script.write_text(FAILING)
    code, shown, (_, said) = launch(tmp_path, str(script))
    assert code != 0
    assert shown == "rank 0 is here\n"
    assert "the reason" in said


FAILING = """
from portdet.backends import load_backend
from portdet_mindspore.process import prepare
place = load_backend("mindspore").launcher.place()
prepare()
from portdet_mindspore.device import use_device
from portdet_mindspore.ranks import gather, join
use_device("cpu", place)
join(place)
print(f"rank {place.rank} is here")
if place.rank == 1:
    raise ValueError("the reason")
gather(0, place)
"""


def test_places() -> None:
    launcher = load_backend("mindspore").launcher
    ours = {"MS_WORKER_NUM": "4", "RANK_ID": "3", "DEVICE_ID": "1", "MS_ROLE": "MS_WORKER"}
    assert launcher.place(ours) == Place(3, 4, 1)
    assert launcher.place({}) == Place()
