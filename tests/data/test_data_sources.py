"""Reading COCO and Pascal VOC: real files against counts made here, and faults planted in small ones."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from portdet.config import DataConfig
from portdet.data import Finding, open_datasets
from portdet.data.coco import read_coco
from portdet.data.describe import describe
from portdet.data.voc import convert_voc, read_voc, splits
from portdet.errors import PortdetError

BCCD, NUCLEI = (Path(__file__).parents[1] / "photographs" / name for name in ("bccd", "nuclei"))
COUNTED = {  # by hand, in the XML files: images, then boxes of Platelets, RBC and WBC that have an area
    "train": (5, 7, 13, 5), "val": (3, 1, 15, 3), "trainval": (8, 8, 28, 8), "test": (4, 3, 8, 4),
}  # fmt: skip
EMPTY = {"train": ["BloodImage_00343.jpg"], "val": ["BloodImage_00338.jpg"]}


def walk(stems: list[str]) -> list[tuple[str, str, int, int, int, int]]:
    """Every object of the files: stem, name, xmin, ymin, xmax, ymax."""
    out = []
    for stem in stems:
        for element in ElementTree.parse(BCCD / "Annotations" / f"{stem}.xml").iter("object"):
            box = {child.tag: int(child.text or "") for child in element.iter() if child.tag[1:] in ("min", "max")}
            name = element.find("name")
            assert name is not None
            out.append((stem, str(name.text), box["xmin"], box["ymin"], box["xmax"], box["ymax"]))
    return out


@pytest.mark.parametrize("split", list(COUNTED))
def test_bccd_is_counted_as_found(split: str) -> None:
    data = read_voc(BCCD, f"ImageSets/Main/{split}.txt", train=False)
    counts = np.bincount(np.concatenate([record.labels for record in data.records]), minlength=3)
    assert (len(data), *counts) == COUNTED[split]
    if split in EMPTY:
        assert data.report.places[Finding.NO_AREA] == EMPTY[split]
    stems = (BCCD / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    objects = walk(stems)
    empty = [o for o in objects if o[4] <= o[2] or o[5] <= o[3]]
    assert data.names == ("Platelets", "RBC", "WBC")
    assert sum(len(r.labels) for r in data.records) == len(objects) - len(empty)
    assert data.report[Finding.NO_AREA] == len(empty)
    assert [f"{o[0]}.jpg" for o in empty] == data.report.places.get(Finding.NO_AREA, [])
    assert set(data.report.counts) <= {Finding.NO_AREA}  # nothing else is wrong with the boxes or sizes of BCCD
    good = [o for o in objects if o not in empty]
    boxes = np.concatenate([r.boxes for r in data.records])
    np.testing.assert_array_equal(boxes, [(x1 - 1, y1 - 1, x2, y2) for _, _, x1, y1, x2, y2 in good])
    found = [data.names[label] for r in data.records for label in r.labels]
    assert found == [o[1] for o in good]


@pytest.mark.parametrize(("split", "image"), [("train", "00343"), ("val", "00338")])
def test_bccd_box_without_area_stops_under_policy_error(split: str, image: str) -> None:
    with pytest.raises(PortdetError, match=rf"BloodImage_{image}\.jpg: box \d+ .* no area"):
        read_voc(BCCD, f"ImageSets/Main/{split}.txt", train=False, bad_box="error")


@pytest.mark.parametrize("split", ["train", "test"])
def test_converted_voc_is_the_same_data(split: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / f"{split}.json"
    report = convert_voc(BCCD, f"ImageSets/Main/{split}.txt", out)
    direct = read_voc(BCCD, f"ImageSets/Main/{split}.txt", train=True)
    converted = read_coco(out, BCCD / "JPEGImages", train=True)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert report[Finding.NO_AREA] == direct.report[Finding.NO_AREA]
    assert (direct.names, direct.category_ids) == (converted.names, converted.category_ids)
    assert len(direct) == len(converted)
    for a, b in zip(direct.records, converted.records, strict=True):
        assert (a.image_id, a.name, a.width, a.height) == (b.image_id, b.name, b.width, b.height)
        for key in ("xywh", "labels", "crowd", "areas", "annotation_ids"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
    np.testing.assert_array_equal(direct.read(direct.records[3]), converted.read(converted.records[3]))


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    voc(tmp_path / "voc", thing("dog", 1, 1, 9, 9))
    out = tmp_path / "out"
    (out / "train.json").mkdir(parents=True)  # cannot be replaced by a file
    with pytest.raises(PortdetError, match="cannot write: Is a directory"):
        convert_voc(tmp_path / "voc", "ImageSets/Main/train.txt", out / "train.json")
    assert [p.name for p in out.iterdir()] == ["train.json"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_ground_truth_is_the_file(split: str) -> None:
    path = NUCLEI / "annotations" / f"instances_{split}.json"
    file = json.loads(path.read_text())
    data = read_coco(path, NUCLEI / "images", train=False)
    truth = data.coco_ground_truth(masks=True)
    wanted = {a["id"]: a for a in file["annotations"]}
    assert len(truth["annotations"]) == len(wanted)
    for annotation in truth["annotations"]:
        assert {k: wanted[annotation["id"]][k] for k in annotation} == annotation
    assert {i["id"] for i in truth["images"]} == {i["id"] for i in file["images"]}


def test_masks_of_real_data_lie_in_their_boxes() -> None:
    data = read_coco(NUCLEI / "annotations" / "instances_val.json", NUCLEI / "images", train=False)
    for record in data.records:
        masks = data.masks(record)
        assert masks.shape == (len(record.labels), record.height, record.width)
        for mask, (x1, y1, x2, y2), area in zip(masks, record.boxes, record.areas, strict=True):
            ys, xs = np.nonzero(mask)
            np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x1, y1, x2, y2], atol=2.5)
            assert mask.sum() == pytest.approx(area, rel=0.05)


def coco(folder: Path, boxes: list[list[float]], **changes: Any) -> Path:
    """A file with one 40x30 image, category ids 7 and 3, and the given boxes."""
    Pillow.new("RGB", (40, 30), (10, 20, 30)).save(folder / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        "annotations": [{"id": i + 1, "image_id": 5, "category_id": 7, "bbox": b} for i, b in enumerate(boxes)],
    }
    path = folder / "ann.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_category_ids_become_labels_in_sorted_order(tmp_path: Path) -> None:
    data = read_coco(coco(tmp_path, [[1, 2, 3, 4]]), tmp_path, train=True)
    assert (data.names, data.category_ids) == (("three", "seven"), (3, 7))
    assert data.records[0].labels.tolist() == [1]
    assert data.records[0].boxes.tolist() == [[1, 2, 4, 6]]
    assert data.coco_ground_truth()["annotations"][0]["category_id"] == 7


def test_bad_boxes_are_clipped_and_counted(tmp_path: Path) -> None:
    boxes: list[list[float]] = [[-5, 3, 10, 10], [30, 20, 30.0, 5], [3, 3, 0, 9], [50, 3, 9, 9], [35, 3, 5.01, 9]]
    data = read_coco(coco(tmp_path, boxes), tmp_path, train=True)
    assert data.records[0].boxes.tolist() == [
        [0, 3, 5, 13],
        [30, 20, 40, 25],
        np.array([35, 3, 40.01, 12], np.float32).tolist(),
    ]
    assert data.records[0].annotation_ids.tolist() == [1, 2, 5]
    counts = data.report.counts
    assert (counts[Finding.CLIPPED], counts[Finding.NO_AREA], counts[Finding.OUTSIDE]) == (2, 1, 1)
    assert "2 boxes reached outside their image and were clipped (a.png)" in data.report.lines()


@pytest.mark.parametrize(
    ("box", "shown"),
    [([-5, 3, 10, 10], "x -5, y 3"), ([3, 3, 0, 9], "width 0"), ([3, 3, float("nan"), 9], "width nan")],
)
def test_bad_box_stops_under_policy_error(box: list[float], shown: str, tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match=rf"a\.png: box 1 \(.*{shown}"):
        read_coco(coco(tmp_path, [[1, 1, 9, 9], box]), tmp_path, train=True, bad_box="error")


def test_crowd_and_small_boxes_in_training(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 9, 9]},
        {"id": 3, "image_id": 6, "category_id": 7, "bbox": [0, 0, 1, 9]},
        {"id": 4, "image_id": 8, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    images = [{"id": i, "file_name": "a.png", "width": 40, "height": 30} for i in (8, 5, 6, 7)]
    path = coco(tmp_path, [], annotations=annotations, images=images)
    train = read_coco(path, tmp_path, train=True)
    assert [(r.image_id, r.annotation_ids.tolist()) for r in train.records] == [(5, [2])]
    assert train.report[Finding.NOT_TRAINED] == 3
    assert train.report[Finding.CROWD] == train.report[Finding.CROWD_DROPPED] == 2
    assert train.report[Finding.NO_BOXES] == 1
    kept = read_coco(path, tmp_path, train=True, keep_crowd=True)
    assert [(r.image_id, r.annotation_ids.tolist()) for r in kept.records] == [(5, [1, 2]), (8, [4])]
    val = read_coco(path, tmp_path, train=False)
    assert [r.image_id for r in val.records] == [5, 6, 7, 8]
    assert [a["iscrowd"] for a in val.coco_ground_truth()["annotations"]] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"id": 1, "image_id": 9, "category_id": 7, "bbox": [0, 0, 9, 9]}]}, "image 9, which is not"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 9, 9]}]}, "category 1, which is"),
        ({"images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}] * 2}, "same id"),
        ({"annotations": []}, "no image has a box"),
    ],
)
def test_broken_coco_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match=message):
        read_coco(coco(tmp_path, [], **changes), tmp_path, train=True)


def test_not_coco_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, message in (("{", "not valid JSON"), ("[]", "annotations"), ('{"images": []}', "categories")):
        path.write_text(text)
        with pytest.raises(PortdetError, match=message):
            read_coco(path, tmp_path, train=True)
    with pytest.raises(PortdetError, match="No such file"):
        read_coco(tmp_path / "absent.json", tmp_path, train=True)
    with pytest.raises(PortdetError, match=r"\['three', 'seven'\]"):
        read_coco(coco(tmp_path, [[0, 0, 9, 9]]), tmp_path, train=True, names=("seven", "three"))


def voc(folder: Path, objects: str, size: str = "<size><width>40</width><height>30</height></size>") -> Path:
    """A VOC folder of one image 40x30, whose XML holds `objects`."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    (folder / "Annotations/a.xml").write_text(f"<annotation><filename>a</filename>{size}{objects}</annotation>")
    Pillow.new("RGB", (40, 30)).save(folder / "JPEGImages/a.png")
    return folder


def thing(name: str, x1: Any, y1: Any, x2: Any, y2: Any, more: str = "") -> str:
    box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def test_voc_pixels_and_flags(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    objects = thing("dog", 2, 3, 4, 3.5, part) + thing("cat", 0, 1, 40, 30, "<difficult>1</difficult>")
    data = read_voc(voc(tmp_path, objects, ""), "ImageSets/Main/train.txt", train=False)
    record = data.records[0]
    assert data.names == ("cat", "dog")
    assert (record.name, record.width, record.height) == ("a.png", 40, 30)
    assert record.boxes.tolist() == [[1, 2, 4, 3.5], [0, 0, 40, 30]]
    assert record.crowd.tolist() == [False, True]
    assert data.report[Finding.DIFFICULT] == data.report[Finding.CLIPPED] == data.report[Finding.SIZE_DIFFERS] == 1
    train = read_voc(tmp_path, "ImageSets/Main/train.txt", train=True)
    assert train.records[0].labels.tolist() == [1]
    assert splits(tmp_path) == ["ImageSets/Main/train.txt"]


@pytest.mark.parametrize("how", ["missing", "text", "truncated"])
def test_unreadable_voc_image(how: str, tmp_path: Path) -> None:
    voc(tmp_path, thing("dog", 1, 1, 9, 9), size="")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "Annotations/b.xml").write_text((tmp_path / "Annotations/a.xml").read_text().replace(">a<", ">b<"))
    Pillow.effect_noise((40, 30), 50).save(tmp_path / "JPEGImages/b.png")
    break_image(tmp_path / "JPEGImages/b.png", how)
    data = read_voc(tmp_path, "ImageSets/Main/train.txt", train=True, bad_image="skip")
    assert [r.name for r in data.records] == ["a.png"]
    assert data.report[Finding.BAD_IMAGE] == 1
    assert data.report[Finding.OUTSIDE] == 0
    if how != "truncated":  # found when it is read, by name
        with pytest.raises(PortdetError, match=r"JPEGImages.*b\.(png|jpg)"):
            read_voc(tmp_path, "ImageSets/Main/train.txt", train=True)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (thing("dgo", 1, 1, 9, 9), "unknown class 'dgo'\n.*did you mean 'dog'"),
        (thing("dog", "x", 1, 9, 9), "<xmin> is 'x', not a number"),
        (thing("dog", "", 1, 9, 9), "<bndbox> has no <xmin>"),
        ("<object><name>dog</name></object>", "no <bndbox>"),
        ("<object>", "not valid XML"),
    ],
)
def test_broken_voc_files(objects: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match=rf"a\.xml: .*{message}"):
        read_voc(voc(tmp_path, objects), "ImageSets/Main/train.txt", train=True, names=("dog", "cat"))


def test_voc_list_is_named_nearly_right(tmp_path: Path) -> None:
    voc(tmp_path, thing("dog", 1, 1, 9, 9))
    with pytest.raises(PortdetError, match=r"did you mean 'train\.txt'"):
        read_voc(tmp_path, "ImageSets/Main/trian.txt", train=True)


def break_image(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "text":
        path.write_text("not an image")
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three JPEG files of noise in COCO format."""
    rng = np.random.default_rng(0)
    for i in range(3):
        Pillow.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in range(3)]
    boxes = [{"id": i, "image_id": i, "category_id": 7, "bbox": [1, 1, 9, 9]} for i in range(3)]
    coco(tmp_path, [], images=images, annotations=boxes)
    return tmp_path


@pytest.mark.parametrize("how", ["missing", "text", "truncated"])
def test_unreadable_image(how: str, photographs: Path) -> None:
    break_image(photographs / "1.jpg", how)
    skipping = read_coco(photographs / "ann.json", photographs, train=True, bad_image="skip")
    assert [r.image_id for r in skipping.records] == [0, 2]
    assert skipping.report.places[Finding.BAD_IMAGE] == ["1.jpg"]

    def read_all() -> None:
        data = read_coco(photographs / "ann.json", photographs, train=True)
        for record in data.records:
            data.read(record)

    with pytest.raises(PortdetError, match=r"1\.jpg"):
        read_all()


def test_image_of_another_size_than_annotated(photographs: Path) -> None:
    Pillow.new("RGB", (30, 40)).save(photographs / "1.jpg")
    data = read_coco(photographs / "ann.json", photographs, train=True)
    with pytest.raises(PortdetError, match=r"1\.jpg: image is 30x40, its annotation says 40x30"):
        data.read(data.records[1])


def test_open_datasets_takes_a_share_and_compares_classes(photographs: Path) -> None:
    config = DataConfig(
        format="coco", root=str(photographs), train="ann.json", val="ann.json", train_images=".", val_images="."
    )
    train, val = open_datasets(config)
    assert (len(train), len(val)) == (3, 3)
    config.fraction = 0.5
    train, val = open_datasets(config, seed=3)
    assert (len(train), len(val)) == (2, 3)
    assert train.report[Finding.FRACTION] == 1
    again = open_datasets(config, seed=3)[0]
    assert [r.image_id for r in train.records] == [r.image_id for r in again.records]
    other = json.loads((photographs / "ann.json").read_text())
    other["categories"][0]["name"] = "eight"
    (photographs / "val.json").write_text(json.dumps(other))
    config.val = "val.json"
    with pytest.raises(PortdetError, match="other classes"):
        open_datasets(config)
    config.val = ""
    with pytest.raises(PortdetError, match=r"data\.val is empty"):
        open_datasets(config)


def test_description_of_bccd() -> None:
    data = read_voc(BCCD, "ImageSets/Main/val.txt", train=False)
    facts = describe(data)
    objects = [o for o in walk((BCCD / "ImageSets/Main/val.txt").read_text().split()) if o[4] > o[2]]
    for name in data.names:
        mine = [o for o in objects if o[1] == name]
        assert facts["per_class"][name] == {"boxes": len(mine), "images": len({o[0] for o in mine})}
    areas = [(o[4] - o[2] + 1) * (o[5] - o[3] + 1) for o in objects]
    assert facts["sizes"]["large"] == sum(area >= 96 * 96 for area in areas)
    assert facts["sizes"]["small"] == sum(area < 32 * 32 for area in areas)
    assert facts["box_side"][0] == pytest.approx((min(areas) / 640 / 480) ** 0.5, abs=1e-4)
    json.dumps(facts)
