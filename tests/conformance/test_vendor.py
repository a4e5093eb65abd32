"""Backends of other packages: one that conforms, and one with a fault, which must fail where it is broken and only
there."""

from __future__ import annotations

from pathlib import Path

import pytest

from portdet.backends import backend_names
from portdet.cli.__main__ import run
from portdet.conformance.job import Conformance
from tests.backends.harness import require
from tests.conformance.vendor_case import install


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    install(tmp_path, monkeypatch)


@pytest.mark.usefixtures("installed")
def test_a_strangers_backend_is_found_and_conforms() -> None:
    assert "acme" in backend_names()
    job = Conformance("acme", device="acme:0", threads=1, sections=["table", "ops", "layers", "steps"])
    rows = job.run()
    assert [(row.key, row.detail) for row in rows if not row.good] == []
    assert [row.key for row in rows if row.outcome == "known"] == ["ops/max_pool2d_2_a gradient"]
    assert job.summary().endswith("1 are declared as known failures")
    assert {row.mode for row in rows} == {"eager", "-"}


@pytest.mark.usefixtures("installed")
def test_a_strangers_backend_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model.width=0.0625", "model.depths=[1,1,1,1,1]", "imgsz=64", "scene_size=64", "train_count=8",
             "val_count=4", "batch=4", "epochs=1", "workers=0"]  # fmt: skip
    folder = tmp_path / "run"
    assert (
        run(["train", "yolov3_scenes", "--backend", "acme", "--device", "acme", "--folder", str(folder), *words]) == 0
    )
    assert (folder / "weights" / "best.safetensors").exists()
    assert (folder / "model_acme.py").read_text().count("class ") > 3
    assert "finished after 1 epochs" in capsys.readouterr().out


FAULTS = {
    "slope": ("ops", {"ops/leaky_relu"}),
    "missing op": ("ops", {"ops/softplus"}),
    "padding": ("layers", {"layers/Conv2d 3x3 stride 2, padded at bottom and right"}),
    "momentum of the norm": ("models", {"models/yolov3: ", "models/ppyolo: "}),
    "decay": ("steps", {"steps/"}),
    "device": ("steps", {"steps/refuses an absent device"}),
    "empty average": ("steps", {"steps/state: "}),
    "late momentum": ("steps", {"steps/"}),
    "stale declaration": ("ops", {"ops/relu"}),
    "loss outside forward": ("ranks", {"ranks/gradient", "ranks/state", "ranks/the same state"}),
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_backend_fails_where_it_is_broken(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", fault)
    section, places = FAULTS[fault]
    rows = Conformance("broken", modes=["eager"], threads=1, sections=[section]).run()
    bad = [row for row in rows if not row.good]
    assert bad
    assert [(row.key, row.detail) for row in bad if not row.key.startswith(tuple(places))] == []
    if fault == "momentum of the norm":
        assert all("running_" in row.key for row in bad)
    if fault in ("empty average", "late momentum"):
        whole = {row.key for row in bad if "whole before anything is loaded" in row.key}
        names = {row.key for row in bad if "names in a new session" in row.key}
        recipes = 4 if fault == "empty average" else 6
        assert (len(whole), len(names)) == (recipes, recipes)
    if fault == "decay":
        assert all(": momentum" in row.key or ": weights" in row.key or ": ema" in row.key for row in bad)
