"""Files that are no files, places that cannot be written to: an error, and everything as it was before.

A symlink is followed, for reading and for writing: the link stays a link, and the file that it leads to is replaced as
a whole by renaming, or stays untouched. Its other hard links keep the old content.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from portdet import files
from portdet.cli.__main__ import run
from portdet_convert import open_weights
from portdet_convert.files import safetensors
from portdet_convert.files.source import Arrays
from tests.unprivileged import portdet

FORMATS = ["ckpt", "npz", "pdparams", "pth", "safetensors", "weights"]
Failing = Callable[[list[str], str], None]


def state(folder: Path) -> dict[str, str]:
    """Every entry below a folder: what it is, where it leads, and the hash of its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path.relative_to(folder))] = f"{path.stat().st_mode:o}"
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Arrays) -> Path:
    """A folder with good weights and an old output, and the working directory."""
    monkeypatch.chdir(tmp_path)
    safetensors.write("in", small)
    for form in FORMATS:
        Path(f"out.{form}").write_bytes(b"old")
    return tmp_path


@pytest.fixture
def fails(here: Path, capfd: pytest.CaptureFixture[str]) -> Failing:
    """A command that ends with exit code 1 and an error that fits, and changes nothing."""

    def check(command: list[str], match: str) -> None:
        before = state(here)
        assert run(command) == 1
        out, err = capfd.readouterr()
        assert re.search(match, err), err
        assert "Traceback" not in out + err
        assert state(here) == before

    return check


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("absent", "absent: cannot be read: No such file"), (".", "is not a regular file"), ("empty", "empty: is em"),
        ("pipe", "pipe: is not a regular file"), ("/dev/zero", "/dev/zero: is not a regular file"),
        ("/dev/null", "/dev/null: is not a regular file"), ("/proc/self/status", "status: is empty"),
        ("in/x", "in/x: cannot be read: Not a directory"), ("nowhere", "nowhere: cannot be read: No such file"),
        ("loop", "loop: cannot be read: Too many levels"), ("x" * 300, "cannot be read: File name too long"),
    ],
)  # fmt: skip
def test_what_is_no_file(here: Path, fails: Failing, path: str, what: str) -> None:
    os.mkfifo("pipe")
    Path("empty").touch()
    Path("nowhere").symlink_to("gone")
    Path("loop").symlink_to("loop")
    fails(["convert", path, "-o", "out.pth"], what)
    fails(["weights", "show", path], what)


def test_a_link_is_read(here: Path) -> None:
    Path("link").symlink_to("in")
    assert run(["convert", "link", "-o", "out.pth"]) == 0
    assert Path("link").is_symlink()
    assert sorted(open_weights("out.pth").arrays) == sorted(open_weights("in").arrays)


@pytest.mark.parametrize("form", FORMATS)
def test_a_link_that_is_written_stays_one_and_leads_to_the_whole_new_file(here: Path, form: str) -> None:
    Path("link").symlink_to(f"out.{form}")
    os.link(f"out.{form}", "other")
    to = "darknet" if form == "weights" else form
    assert run(["convert", "in", "-o", "link", "--to", to]) == 0
    assert run(["convert", "in", "-o", "plain", "--to", to]) == 0
    assert os.readlink("link") == f"out.{form}"
    assert Path(f"out.{form}").read_bytes() == Path("plain").read_bytes()
    assert Path("other").read_bytes() == b"old"


def test_a_link_that_is_not_written_leads_to_the_old_file(here: Path, fails: Failing, small: Arrays) -> None:
    Path("link.pth").symlink_to("out.pth")
    small["conv1.norm.weight"][0] = np.nan
    safetensors.write("nan", small)
    Path("cut").write_bytes(Path("in").read_bytes()[:-1])
    fails(["convert", "nan", "-o", "link.pth"], r"nan: tensor 'conv1\.norm\.weight' is nan at \(0,\)")
    fails(["convert", "cut", "-o", "link.pth"], r"cut, byte \d+: tensor '.*' needs")


def test_links_that_lead_nowhere(here: Path) -> None:
    Path("dangling.pth").symlink_to("new.pth")
    Path("loop.pth").symlink_to("loop.pth")
    assert run(["convert", "in", "-o", "dangling.pth"]) == 0
    assert os.readlink("dangling.pth") == "new.pth"
    assert run(["convert", "in", "-o", "loop.pth"]) == 0
    assert Path("new.pth").read_bytes() == Path("loop.pth").read_bytes()


def test_an_output_that_is_no_file(here: Path, fails: Failing) -> None:
    os.mkfifo("pipe.pth")
    Path("folder.pth").mkdir()
    Path("null.pth").symlink_to("/dev/null")
    device = os.stat("/dev/null").st_mode
    fails(["convert", "in", "-o", "folder.pth"], "folder.pth: is a folder")
    fails(["convert", "in", "-o", "pipe.pth"], "pipe.pth: is no regular file")
    fails(["convert", "in", "-o", "null.pth"], "null.pth: is no regular file")
    fails(["convert", "in", "-o", "/dev/null", "--to", "pth"], "/dev/null: is no regular file")
    assert os.stat("/dev/null").st_mode == device
    fails(["convert", "in", "-o", "in/x.pth"], "in/x.pth: cannot be written: (Not a directory|File exists)")
    fails(["convert", "in", "-o", "x" * 300 + ".pth"], "cannot be written: File name too long")
    fails(["convert", "in", "-o", "/proc/x.pth"], "/proc/x.pth: cannot be written")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("step", ["open", "sync", "rename"])
def test_each_step_of_writing_may_fail(
    here: Path, fails: Failing, monkeypatch: pytest.MonkeyPatch, form: str, number: int, step: str
) -> None:
    real = Path.open

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    def open_(path: Path, mode: str = "r", *args: object) -> object:
        if mode in ("wb", "w+b"):
            fail()
        return real(path, mode)

    if step == "open":
        monkeypatch.setattr(Path, "open", open_)
    elif step == "sync":
        monkeypatch.setattr(files, "sync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    fails(["convert", "in", "-o", f"out.{form}"], f"out.{form}: cannot be written: {os.strerror(number)}")


@pytest.mark.parametrize("target", ["out.pth", "locked/out.pth", "locked/new/out.pth"])
def test_a_folder_without_rights(tmp_path: Path, small: Arrays, target: str) -> None:
    safetensors.write(tmp_path / "in", small)
    (tmp_path / "in").chmod(0o444)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "out.pth").write_bytes(b"old")
    (tmp_path / "out.pth").write_bytes(b"old")
    before = state(tmp_path)
    for folder in (tmp_path / "locked", tmp_path):
        folder.chmod(0o555)
    done = portdet(tmp_path, "convert", "in", "-o", target)
    for folder in (tmp_path, tmp_path / "locked"):
        folder.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith(f"error: {target}: cannot be written: Permission denied")
    assert "Traceback" not in done.stderr
    assert state(tmp_path) == before
