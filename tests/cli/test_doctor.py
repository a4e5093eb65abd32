"""`portdet doctor` and the versions that it knows."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from portdet import versions
from portdet.cli import doctor
from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.processes.child import run_child
from portdet.session import Check
from tests.patience import GUARD, running, until

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
    answer = "serve(lambda request: {'twice': 2 * request['x']})"
    code = f"from portdet.processes.child import serve\nprint('noise')\n{answer}\n"
    assert run_child(_module(tmp_path, "child_good", code, monkeypatch), {"x": 21}, timeout=GUARD) == {"twice": 42}


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
        run_child(_module(tmp_path, "child_bad", code, monkeypatch), {}, timeout=GUARD)


def test_an_error_for_a_person_arrives_as_it_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from portdet.processes.child import serve\nfrom portdet.errors import PortdetError\n"
        "def work(request): raise PortdetError('no disk', fix='buy one', where='a:1')\nserve(work)\n"
    )
    with pytest.raises(PortdetError) as caught:
        run_child(_module(tmp_path, "child_refuses", code, monkeypatch), {}, timeout=GUARD)
    assert str(caught.value) == "a:1: no disk\n  -> buy one"


def test_a_child_that_hangs_is_ended_with_its_own_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep({2 * GUARD})'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep({2 * GUARD})\n"
    )
    name, pid = _module(tmp_path, "child_hangs", code, monkeypatch), tmp_path / "pid"
    for seconds in (6, 60, 600):  # until it has come so far as to hang
        with pytest.raises(PortdetError, match=f"did not end within {seconds} s"):
            run_child(name, {}, timeout=seconds)
        if pid.is_file() and pid.read_text():
            break
    until(lambda: not running(int(pid.read_text())), "the end of the child's child")


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, time\nfrom portdet.processes.child import serve\n"
        "def work(request):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep({2 * GUARD})\nserve(work)\n"
    )
    name = _module(tmp_path, "child_waits", code, monkeypatch)
    call = (
        f"import sys; sys.path[:] = {sys.path!r}; from portdet.processes.child import run_child; "
        f"run_child({name!r}, {{}}, timeout={2 * GUARD})"
    )
    parent = subprocess.Popen([sys.executable, "-c", call])
    pid = tmp_path / "pid"
    until(lambda: pid.is_file() and pid.read_text(), "the child's number")
    parent.kill()
    parent.wait()
    until(lambda: not running(int(pid.read_text())), "the end of the child")
