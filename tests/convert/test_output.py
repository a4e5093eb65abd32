"""Output is whole or absent, whatever goes wrong, and what was there before stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert
from portdet_convert.files import WRITERS, darknet, safetensors
from portdet_convert.files.output import replacing
from portdet_convert.files.source import Arrays


def write(form: str, path: Path, arrays: Arrays) -> None:
    if form == "darknet":
        darknet.write(path, arrays, [darknet.Conv(name, 1, 1, 1, norm=False) for name in ("first", "last")])
    else:
        WRITERS[form](path, arrays)


@pytest.mark.parametrize("form", [*sorted(WRITERS), "darknet"])
def test_a_tensor_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")
    arrays: Arrays = {
        f"{unit}.{leaf}": np.ones(1, np.float32) for unit in ("first", "last") for leaf in ("bias", "weight")
    }
    arrays["first.weight"] = np.ones((1, 1, 1, 1), np.float32)
    arrays["last.weight"] = np.array([{}])  # the last: by then most is written
    with pytest.raises(PortdetError, match=r"'last\.weight'"):
        write(form, path, arrays)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w"]


@pytest.mark.parametrize("form", ["ckpt", "npz", "pdparams", "pth", "safetensors", "weights"])
def test_a_full_disk(tmp_path: Path, small: Arrays, form: str) -> None:
    """The kernel refuses to write more than 6000 bytes to a file, as a full disk does in the middle of one."""
    safetensors.write(tmp_path / "in", small)
    (tmp_path / f"out.{form}").write_bytes(b"old")
    script = f"""
import resource, signal
from portdet_convert import convert
from portdet.errors import PortdetError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try:
    convert('in', 'out.{form}')
except PortdetError as error:
    print(error)
"""
    paths = [str(Path(__file__).parents[2] / name) for name in (".", "weights_convert")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert f"out.{form}: cannot be written: File too large" in done.stdout
    assert (tmp_path / f"out.{form}").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["in", f"out.{form}"]


def test_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"old")

    def interrupted() -> None:
        with replacing(tmp_path / "w") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "w").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, small: Arrays) -> None:
    safetensors.write(tmp_path / "in", small)
    for target in ("/proc/portdet.pth", tmp_path / "in" / "x.pth"):
        with pytest.raises(PortdetError, match="cannot be written"):
            convert(tmp_path / "in", target)
    with pytest.raises(PortdetError, match="is a folder"):
        convert(tmp_path / "in", tmp_path, to="pth")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        safetensors.write(tmp_path / "w", {"a": np.ones(2, np.float32)})
    finally:
        os.umask(old)
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("form", [*sorted(WRITERS), "darknet"])
def test_the_same_weights_give_the_same_file(tmp_path: Path, small: Arrays, form: str) -> None:
    """No dates, no paths in the file: checksums of files can be compared."""
    safetensors.write(tmp_path / "in", small)
    convert(tmp_path / "in", tmp_path / "a", to=form)
    convert(tmp_path / "a", tmp_path / "b", to=form, depths=(1, 1, 2, 1, 1), channels=(2, 4, 4, 6, 8, 8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
