"""A generated source runs from memory: what lies in its folder, and what becomes of its file, changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.backends.foreign import plant
from tests.backends.harness import below, require, run_child
from tests.patience import GUARD


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_the_text_that_was_written_runs(backend: str, mode: str) -> None:
    require(backend)
    found = run_child("foreign_child.py", backend, mode, timeout=GUARD)
    clean, hostile = below(found, "clean"), below(found, "hostile")
    assert str(found["ran"]) == ""
    assert (bool(clean.pop("changed")), bool(hostile.pop("changed"))) == (False, True)
    assert clean.pop("text"), "inspect does not find the source"
    assert hostile.pop("text"), "inspect reads the file"
    assert len(clean) > 10
    assert [name for name, array in clean.items() if array.tobytes() != hostile[name].tobytes()] == []


def test_what_is_planted_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own import of the folder runs it: the compiled form before the source beside it."""
    plant(tmp_path, tmp_path / "ran", ["model_other"])
    (tmp_path / "model_torch.py").write_text("x = 1\n")
    from tests.backends.foreign import compiled

    compiled(tmp_path / "__pycache__" / "model_torch.cpython-311.pyc", tmp_path / "ran")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("model_torch", "model_other", "portdet_nobody", "usercustomize"):
        with pytest.raises(ImportError):
            __import__(name)
    ran = (tmp_path / "ran").read_text()
    assert "model_torch.cpython-311.pyc" in ran
    assert "model_other/__init__.py" in ran
    assert "usercustomize.py" in ran
