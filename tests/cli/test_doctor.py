"""`portdet doctor` and the versions that it knows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from portdet import versions
from portdet.child import run_child
from portdet.cli import doctor
from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.session import Check

ROOT = Path(__file__).parents[2]


def test_known_versions_are_those_of_constraints_txt() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert versions.known_good() == dict(pins)
    assert versions.known_good()["numpy"].startswith("1.")


def test_every_library_and_framework_has_a_tested_version_and_ships_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {word.split("<")[0].split(">")[0] for word in project["project"]["dependencies"]}
    assert needed == set(versions.LIBRARIES)
    assert needed | {names[0] for names in versions.FRAMEWORKS.values()} <= set(versions.known_good())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["constraints.txt"]


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        (None, "fail", "numpy is not installed"),
        ("2.2.6", "fail", "numpy 2.2.6"),
        ("1.25.0", "warn", "numpy 1.25.0; tested with 1.26.4"),
        ("1.26.4", "ok", "numpy 1.26.4"),
    ],
)
def test_versions_are_judged(found: str | None, level: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda name: found)
    (check,) = versions.compare(["numpy"])
    assert (check.level, check.what) == (level, text)


def test_torch_is_found_usable_and_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--backend", "torch", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["portdet", "torch"]
    assert any("device cpu: usable" in check["what"] for check in report["torch"])
    assert all(check["level"] != "fail" for check in report["torch"])


def test_exit_code_says_whether_any_backend_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = [Check("warn", "slow", "do this")], [Check("ok", "there"), Check("fail", "broken", "mend it")]
    monkeypatch.setattr(doctor, "examine", lambda name: good if name == "torch" else bad)
    assert run(["doctor"]) == 0
    assert "mindspore\n  ok   there\n  FAIL broken\n       -> mend it" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda name: bad)
    assert run(["doctor"]) == 1


def test_a_missing_framework_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda name: None)
    assert doctor.examine("paddle") == [Check("fail", "paddlepaddle is not installed", "pip install 'portdet[paddle]'")]


def _module(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return name


def test_a_child_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from portdet.child import serve\nprint('noise')\nserve(lambda request: {'twice': 2 * request['x']})\n"
    assert run_child(_module(tmp_path, "child_good", code, monkeypatch), {"x": 21}, timeout=60) == {"twice": 42}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os, signal; print('about to', flush=True); os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise ValueError('bad wheel')", "ended with code 1; it printed last"),
        ("print('done without an answer')", "ended with code 0"),
    ],
)
def test_a_child_that_dies_is_an_error_that_shows_its_words(
    code: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PortdetError, match=text):
        run_child(_module(tmp_path, "child_bad", code, monkeypatch), {}, timeout=60)


def test_an_error_for_a_person_arrives_as_it_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from portdet.child import serve\nfrom portdet.errors import PortdetError\n"
        "def work(request): raise PortdetError('no disk', fix='buy one', where='a:1')\nserve(work)\n"
    )
    with pytest.raises(PortdetError) as caught:
        run_child(_module(tmp_path, "child_refuses", code, monkeypatch), {}, timeout=60)
    assert str(caught.value) == "a:1: no disk\n  -> buy one"


def test_a_child_that_hangs_is_ended_with_its_own_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(60)\n"
    )
    start = time.monotonic()
    with pytest.raises(PortdetError, match="did not end within 6 s"):
        run_child(_module(tmp_path, "child_hangs", code, monkeypatch), {}, timeout=6)
    assert time.monotonic() - start < 30
    assert _within(10, lambda: _gone(int((tmp_path / "pid").read_text())))


def _gone(pid: int) -> bool:
    """Ended, or dead and not yet collected by its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, time\nfrom portdet.child import serve\n"
        "def work(request):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(120)\nserve(work)\n"
    )
    name = _module(tmp_path, "child_waits", code, monkeypatch)
    call = (
        f"import sys; sys.path[:] = {sys.path!r}; from portdet.child import run_child; "
        f"run_child({name!r}, {{}}, timeout=120)"
    )
    parent = subprocess.Popen([sys.executable, "-c", call])
    pid = tmp_path / "pid"
    assert _within(60, lambda: pid.is_file() and pid.read_text() != "")
    parent.kill()
    parent.wait()
    assert _within(30, lambda: _gone(int(pid.read_text())))


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()
