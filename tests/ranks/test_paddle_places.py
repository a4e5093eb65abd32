"""A rank's device, threads and place in Paddle, without other ranks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portdet.ranks import ALONE, Place
from portdet_paddle.launch import LAUNCHER
from tests.backends.harness import require
from tests.backends.paddle_process import run_python

SCRIPT = """
import os
os.environ["PADDLE_LOCAL_SIZE"] = "2"
from portdet_paddle.start import start
start(0)
print(os.environ["OMP_NUM_THREADS"])

import paddle
import paddle.distributed as dist
from types import SimpleNamespace
from portdet.errors import PortdetError
from portdet.ranks import ALONE, Place
from portdet_paddle.device import device_of_rank
from portdet_paddle.ranks import exchange

second = Place(1, 2, 1)
try:
    exchange(second, "cpu")
except PortdetError as error:
    print(str(error).replace("\\n", " "))
paddle.is_compiled_with_cuda, paddle.device.cuda.device_count = lambda: True, lambda: 4
dist.ParallelEnv = lambda: SimpleNamespace(device_id=3)
print(device_of_rank("cuda", second), device_of_rank("cuda:1", ALONE), device_of_rank("cpu", second))
try:
    device_of_rank("cuda:1", second)
except PortdetError as error:
    print(str(error).replace("\\n", " "))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    require("paddle")
    return run_python(SCRIPT, tmp_path_factory.mktemp("places")).splitlines()


def test_ranks_of_one_machine_share_its_cores(said: list[str]) -> None:
    assert int(said[0]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_a_place_without_the_launcher(said: list[str]) -> None:
    assert "paddle.distributed.launch did not start it so" in said[1]
    assert "portdet train --devices N" in said[1]


def test_each_rank_has_the_card_that_the_launcher_chose(said: list[str]) -> None:
    assert said[2] == "gpu:3 gpu:1 cpu"
    assert "device 'cuda:1' for 2 ranks" in said[3]
    assert "name the kind alone, 'cuda'" in said[3]


def test_place_from_the_environment(tmp_path: Path) -> None:
    found = {"PADDLE_TRAINER_ID": "5", "PADDLE_TRAINERS_NUM": "8", "PADDLE_LOCAL_RANK": "1"}
    assert LAUNCHER.place(found) == Place(5, 8, 1)
    assert LAUNCHER.place({}) is ALONE
    assert "portdet_paddle.launcher" in LAUNCHER.command(2, tmp_path, ["run.py"])
