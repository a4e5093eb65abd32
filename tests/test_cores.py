"""One count of cores, for those who start threads and those who report them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from portdet.processes.cores import cores

ROOT = Path(__file__).parents[1]
HAS = len(os.sched_getaffinity(0))
ONE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "


def system(folder: Path, groups: str, files: dict[str, str]) -> Path:
    """A root with /proc/self/cgroup and files below /sys/fs/cgroup, as the kernel writes them."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


V1 = "4:memory:/a\n3:cpu,cpuacct:/docker/17\n"
CASES = {
    "version 2": ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
    "no quota": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "a core and a half": ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
    "half of one": ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
    "a group further out": ("0::/pod/own\n", {"pod/own/cpu.max": "max 100000", "pod/cpu.max": "90000 100000"}, 1),
    "version 1": (V1, {"cpu,cpuacct/docker/17/cpu.cfs_quota_us": "100000\n",
                       "cpu,cpuacct/docker/17/cpu.cfs_period_us": "100000\n"}, 1),
    "version 1 without": (V1, {"cpu,cpuacct/docker/17/cpu.cfs_quota_us": "-1\n",
                               "cpu,cpuacct/docker/17/cpu.cfs_period_us": "100000\n"}, None),
    "another kernel's words": ("0::/\n", {"cpu.max": "some\n"}, None),
    "nothing": ("", {}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_quota_counts(name: str, tmp_path: Path) -> None:
    groups, files, wanted = CASES[name]
    assert cores(system(tmp_path, groups, files)) == (HAS if wanted is None else min(wanted, HAS))


def test_a_machine_without_proc(tmp_path: Path) -> None:
    assert cores(tmp_path) == HAS


def test_a_task_set_counts(tmp_path: Path) -> None:
    code = (
        ONE
        + f"from pathlib import Path; from portdet.processes.cores import cores; print(cores(Path({str(tmp_path)!r})))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_nobody_else_counts() -> None:
    """What starts threads or workers, and what tells of them, asks `cores`."""
    files = [p for part in ("portdet", "backends", "weights_convert") for p in (ROOT / part).rglob("*.py")]
    counted = re.compile(r"(?<!`)os\.(cpu_count|sched_getaffinity|process_cpu_count)|multiprocessing\.cpu_count")
    assert [p.name for p in files if counted.search(p.read_text(encoding="utf-8"))] == ["cores.py"]


def test_doctor_and_a_session_take_the_same(tmp_path: Path) -> None:
    """Whatever OMP_NUM_THREADS says, which neither follows: it warned of one core, and train took all."""
    code = (
        "import json, sys; from pathlib import Path; from portdet.backends import load_backend, open_session\n"
        "from portdet.models import load_model; from portdet.session import Group, Options, Recipe\n"
        "checks = [(c.level, c.what) for c in load_backend('torch').doctor() if 'threads' in c.what]\n"
        "model = load_model({'name': 'yolov3', 'width': 0.125, 'depths': (1, 1, 1, 1, 1)}, imgsz=64)\n"
        "recipe = Recipe((Group(('conv1.norm.bias',), 0.0),))\n"
        "facts = open_session(model, 'torch', recipe, Options(), Path(sys.argv[1])).facts()\n"
        "print(json.dumps([checks, facts['threads']]))\n"
    )
    said = {}
    for name, before in (("all", ""), ("one", ONE)):
        done = subprocess.run([sys.executable, "-c", before + code, str(tmp_path)], capture_output=True, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)  # fmt: skip
        [[[level, what]], threads] = json.loads(done.stdout.splitlines()[-1])
        assert (level, what.split()[:2]) == ("ok", [threads, "threads,"])
        said[name] = int(threads)
    assert said == {"all": cores(), "one": 1}
