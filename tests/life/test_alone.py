"""A run's folder belongs to one living process, and stays where it is while that one writes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet import tensors
from portdet.errors import PortdetError
from portdet.files import replacing, write_text
from portdet.processes import alone, child, guard
from portdet.processes.alone import LOCK, alone_in
from portdet.processes.watch import state
from portdet.report import draw
from portdet.train.journal import Journal
from tests.life.processes import began, start
from tests.patience import GUARD, ROOT, until

HOLDS = """
import multiprocessing, subprocess, sys, time
from pathlib import Path
from portdet.processes.alone import alone_in
from tests.life.processes import waiting
if __name__ == "__main__":
    with alone_in(Path(sys.argv[1])):
        worker = multiprocessing.get_context("spawn").Process(target=waiting, args=(sys.argv[1] + "/worker",))
        worker.start()
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        while not Path(sys.argv[1], "worker").exists():
            time.sleep(0.05)
        Path(sys.argv[1], "pids").write_text(f"{worker.pid} {other.pid}")
        Path(sys.argv[1], "began").write_text("")
        time.sleep(600)
"""


def test_the_second_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with start(HOLDS, tmp_path) as holder:
        began(holder, tmp_path / "began")
        with pytest.raises(PortdetError) as refused, alone_in(tmp_path):
            pass
        assert f"in use by process {holder.pid} on " in refused.value.what
        assert "time.sleep(600)" not in refused.value.what, "a command line is cut"
        assert "-c" in refused.value.what
        assert f"kill {holder.pid}" in refused.value.fix
        assert (tmp_path / LOCK).exists()


def test_a_killed_holder_holds_nothing_even_if_its_children_live(tmp_path: Path) -> None:
    with start(HOLDS, tmp_path) as holder:
        began(holder, tmp_path / "began")
        children = [int(word) for word in (tmp_path / "pids").read_text().split()]
        try:
            holder.kill()  # not waited for: it may be a zombie, which holds nothing either
            until(lambda: state(holder.pid) == "dead", "dead")
            assert [state(pid) for pid in children] == ["asleep"] * 2
            with alone_in(tmp_path):
                assert (tmp_path / LOCK).exists()
            assert not (tmp_path / LOCK).exists()
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


def test_one_after_another(tmp_path: Path) -> None:
    for _ in range(3):
        with alone_in(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [LOCK]
            with pytest.raises(PortdetError, match=f"process {os.getpid()} "), alone_in(tmp_path):
                pass
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_are_never_two(tmp_path: Path) -> None:
    """Eight processes take the folder and let it go, again and again; a file that two wrote at once would show it."""
    script = """
import sys
from pathlib import Path
from portdet.processes.alone import alone_in
from portdet.errors import PortdetError
taken = 0
while taken < 20:
    try:
        with alone_in(Path(sys.argv[1])):
            inside = Path(sys.argv[1], "inside")
            inside.touch(exist_ok=False)
            inside.unlink()
            taken += 1
    except PortdetError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT) for _ in range(8)]
    assert [process.wait(GUARD) for process in processes] == [0] * 8


@pytest.mark.parametrize("stale", [True, False])
def test_who_has_just_come_is_named_and_not_who_was_there_before(tmp_path: Path, stale: bool) -> None:
    """Between the lock and the words in it there is a moment, in which a killed holder's words may still be there."""
    with start("print(flush=True)") as ended:
        ended.wait(GUARD)
    words = {"host": socket.gethostname(), "command": "portdet", "since": "now"}
    with (tmp_path / LOCK).open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if stale:
            file.write(json.dumps({"pid": ended.pid, **words}))
            file.flush()

        def describe() -> None:
            file.truncate(0)
            os.pwrite(file.fileno(), json.dumps({"pid": os.getpid(), **words}).encode(), 0)

        later = threading.Timer(0.5, describe)
        later.start()
        with pytest.raises(PortdetError, match=f"is in use by process {os.getpid()} on "), alone_in(tmp_path):
            pass
        later.join()


def test_a_folder_that_is_let_go_meanwhile_is_taken(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        later = threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN))
        later.start()
        with alone_in(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
        later.join()


@pytest.mark.parametrize(
    "left",
    [
        "",
        "{}",
        '{"pid": 1}',
        '{"pid": -1, "host": "a", "command": "b", "since": "c"}',
        "\x1b[31m",
        "[" * 4000,
        "x" * 100_000,
        "\0",
    ],
)
def test_what_a_lock_file_says_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.setattr(alone, "NAMING", 0.1)
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(left)
        file.flush()
        with pytest.raises(PortdetError, match="is in use by another process") as refused, alone_in(tmp_path):
            pass
        assert str(refused.value).replace("\n", "").isprintable()
    with alone_in(tmp_path):  # nobody holds it: what it says does not matter
        pass


@pytest.mark.parametrize("kind", ["symlink", "folder", "pipe"])
def test_a_lock_that_is_no_file_is_not_followed(tmp_path: Path, kind: str) -> None:
    place, outside = tmp_path / "run", tmp_path / "outside"
    place.mkdir()
    {
        "symlink": lambda path: path.symlink_to(outside),
        "folder": Path.mkdir,
        "pipe": os.mkfifo,
    }[kind](place / LOCK)
    with pytest.raises(PortdetError, match=r"cannot be locked|no regular file"), alone_in(place):
        pass
    assert not outside.exists()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    said: list[str] = []
    left = tmp_path / ".last.1.safetensors"
    left.touch()
    with alone_in(tmp_path, said.append):
        pass
    assert any("file system without locks" in line for line in said)
    assert left.exists(), "nobody can know whether it is held"


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _replaced(folder: Path) -> None:
    _moved(folder)
    folder.mkdir()


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def _a_link(folder: Path) -> None:
    _moved(folder)
    folder.symlink_to(folder.parent)


GONE: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree, "moved": _moved, "replaced": _replaced, "emptied": _emptied, "a file": _a_file,
    "a link": _a_link,
}  # fmt: skip


def _journal(folder: Path) -> None:
    journal = Journal(folder / "steps.csv")
    journal.add({"step": 1})
    journal.flush()


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda folder: write_text(folder / "a" / "args.yaml", "x"),
    "tensors": lambda folder: tensors.write(folder / "weights" / "last.safetensors", {"a": np.zeros(3)}),
    "journal": _journal,
    "picture": lambda folder: draw.save(folder / "picture.jpg", np.zeros((4, 4, 3), np.uint8)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("how", GONE)
def test_nothing_is_written_where_the_folder_has_gone(tmp_path: Path, how: str, writer: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with alone_in(folder):
        WRITERS[writer](folder)
        shutil.rmtree(folder / "a", ignore_errors=True)
        shutil.rmtree(folder / "weights", ignore_errors=True)
        WRITERS[writer](folder)  # a folder below that is missing is made
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink() if path.name != LOCK else None
        GONE[how](folder)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(PortdetError, match="deleted, moved or replaced"):
            WRITERS[writer](folder)
        assert sorted(tmp_path.rglob("*")) == before
    guard.check(folder)  # no longer anybody's concern


def test_a_folder_that_goes_while_a_file_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writing = replacing(folder / "steps.csv")
    with alone_in(folder):
        writing.__enter__()
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir()
        with pytest.raises(PortdetError, match="deleted, moved or replaced"):
            writing.__exit__(None, None, None)
    assert list(folder.iterdir()) == []


def test_child_processes_watch_their_parents_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    module = "tests.life.writing_child"
    with alone_in(folder):
        assert child.run_child(module, {"folder": str(folder), "gone": False}, timeout=GUARD) == "written"
        with pytest.raises(PortdetError, match="deleted, moved or replaced"):
            child.run_child(module, {"folder": str(folder), "gone": True}, timeout=GUARD)
    assert not folder.exists()


def test_the_clock_of_a_lock_is_the_machines(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        assert time.strftime("%Y-%m-%d") in (tmp_path / LOCK).read_text()
