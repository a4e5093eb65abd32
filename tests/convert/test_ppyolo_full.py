"""PP-YOLO of full size: PaddleDetection's tensors through files of every format, and the proof on every backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from portdet import versions
from portdet_convert import command, convert, load_canonical, open_weights
from portdet_convert.files import WRITERS, pdparams
from portdet_convert.files.source import Arrays
from tests import bundles
from tests.bundles import sha
from tests.convert import ppyolo_case

pytestmark = pytest.mark.slow
BUNDLE = "ppdet_ppyolo_r50vd_dcn"


@pytest.fixture(scope="module")
def r50(oracles: Path) -> Arrays:
    """The bundle's 392 tensors under PaddleDetection's names."""
    return bundles.weights(oracles / BUNDLE)


@pytest.fixture
def source(r50: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    pdparams.write("ppyolo.pdparams", r50)
    return Path("ppyolo.pdparams")


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_every_format_holds_what_the_bundle_says(oracles: Path, source: Path, r50: Arrays, form: str) -> None:
    """By the checksums that come with the bundle, under the names in each file; and back, to PaddleDetection's file."""
    report = convert(source, "w", to=form)
    assert (report.naming, len(report.rows), report.skipped) == ("ppdet PP-YOLO", 392, {})
    written, place = open_weights("w").arrays, {row.source: row.target for row in report.rows}
    listed = bundles.listed(oracles / BUNDLE)
    assert {e["name"]: sha(written[place[e["name"]]]) for e in listed} == {e["name"]: e["sha"] for e in listed}
    convert("w", "back.pdparams", names="ppdet")
    back = open_weights("back.pdparams").arrays
    assert {name: sha(array) for name, array in back.items()} == {name: sha(array) for name, array in r50.items()}


@pytest.mark.parametrize("variant", ["r18vd", "v2"])
def test_what_gives_paddledetections_outputs_comes_through(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arrays with which tests/models finds PaddleDetection's own heads and losses, from a converted file."""
    monkeypatch.chdir(tmp_path)
    shapes = ppyolo_case.names(variant)
    pdparams.write("theirs.pdparams", {name: ppyolo_case.value(name, shape) for name, shape in shapes.items()})
    convert("theirs.pdparams", "m.pth", names="miemiedetection")
    detector, want, _ = ppyolo_case.full(variant)
    found, report = load_canonical("m.pth", {n: i.shape for n, i in detector.graph.weights().items()})
    assert (report.naming, len(report.loaded)) == ("miemiedetection PP-YOLO", len(shapes))
    assert {name: a.tobytes() for name, a in found.items()} == {name: a.tobytes() for name, a in want.items()}


def test_the_proof_on_every_installed_backend(source: Path) -> None:
    done = CliRunner().invoke(command.convert, [str(source), "-o", "w.ckpt", "--check", "--report", "r.json"])
    assert done.exit_code == 0, done.exception
    check = json.loads(Path("r.json").read_text())["check"]
    assert (check["passed"], check["model"]) == (True, "ppyolo, variant=r50vd_dcn, classes=80")
    present = [name for name in versions.FRAMEWORKS if versions.framework(name)]
    assert [found["backend"] for found in check["backends"]] == present
    assert all((found["absolute"], found["first"]) == (0.0, "") for found in check["backends"])
