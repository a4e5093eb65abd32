"""Annotation files, masks and images from outside: what is wrong is one short error that names its place."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as cocomask

from portdet.data.coco import read_coco
from portdet.data.files import read_image
from portdet.data.masks import MOST_PIXELS, decode
from portdet.data.voc import find_names, read_voc
from portdet.errors import PortdetError

IMAGE = {"id": 5, "file_name": "a.png", "width": 40, "height": 30}
BOX = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]}
CLASS = {"id": 7, "name": "seven"}


def words(error: PortdetError) -> str:
    said = str(error)
    assert len(said) < 2000
    assert said.replace("\n", "").isprintable()
    return said


def read(folder: Path, content: Any, **options: Any) -> Any:
    Pillow.new("RGB", (40, 30)).save(folder / "a.png")
    path = folder / "ann.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(path, folder, train=False, **options)


def coco(image: dict[str, Any] | None = None, box: dict[str, Any] | None = None, **lists: Any) -> dict[str, Any]:
    made = {"images": [IMAGE | (image or {})], "annotations": [BOX | (box or {})], "categories": [CLASS]}
    return made | lists


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != key}


IDS: list[Any] = ["1", 1.9, None, True, [1], 2**63, -(2**63) - 1, 10**400, 1e300, {}]
SIDES: list[Any] = [-5, 0, "40", 40.5, None, 10**7, float("nan")]
FLAGS: list[Any] = [2, "1", None, [], 0.5]
AREAS: list[Any] = ["9", [], float("inf")]

BAD: dict[str, tuple[Any, str]] = {
    "a list": ([], "no ['annotations', 'categories', 'images']"),
    "nested deeply": ("[" * 100_000, "nested too deeply"),
    "10^5 digits": ('{"images": ' + "1" * 100_000 + "}", "not valid JSON"),
    "images that are a map": (coco(images={}), "images = {}: input should be a valid list"),
    "an image that is text": (coco(images=["a.png"]), "images.0 = 'a.png'"),
    "annotations that are null": (coco(annotations=None), "annotations = None"),
    "no images": (coco(images=[], annotations=[]), "lists no images"),
    "no categories": (coco(annotations=[], categories=[]), "lists no categories"),
    **{
        f"{which} without {key}": (coco() | {which: [without(entry, key)]}, f"{which}.0.{key}: field required")
        for which, entry in (("images", IMAGE), ("annotations", BOX), ("categories", CLASS))
        for key in entry
    },
    **{
        f"{key} of {json.dumps(value)[:20]}": (coco(box={key: value}), f"annotations.0.{key} = ")
        for key in ("id", "image_id", "category_id")
        for value in IDS
    },
    **{
        f"bbox of {json.dumps(value)[:20]}": (coco(box={"bbox": value}), "annotations.0.bbox")
        for value in ([1, 2, 3], [1, 2, 3, 4, 5], "1234", None, 7, [1, 2, 3, "4"], [1, 2, 3, None], [1, 2, True, 4],
                      [1, 2, 3, [4]], {"x": 1}, [1, 2, 3, 10**400])
    },
    **{
        f"{key} of {json.dumps(value)[:20]}": (coco(image={key: value}), f"images.0.{key} = ")
        for key in ("width", "height")
        for value in SIDES
    },
    **{f"iscrowd of {v!r}": (coco(box={"iscrowd": v}), "annotations.0.iscrowd") for v in FLAGS},
    **{f"area of {v!r}": (coco(box={"area": v}), "annotations.0.area") for v in AREAS},
    "a name that is a list": (coco(categories=[{"id": 7, "name": ["x"]}]), "categories.0.name = ['x']"),
    "an empty name": (coco(categories=[{"id": 7, "name": ""}]), "categories.0.name = ''"),
    "a long name": (coco(categories=[{"id": 7, "name": "x" * 201}]), "no name of 1 to 200 characters"),
    "half a surrogate pair": (coco(categories=[{"id": 7, "name": "\ud800"}]), r"categories.0.name = '\ud800'"),
    "two images of an id": (coco(images=[IMAGE, IMAGE]), "two images have the same id, 5"),
    "two annotations of an id": (coco(annotations=[BOX, BOX]), "two annotations have the same id, 1"),
    "two categories of an id": (coco(categories=[CLASS, CLASS | {"name": "x"}]), "two categories have the same id, 7"),
    "two categories of a name": (coco(categories=[CLASS, CLASS | {"id": 8}]), "the same name, 'seven'"),
    "an image that is not listed": (coco(box={"image_id": 6}), "image 6, which is not listed"),
    "a category that is not listed": (coco(box={"category_id": 8}), "category 8, which is not listed"),
    **{
        f"the file {name[:20]!r}": (coco(image={"file_name": name}), said)
        for name, said in (("/etc/passwd", "is absolute"), ("../a.png", "climbs out"), ("b/../../a.png", "climbs out"),
                           ("", "is empty"), ("a\x1b[2J.png", "control characters"), ("a\0.png", "control characters"),
                           ("\\\\host\\a.png", "is absolute"), ("n" * 300, "a part of over 255 bytes"),
                           ("n" * 250, "the first is 'nnn"),
                           (".", "is empty"), ("n" * 5000, "at most 4000"))
    },
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_coco_files_that_are_refused(case: str, tmp_path: Path) -> None:
    content, said = BAD[case]
    with pytest.raises(PortdetError) as error:
        read(tmp_path, content)
    assert said in words(error.value)


def test_coco_files_as_programs_write_them(tmp_path: Path) -> None:
    """Whole numbers with a point, flags as booleans, areas left out, names that are numbers, unknown keys, a BOM."""
    image = {"id": 5.0, "file_name": "a.png", "width": 40.0, "height": 30, "coco_url": [[[[]]]], "license": None}
    boxes = [
        {"id": 0, "image_id": 5, "category_id": 7.0, "bbox": [1, 2.5, 3, 4], "iscrowd": True, "attributes": {"x": []}},
        {"id": -(2**63), "image_id": 5.0, "category_id": 7, "bbox": [1, 2, float("nan"), 4], "segmentation": None},
    ]
    content = {"info": 1, "images": [image], "annotations": boxes, "categories": [{"id": 7, "name": 7}]}
    data = read(tmp_path, "\ufeff" + json.dumps(content))
    assert (data.names, data.category_ids, data.records[0].xywh.tolist()) == (("7",), (7,), [[1, 2.5, 3, 4]])
    assert data.records[0].crowd.tolist() == [True]
    assert data.records[0].areas.tolist() == [12]
    assert data.report.lines()[0] == "1 boxes without area were dropped (a.png)"


def test_annotations_that_do_not_end_or_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(PortdetError, match="is not a regular file"):
            read_coco(path, tmp_path, train=False)
        with pytest.raises(PortdetError, match="the list of images is not a regular file"):
            read_voc(tmp_path, str(path), train=False, names=("x",))


def test_links_in_the_image_folder_are_the_users(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "a.png")
    path = tmp_path / "ann.json"
    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.png")
    path.write_text(json.dumps(coco(image={"file_name": "link.png"})))
    data = read_coco(path, tmp_path / "images", train=True)
    assert data.read(data.records[0]).shape == (30, 40, 3)


# ---------------------------------------------------------------------------------------------- masks
def test_runs_decode_as_pycocotools_writes_them() -> None:
    generator = np.random.default_rng(3)
    for height, width, share in ((1, 1, 0.5), (7, 5, 0.5), (64, 48, 0.02), (300, 400, 0.9), (5, 9, 0), (4, 4, 1)):
        mask = generator.random((height, width)) < share
        packed = cocomask.encode(np.asfortranarray(mask, np.uint8))
        text = {"size": [height, width], "counts": packed["counts"].decode()}
        assert np.array_equal(decode(text, height, width, ""), mask)
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *([0] if flat[0] else []), *ends, flat.size]).tolist()
        assert np.array_equal(decode({"size": [height, width], "counts": counts}, height, width, ""), mask)
    square = decode([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6, "")
    assert np.argwhere(square).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]


SEGMENTS: dict[str, Any] = {
    "nothing": [], "text": "abc", "a number": 7, "no polygon": [[]], "two points": [[1, 1, 2, 2]], "odd": [[1] * 7],
    "text in it": [[1, 1, 2, 2, 3, "3"]], "not finite": [[1, 1, 2, 2, 3, float("nan")]],
    "far": [[0, 0, 1e9, 0, 0, 1e9]],
    "another size": {"size": [9, 9], "counts": [81]}, "no size": {"counts": [30]}, "no counts": {"size": [5, 6]},
    "too few": {"size": [5, 6], "counts": [29]}, "too many": {"size": [5, 6], "counts": [31]},
    "huge": {"size": [5, 6], "counts": [2**62, 2**62]}, "negative": {"size": [5, 6], "counts": [40, -10]},
    "runs of text": {"size": [5, 6], "counts": ["30"]}, "points": {"size": [5, 6], "counts": [30.0]},
    "an unfinished number": {"size": [5, 6], "counts": "o"}, "no end": {"size": [5, 6], "counts": "oooooooooooo"},
    "other characters": {"size": [5, 6], "counts": "\x00\xff"},
    "bytes past the mask": {"size": [5, 6], "counts": "o0o0"},
}  # fmt: skip


@pytest.mark.parametrize("case", SEGMENTS)
def test_segmentations_that_are_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match="is no mask") as error:
        decode(SEGMENTS[case], 5, 6, "a.png")
    words(error.value)
    data = read(tmp_path, coco(box={"segmentation": SEGMENTS[case]}))
    with pytest.raises(PortdetError, match=r"(is|has) no mask"):
        data.masks(data.records[0])


def test_a_mask_of_no_memory() -> None:
    with pytest.raises(PortdetError, match="pixels, at most"):
        decode({"size": [10**6, 10**6], "counts": [10**12]}, 10**6, 10**6, "a.png")


# ---------------------------------------------------------------------------------------------- VOC
XML = (
    "<annotation><filename>a.png</filename><size><width>40</width><height>30</height></size><object><name>dog</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
LAUGHS = '<!DOCTYPE a [<!ENTITY l0 "ha">' + "".join(
    f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9)
) + "]>"  # fmt: skip

BAD_XML: dict[str, tuple[str | bytes, str]] = {
    "a billion laughs": (LAUGHS + XML.replace("dog", "&l9;"), "a document type is not taken"),
    "a file for an entity": (
        '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + XML.replace("dog", "&f;"),
        "taken",
    ),
    "the same in UTF-16": ((LAUGHS + XML).encode("utf-16"), "a document type is not taken"),
    "an entity that nobody knows": (XML.replace("dog", "&dog;"), "not valid XML"),
    "nested deeply": ("<a>" * 100_000, "nested more than 64"),
    "not closed": (XML[:-5], "not valid XML"),
    "no encoding": ('<?xml version="1.0" encoding="nothing"?>' + XML, "not valid XML"),
    "a photograph": (b"\xff\xd8\xff\xe0\0\0", "not valid XML"),
    "a NUL": ("\0" + XML, "not valid XML"),
    **{
        f"xmax {text[:12]!r}": (XML.replace("<xmax>9<", f"<xmax>{text}<"), "<xmax> is ")
        for text in ("nine", "nan", "inf", "-inf", "1e7", "1" * 5000, "9, 9", "0x9", "\u202e9")
    },
    **{
        f"no <{tag}>": (XML.replace(f"<{tag}>", "<other>").replace(f"</{tag}>", "</other>"), f"no <{tag}>")
        for tag in ("name", "bndbox", "xmin", "ymin", "xmax", "ymax", "width", "height")
    },
    "an empty name": (XML.replace("dog", "  "), "<object> has no <name>"),
    "a width of text": (XML.replace("<width>40<", "<width>wide<"), "<width> is 'wide'"),
    "another class": (XML.replace("dog", "d&#x85;g"), r"unknown class 'd\x85g'"),
}


def voc(folder: Path, xml: str | bytes, listed: str = "a\n") -> Path:
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / place).mkdir(parents=True)
    Pillow.new("RGB", (40, 30)).save(folder / "JPEGImages" / "a.png")
    (folder / "Annotations" / "a.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    (folder / "ImageSets/Main/train.txt").write_text(listed)
    return folder


@pytest.mark.parametrize("case", BAD_XML)
def test_voc_files_that_are_refused(case: str, tmp_path: Path) -> None:
    xml, said = BAD_XML[case]
    with pytest.raises(PortdetError) as error:
        read_voc(voc(tmp_path, xml), "ImageSets/Main/train.txt", train=False, names=("dog",))
    assert said in words(error.value)


def test_voc_as_it_should_be(tmp_path: Path) -> None:
    data = read_voc(voc(tmp_path, XML), "ImageSets/Main/train.txt", train=False)
    assert (data.names, data.records[0].xywh.tolist()) == (("dog",), [[0, 1, 9, 8]])


@pytest.mark.parametrize("entry", ["../../a", "/etc/passwd", "a/../../b", "a\x1b[2J", "9" * 5000])
def test_voc_lists_name_files_inside(entry: str, tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match="the entry") as error:
        read_voc(voc(tmp_path, XML, entry + "\n"), "ImageSets/Main/train.txt", train=False, names=("dog",))
    words(error.value)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "n" * 300, "C:\\me\\a.png", "a.png\n"])
def test_voc_file_names_of_other_machines_are_not_opened(name: str, tmp_path: Path) -> None:
    folder = voc(tmp_path, XML.replace("a.png", name))
    Pillow.new("RGB", (4, 3)).save(folder / "secret.png")
    data = read_voc(folder, "ImageSets/Main/train.txt", train=False)
    assert (data.records[0].name, data.records[0].width) == ("a.png", 40)


def test_a_long_class_name_of_voc(tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match="a class name has 5000 characters"):
        find_names(voc(tmp_path, XML.replace("dog", "d" * 5000)))


# ---------------------------------------------------------------------------------------------- images
def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has these sides."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/tmp/ran) (w) file closefile\nshowpage\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png(20_000, 10_000), "pixels"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(0, 5), "unreadable image"),
        (EPS, "cannot identify image file"),
        (b"", "cannot identify image file"),
        (b"GIF89a\xff\xff\xff\xff", "unreadable image"),
    ],
    ids=["a bomb", "a huge one", "no width", "a program", "empty", "a header"],
)
def test_images_that_are_not_decoded(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(PortdetError, match="unreadable image") as error:
        read_image(path)
    assert said in words(error.value)
    assert MOST_PIXELS < 20_000 * 10_000


def test_an_image_that_is_a_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PortdetError, match="not a regular file"):
        read_image(tmp_path / "a.jpg")
