"""Backends of other packages, as pip leaves them."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from portdet.align.ladder import shown

ACME = Path(__file__).with_name("acme")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """portdet-acme and the broken one as `pip install` leaves them: modules, and entry points beside them."""
    shutil.copytree(ACME / "portdet_acme", folder / "portdet_acme")
    shutil.copy(ACME / "portdet_broken.py", folder)
    project = tomllib.loads((ACME / "pyproject.toml").read_text())["project"]
    points = {**project["entry-points"]["portdet.backends"], "broken": "portdet_broken:BACKEND"}
    info = folder / f"portdet_acme-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[portdet.backends]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    for name in ("portdet_acme", "portdet_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `broken` be broken so, also in children that the ladder starts with the environment it was started in."""
    monkeypatch.setenv("FAULT", fault)
    monkeypatch.setitem(shown.ENVIRONMENT, "FAULT", fault)
