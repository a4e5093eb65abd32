"""What every case must come to: success with its invariants, or one `PortdetError`, short and printable.

No file outside the case's folder is opened, whatever the document names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from portdet.config import Config, load
from portdet.data.coco import read_coco
from portdet.data.records import Dataset
from portdet.data.voc import read_voc
from portdet.errors import PortdetError
from portdet.models.registry import check
from portdet.train import checkpoint
from portdet.train.loss_scale import LossScale
from tests.outside.mutate import as_xml, as_yaml

LONGEST = 2000
_OPENED: list[str] | None = None
_OWN = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), "/proc/", "/usr/")  # modules, fonts, libraries


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _OPENED is not None and isinstance(args[0], str | bytes):
        _OPENED.append(args[0] if isinstance(args[0], str) else args[0].decode(errors="replace"))
    if event in ("os.system", "subprocess.Popen", "os.exec") and _OPENED is not None:
        _OPENED.append(f"a program: {args}")


sys.addaudithook(_hook)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Fail if anything is opened outside of the folder, or any program started."""
    global _OPENED
    _OPENED = []
    try:
        yield
    finally:
        opened, _OPENED = _OPENED, None
    wrong = [path for path in opened if not path.startswith((str(folder), *_OWN))]
    assert not wrong, f"opened {wrong[:3]}"


def ended(work: Callable[[], Any], folder: Path) -> Any:
    """The result, or None where it was refused as it should be."""
    try:
        with inside(folder):
            return work()
    except PortdetError as error:
        refused_well(str(error))
        return None


def refused_well(said: str) -> None:
    assert len(said) < LONGEST, f"{len(said)} characters: {said[:300]}"
    assert said.replace("\n", "").isprintable(), f"not printable: {said[:300]!r}"


def dataset_holds(data: Dataset) -> None:
    """Finite boxes inside their images, labels of known classes, ids that occur once, names inside the folder."""
    ids = [record.image_id for record in data.records]
    own = np.concatenate([record.annotation_ids for record in data.records]) if ids else np.zeros(0)
    assert len(set(ids)) == len(ids)
    assert len(np.unique(own)) == len(own)
    assert len(set(data.names)) == len(data.names) == len(data.category_ids)
    for record in data.records:
        assert np.isfinite(record.xywh).all()
        assert np.isfinite(record.areas).all()
        assert (record.boxes[:, 2:] <= [record.width + 0.1, record.height + 0.1]).all()
        assert not len(record.labels) or 0 <= record.labels.min() <= record.labels.max() < len(data.names)
        assert not record.name.startswith("/")
        assert ".." not in record.name.split("/")
    json.dumps(data.coco_ground_truth())


def coco_ends(document: Any, folder: Path, policies: Sequence[str]) -> bool:
    """Whether it was taken. folder: with a.png and b.png."""
    path = folder / "ann.json"
    path.write_text(json.dumps(document))
    box, image, train = policies[0], policies[1], policies[2] == "train"
    data = ended(lambda: read_coco(path, folder, train=train, bad_box=box, bad_image=image), folder)
    if data is None:
        return False
    dataset_holds(data)
    for record in data.records:
        ended(lambda record=record: data.read(record), folder)  # type: ignore[misc]
        masks = ended(lambda record=record: data.masks(record), folder)  # type: ignore[misc]
        assert masks is None or masks.shape == (len(record.labels), record.height, record.width)
    return True


def voc_ends(document: Any, folder: Path, policies: Sequence[str]) -> bool:
    """folder: a VOC folder of one image."""
    (folder / "Annotations" / "a.xml").write_bytes(as_xml(document).encode("utf-8", "surrogatepass"))
    names = ("cat", "dog") if policies[2] == "train" else ()
    read = lambda: read_voc(  # noqa: E731
        folder, "ImageSets/Main/train.txt", train=bool(names), names=names, bad_box=policies[0], bad_image=policies[1]
    )
    data = ended(read, folder)
    if data is not None:
        dataset_holds(data)
    return data is not None


def config_ends(document: Any, folder: Path, words: Sequence[str]) -> bool:
    """A configuration and overrides; what is taken is written and read back to the same values."""
    path = folder / "c.yaml"
    path.write_bytes(as_yaml(document).encode("utf-8", "surrogatepass"))

    def work() -> Config:
        config = load(str(path), tuple(words))
        check(config)
        return config

    config = ended(work, folder)
    if config is None:
        return False
    (folder / "args.yaml").write_text(config.dump(), encoding="utf-8")
    again = load(str(folder / "args.yaml"), alone=True)
    assert again.model_dump() == config.model_dump()
    assert "/" not in config.train.name
    return True


def checkpoint_ends(document: Any, folder: Path, config: Config) -> bool:
    """A checkpoint with this progress, up to what a resumed run makes of it."""
    path, text = folder / "last.safetensors", json.dumps(document)
    header = {"__metadata__": {"portdet": text}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    table = json.dumps(header).encode()
    path.write_bytes(len(table).to_bytes(8, "little") + table + b"\0\0\x80?")

    def work() -> LossScale:
        _, progress = checkpoint.load_state(path)
        checkpoint.check_resumable(progress, config, 5, path)
        assert progress.step == 5 * progress.epoch + progress.epoch_step
        return LossScale(**progress.loss_scale)

    words = checkpoint.held(text)
    refused_well(words)
    assert len(words) < 300
    scale = ended(work, folder)
    assert scale is None or scale.scale > 0
    return scale is not None
