"""Two Paddle processes on CPU against one with the same global batch.

A gradient's distance is its L2 norm, relative to the largest gradient's. float32 is as far from float64 (torch, the
same weights and batch), in one process as in two: YOLOv3 5e-6, PP-YOLO 4.5e-5 in its first layers, median 5e-7.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from portdet.backends import load_backend
from portdet.session import Arrays
from tests.backends.harness import ROOT, below, require
from tests.patience import GUARD
from tests.ranks.paddle_rank import STEPS
from tests.ranks.rank_case import case

CHILD = Path(__file__).with_name("paddle_rank.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))}
WORST = {"yolov3": 1e-5, "ppyolo": 1e-4}
MOVED = {"yolov3": 1e-3, "ppyolo": 0.1}  # PP-YOLO's ReLUs near 0 fall on either side of it within 20 steps

Runs = tuple[Arrays, Arrays, Arrays]  # rank 0, rank 1, the one process


def alone(folder: Path, *cases: str) -> Arrays:
    done = subprocess.run([sys.executable, str(CHILD), str(folder), *cases], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=GUARD, check=False, cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "alone.npz"))


def ranks(folder: Path, *cases: str, **environment: str) -> tuple[Arrays, Arrays]:
    """What two ranks found. Nothing of theirs may warn, and both must end in order."""
    logs = folder / "logs"
    logs.mkdir()
    command = load_backend("paddle").launcher.command(2, logs, [str(CHILD), str(folder), *cases])
    done = subprocess.run(command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=GUARD,
                          check=False, cwd=folder)  # fmt: skip
    said = "".join(path.read_text() for path in sorted(logs.iterdir()))
    assert done.returncode == 0, said[-3000:]
    assert not said
    return dict(np.load(folder / "0.npz")), dict(np.load(folder / "1.npz"))


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    require("paddle")
    folder, cases = tmp_path_factory.mktemp("eager"), ("yolov3-eager", "ppyolo-eager")
    one = alone(folder, *cases)
    return *ranks(folder, *cases, "yolov3-eager-left", "yolov3-eager-apart", "meeting-eager"), one


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    require("paddle")
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


CASES = pytest.mark.parametrize(
    "words",
    [
        "yolov3-eager",
        "ppyolo-eager",
        *(pytest.param(f"{model}-compiled", marks=pytest.mark.slow) for model in ("yolov3", "ppyolo")),
    ],
)


@CASES
def test_gradients_losses_and_norms_of_the_global_batch(request: pytest.FixtureRequest, words: str) -> None:
    first, second, one = runs(request, words)
    apart = distances(first, one)
    assert max(apart) <= WORST[words.split("-")[0]]
    assert np.median(apart) <= 1e-6
    for name, wanted in below(one, "loss").items():
        assert float(first[f"loss/{name}"]) == pytest.approx(float(wanted), rel=1e-5), name
    for name, array in below(one, "norm").items():
        assert np.linalg.norm(first[f"norm/{name}"] - array) <= 5e-5 * np.linalg.norm(array), name
    for prefix in ("gradient", "loss", "norm"):
        assert all(
            array.tobytes() == second[name].tobytes() for name, array in first.items() if name.startswith(prefix)
        )


@CASES
def test_twenty_steps(request: pytest.FixtureRequest, words: str) -> None:
    """Weights, momentum and EMA: bit-equal on both ranks, near those of one process by what they moved."""
    first, second, one = runs(request, words)
    assert len(first["path"]) == STEPS
    np.testing.assert_allclose(first["path"], one["path"], rtol=1e-6 if "yolov3" in words else 1e-3)
    assert first["path"][-1] < first["path"][0]
    start = case(words.split("-")[0])[1]
    for part in ("weights", "ema", "momentum"):
        names = list(below(one, part))
        assert all(first[f"{part}/{name}"].tobytes() == second[f"{part}/{name}"].tobytes() for name in names)
        learned = [name for name in names if "running" not in name]
        apart, moved = 0.0, 0.0
        for name in learned:
            ours, theirs = first[f"{part}/{name}"].astype(float), one[f"{part}/{name}"].astype(float)
            apart += float(np.sum((ours - theirs) ** 2))
            moved += float(np.sum((theirs - (0 if part == "momentum" else start[name])) ** 2))
        assert moved > 1e-6
        assert apart**0.5 <= (2 if part == "momentum" else 1) * MOVED[words.split("-")[0]] * moved**0.5, part


@CASES
def test_an_overflow_on_one_rank_skips_the_step_on_both(request: pytest.FixtureRequest, words: str) -> None:
    for run in runs(request, words):
        assert run["skipped"].tolist() == [False] * STEPS + [True]


def test_without_the_exchange_the_ranks_drift_apart(request: pytest.FixtureRequest) -> None:
    first, second, one = runs(request, "yolov3-eager-left", "yolov3-eager")
    assert max(distances(first, one)) > 0.1
    assert max(distances(first, second)) > 0.1
    assert any(
        array.tobytes() != second[name].tobytes() for name, array in first.items() if name.startswith("weights/")
    )


def test_without_sync_bn_it_is_another_training(request: pytest.FixtureRequest) -> None:
    """The statistics of half a batch; the stored ones are rank 0's, so that validation does not depend on the rank."""
    first, second, one = runs(request, "yolov3-eager-apart", "yolov3-eager")
    assert max(distances(first, one)) > 0.1
    assert any(np.linalg.norm(first[f"norm/{n}"] - a) > 0.1 * np.linalg.norm(a) for n, a in below(one, "norm").items())
    assert all(array.tobytes() == second[name].tobytes() for name, array in first.items())


def test_what_ranks_tell_each_other(request: pytest.FixtureRequest) -> None:
    for run in runs(request, "meeting-eager")[:2]:
        assert run["large"][:, 0].tolist() == [0, 1]
        assert "' differs between ranks 0 and 1" in str(run["refused"])


@pytest.mark.slow
def test_a_rank_may_be_later_than_gloo_waits(tmp_path: Path) -> None:
    require("paddle")
    first, second = ranks(tmp_path, "meeting-eager", SLEEP="35")
    assert first["meeting-eager/large"].tobytes() == second["meeting-eager/large"].tobytes()


def failing(folder: Path, script: str) -> tuple[int, str, list[str]]:
    """Exit code of a launched script that fails, rank 0's output, the logs."""
    require("paddle")
    path, logs = folder / "script.py", folder / "logs"
    path.write_text(script)
    logs.mkdir()
    done = subprocess.run(
        load_backend("paddle").launcher.command(2, logs, [str(path)]),
        env={**ENVIRONMENT, "SECRET": "swordfish"}, capture_output=True, text=True, timeout=GUARD, check=False,
        cwd=folder,
    )  # fmt: skip
    return done.returncode, done.stdout, [path.read_text() for path in sorted(logs.iterdir())]


HEAD = """
import sys
from pathlib import Path
from portdet.backends import load_backend, open_session
from portdet.session import Options
from portdet.conformance.ranks import share
from tests.ranks.rank_case import case, recipe_of
from portdet.session import StepValues
place = load_backend("paddle").launcher.place()
detector, weights, batch = case("yolov3")
session = open_session(detector, "paddle", recipe_of(detector), Options(threads=1, place=place), Path(f"s{place.rank}"))
session.load_weights(weights)
"""


@pytest.mark.parametrize("where", ["gather", "step"])
def test_a_rank_that_fails_ends_the_others(tmp_path: Path, where: str) -> None:
    work = "session.gather(0)" if where == "gather" else "session.train_step(share(batch, place), StepValues(1e-5))"
    code, shown, logs = failing(tmp_path, f"{HEAD}if place.rank == 1: raise ValueError('the reason')\n{work}\n")
    assert code != 0
    assert len(logs) == 2
    assert "rank 0 cannot go on" in logs[0]
    assert "the reason" in logs[1]
    assert "rank 0 cannot go on" in shown
    assert "swordfish" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
