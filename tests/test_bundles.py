"""The numbers of other programs come with the repository, whole, readable and small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import bundles

ROOT = Path(__file__).parents[1]
BUNDLES = {"darknet_yolov3_thin8", "msmodels_yolov3", "nms", "ppdet_ppyolo_r50vd_dcn", "ppdet_ppyolo_tiny_pdparams"}


def test_every_bundle_is_there_and_told_of(oracles: Path) -> None:
    assert {path.name for path in oracles.iterdir() if path.is_dir()} == BUNDLES
    notes = (oracles / "README.md").read_text(encoding="utf-8")
    assert {name for name in BUNDLES if f"| `{name}` |" not in notes} == set()


def test_all_that_other_programs_gave_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "tests").rglob("*") if path.is_file()}
    data = {path: size for path, size in sizes.items() if path.suffix in (".npz", ".xz", ".jpg", ".json")}
    assert len(data) > 20
    assert sum(data.values()) < 20_000_000


def test_a_changed_weight_is_found(oracles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    text = (oracles / "msmodels_yolov3/weights.json").read_text(encoding="utf-8")
    (bundle / "buffers.npz").write_bytes((oracles / "msmodels_yolov3/buffers.npz").read_bytes())
    name = "yolo_network.feature_map.backbone.conv0.0.weight"
    (bundle / "weights.json").write_text(text)
    assert set(bundles.weights(bundle, name)) == {name}
    (bundle / "weights.json").write_text(text.replace('"std":0.2721655269759087', '"std":0.2721656', 1))
    with pytest.raises(AssertionError, match=r"conv0\.0\.weight"):
        bundles.weights(bundle, name)


def test_thinned_places_see_every_channel_row_and_column() -> None:
    for shape in ((2, 4, 128, 128), (2, 255, 16, 16), (128, 64, 9), (2, 2048, 4, 4)):
        for axis, size in enumerate(shape):
            places = np.broadcast_to(np.expand_dims(np.arange(size), tuple(range(1, len(shape) - axis))), shape)
            assert len(np.unique(places.reshape(-1)[:: bundles.THIN])) == size
    whole = np.arange(30.0).reshape(2, 15)
    kept = whole.reshape(-1)[:: bundles.THIN]
    bundles.near(whole, kept, 0.0)
    bundles.near(whole[:1], bundles.first(whole[:1], kept), 0.0)
    with pytest.raises(AssertionError):
        bundles.near(whole + 0.1, kept, 1e-3)
    with pytest.raises(AssertionError, match="is not what"):
        bundles.near(whole[:, :9], kept, 1.0)
