"""What killed processes leave is removed by the next run, and nothing else; and the modes that files get."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from portdet import tensors
from portdet.align.compare import DumpWriter
from portdet.errors import PortdetError
from portdet.files import replacing, sweep, write_text
from portdet.processes import scratch
from portdet.processes.alone import alone_in
from portdet.processes.watch import state
from portdet.report import draw, plots
from portdet.train.journal import Journal
from portdet_convert.files import ckpt, darknet, npz, pdparams, pth, safetensors
from tests.life.processes import began, start
from tests.patience import until

WRITES = """
import sys, time
from pathlib import Path
from portdet.files import replacing
from portdet.processes.scratch import scratch
folder = Path(sys.argv[1])
with replacing(folder / "weights" / "last.safetensors") as temporary, scratch() as place:
    temporary.write_bytes(b"half of it")
    (place / "answer.json").write_text("{}")
    (place / "deep").mkdir()
    (place / "deep" / "a").write_text("")
    (folder / "began").write_text(f"{temporary}\\n{place}")
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def system_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the system's that other tests know nothing of."""
    place = tmp_path_factory.mktemp("system")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path, system_folder: Path) -> None:
    (tmp_path / "weights").mkdir()
    said: list[str] = []
    with start(WRITES, tmp_path, pass_env={"TMPDIR": str(system_folder)}) as process:
        began(process, tmp_path / "began")
        temporary, place = map(Path, (tmp_path / "began").read_text().split())
        with alone_in(tmp_path, said.append):
            assert (temporary.exists(), place.exists(), said) == (True, True, [])
        process.send_signal(signal.SIGSTOP)  # stopped is not dead
        with alone_in(tmp_path, said.append):
            assert (temporary.exists(), place.exists(), said) == (True, True, [])
        process.kill()
        until(lambda: state(process.pid) == "dead", "dead")  # a zombie: nobody has waited for it
        with alone_in(tmp_path, said.append):
            assert (temporary.exists(), place.exists()) == (False, False)
    assert said == [
        f"removed 1 temporary file that killed runs left in {tmp_path}",
        f"removed 1 temporary folder that killed runs left in {system_folder}",
    ]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["began", "weights"]
    assert list(system_folder.iterdir()) == []


def test_files_of_other_programs_stay(tmp_path: Path) -> None:
    """Names that look alike, links, folders, pipes; and a file with a fitting name that somebody has open."""
    stays = ["last.123.safetensors", ".last.safetensors", ".last.x12.safetensors", ".tmpABC", ".tmpABCDEFG", ".hidden"]
    goes = [".last.123.safetensors", ".steps.77.csv", ".best.123-4.safetensors", ".tmpAb12Cd"]
    for name in [*stays, *goes]:
        (tmp_path / name).write_text("")
    (tmp_path / ".dir.12.csv").mkdir()
    os.mkfifo(tmp_path / ".pipe.12.csv")
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / ".link.12.csv").symlink_to(target)
    opened = tmp_path / ".open.12.csv"
    opened.write_text("")
    with start("import sys, time; f = open(sys.argv[1]); print(flush=True); time.sleep(600)", opened) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert sweep(tmp_path) == len(goes)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*stays, ".dir.12.csv", ".pipe.12.csv", "target", ".link.12.csv", ".open.12.csv"}
    assert target.read_text() == "mine"


def test_folders_that_only_look_like_ours_stay(system_folder: Path, tmp_path: Path) -> None:
    for name in ("portdet-mine", "portdet-link", "portdet-dir"):
        (system_folder / name).mkdir()
        (system_folder / name / "work").write_text("")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / scratch.MARK).write_text("")
    (system_folder / "portdet-linked").symlink_to(elsewhere)
    (system_folder / "portdet-link" / scratch.MARK).symlink_to(elsewhere / scratch.MARK)
    (system_folder / "portdet-dir" / scratch.MARK).mkdir()
    (system_folder / "other").mkdir()
    (system_folder / "other" / scratch.MARK).write_text("")
    before = sorted(system_folder.rglob("*"))
    assert scratch.sweep() == 0
    assert sorted(system_folder.rglob("*")) == before
    assert (elsewhere / scratch.MARK).exists()
    (system_folder / "portdet-mine" / scratch.MARK).write_text("")
    assert scratch.sweep() == 1, "the mark is what counts"


def test_links_in_an_abandoned_folder_are_not_followed(system_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    place = system_folder / "portdet-x"
    place.mkdir()
    (place / scratch.MARK).write_text("")
    (place / "out").symlink_to(tmp_path)
    (place / "file").symlink_to(tmp_path / "kept")
    assert scratch.sweep() == 1
    assert (tmp_path / "kept").exists()


def test_a_scratch_folder_is_private_and_ends_with_its_block() -> None:
    with scratch.scratch() as place:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        (place / "deep" / "deeper").mkdir(parents=True)
        assert scratch.sweep() == 0
    assert not place.exists()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
        assert sweep(tmp_path) == 0
    assert path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_temporary_file_of_a_dead_process_with_our_number_is_no_obstacle(tmp_path: Path) -> None:
    left = tmp_path / f".a.{os.getpid()}.txt"
    left.write_text("half of it, by the one before us in this container")
    write_text(tmp_path / "a.txt", "whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def _journal(folder: Path) -> None:
    journal = Journal(folder / "steps.csv")
    journal.add({"step": 1})
    journal.flush()


def _dump(folder: Path) -> None:
    with DumpWriter(folder / "dump.safetensors") as dump:
        dump.put("a", np.zeros(3))


ARRAYS = {"a.weight": np.ones((2, 3), np.float32)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda folder: write_text(folder / "a.txt", "x"),
    "tensors": lambda folder: tensors.write(folder / "a.safetensors", ARRAYS),
    "journal": _journal,
    "dump": _dump,
    "jpeg": lambda folder: draw.save(folder / "a.jpg", np.zeros((4, 4, 3), np.uint8)),
    "plot": lambda folder: plots.results(folder / "a.png", [{"epoch": 1.0, "loss": 2.0}]),
    "npz": lambda folder: npz.write(folder / "a.npz", ARRAYS),
    "pth": lambda folder: pth.write(folder / "a.pth", ARRAYS),
    "ckpt": lambda folder: ckpt.write(folder / "a.ckpt", ARRAYS),
    "pdparams": lambda folder: pdparams.write(folder / "a.pdparams", ARRAYS),
    "safetensors": lambda folder: safetensors.write(folder / "b.safetensors", ARRAYS),
    "darknet": lambda folder: darknet.write(folder / "a.weights", {}, []),
}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_umask_decides_the_mode(tmp_path: Path, writer: str, umask: int) -> None:
    """Of a new file, and of one that takes the place of another with another mode."""
    before = os.umask(umask)
    try:
        for _ in range(2):
            WRITERS[writer](tmp_path)
            (path,) = tmp_path.iterdir()
            assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(0o666 & ~umask)
            path.chmod(0o640)
            if writer == "journal":  # a file that grows stays the one it was
                return
    finally:
        os.umask(before)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4"])
def test_the_safetensors_package_reads_what_is_written(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        name: (rng.standard_normal(shape) * 50).astype(dtype)
        for name, shape in {"b": (3, 5), "a": (), "empty": (0, 4), "z\u00e9\n": (7,)}.items()
    }
    arrays["a transposed one"] = arrays["b"].T
    arrays["wide"] = np.arange(3.0)
    tensors.write(tmp_path / "a.safetensors", arrays, {"about": "\u00fc"})
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(PortdetError, match="cannot hold complex128"):
        tensors.write(tmp_path / "b.safetensors", {"a": np.zeros(2, complex)})
    assert not (tmp_path / "b.safetensors").exists()
