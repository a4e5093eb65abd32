"""Documents that are changed in their structure: a node is replaced, retyped, dropped, doubled, nested, renamed, moved.

A valid document and a list of changes give a document; who draws the changes, hypothesis or a seeded generator, is no
matter here. Documents are JSON values; an XML element is {"tag", "text", "inside"}.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import yaml

# (which node, counted over the whole document; which change of CHANGES; the value that it takes)
Change = tuple[int, int, Any]

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 1.9, -5, 0.5, 1e-300, 1e300, 1e999, -1e999, float("nan"), 2**31, 2**63,
    -(2**63) - 1, 2**70, 10**400, "", " ", "a", "1", "nan", "-inf", "0x10", "1_000", "yes", "2020-01-01",
    "/etc/passwd", "../../etc/passwd", "a/../../b", "\\\\host\\x", "\x1b[2J", "a\nb", "a\0b", "\ud800", "\u202ex",
    "[red]x[/red]", "a[/b]", "$\\frac{", "x" * 300, "9" * 5000, "<&>\"'", "]]>", "${HOME}", "%s", "日本",
    "!!python/name:os.system", "&a [*a]", [], {}, [[]], [1, 2, 3], [1] * 50, [1, 2, 3, "4"], {"a": 1}, {"": {}},
    {"__proto__": 1}, {"size": [2, 2], "counts": "04"}, [[0, 0, 9, 0, 9, 9]], [{}], [None],
]  # fmt: skip


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every node below a document, itself in a list of one."""
    found, queue = list[tuple[Any, Any]](), [value]
    while queue:
        container = queue.pop()
        places = list(container) if isinstance(container, dict) else range(len(container))
        for key in places:
            found.append((container, key))
            if isinstance(container[key], list | dict):
                queue.append(container[key])
    return found


def _replace(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def _delete(container: Any, key: Any, value: Any) -> None:
    del container[key]


def _double(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key}2"] = copy.deepcopy(container[key])


def _nest(container: Any, key: Any, value: Any) -> None:
    depth = 200 if value is None else 1
    for _ in range(depth):
        container[key] = [container[key]] if isinstance(value, list) else {"a": container[key]}


def _retype(container: Any, key: Any, value: Any) -> None:
    node = container[key]
    if isinstance(node, bool | int | float):
        container[key] = str(node)[:5000] if isinstance(value, str) else 0.5 if isinstance(value, float) else -node
    elif isinstance(node, str):
        container[key] = [node] if isinstance(value, list) else {node: node} if isinstance(value, dict) else node * 3
    elif isinstance(node, list):
        container[key] = {str(i): item for i, item in enumerate(node)} if isinstance(value, dict) else json.dumps(node)
    elif isinstance(node, dict):
        container[key] = list(node.values()) if isinstance(value, list) else list(node)


def _rename(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, dict):
        container[value if isinstance(value, str) else f"{key}x"] = container.pop(key)
    else:
        container.reverse()


def _unknown(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, dict):
        container[f"unknown{key}"] = value
    else:
        container.append(value)


CHANGES: list[Callable[[Any, Any, Any], None]] = [
    _replace,
    _replace,
    _delete,
    _double,
    _nest,
    _retype,
    _rename,
    _unknown,
]


def mutated(document: Any, changes: Sequence[Change]) -> Any:
    """The document after the changes, each at a node of what the ones before left."""
    root = [copy.deepcopy(document)]
    for place, change, value in changes:
        found = nodes(root)
        if not found:
            break
        container, key = found[place % len(found)]
        CHANGES[change % len(CHANGES)](container, key, copy.deepcopy(value))
        if not root:
            root = [None]
    return root[0]


def drawn(random: Random) -> list[Change]:
    """One to four changes of a seeded generator."""
    count = random.choice((1, 1, 1, 2, 3, 4))
    return [(random.randrange(10**6), random.randrange(len(CHANGES)), random.choice(VALUES)) for _ in range(count)]


def as_xml(value: Any) -> str:
    """An element as text; what is no element any more is written as it is."""
    if not isinstance(value, dict):
        return str(value)
    inside = value.get("inside", [])
    parts = "".join(map(as_xml, inside)) if isinstance(inside, list) else str(inside)
    more = "".join(
        f"<{key}>{as_xml(item)}</{key}>" for key, item in value.items() if key not in ("tag", "text", "inside")
    )
    tag = value.get("tag", "x")
    return f"<{tag}>{value.get('text', '')}{parts}{more}</{tag}>"


def as_yaml(value: Any) -> str:
    """Tags, anchors and keys that stand twice are put in where a text asks for them."""
    text: str = yaml.safe_dump(value, allow_unicode=True)
    return text.replace("'!!python/name:os.system'", "!!python/name:os.system ''").replace("'&a [*a]'", "&a [*a]")


# ---------------------------------------------------------------------------------------------- valid documents
def element(tag: str, text: str = "", *inside: Any) -> dict[str, Any]:
    return {"tag": tag, "text": text, "inside": list(inside)}


def _object(name: str, *box: int) -> dict[str, Any]:
    sides = [element(tag, str(side)) for tag, side in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)]
    return element("object", "", element("name", name), element("difficult", "0"), element("bndbox", "", *sides))


VOC = element(
    "annotation", "", element("filename", "a.png"),
    element("size", "", element("width", "40"), element("height", "30"), element("depth", "3")),
    _object("dog", 1, 2, 9, 9), _object("cat", 10, 10, 30, 20),
)  # fmt: skip

COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 5, "file_name": "a.png", "width": 40, "height": 30, "license": 1},
        {"id": 6, "file_name": "b.png", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 0,
         "segmentation": [[1, 2, 4, 2, 4, 6]]},
        {"id": 2, "image_id": 6, "category_id": 3, "bbox": [1.5, 2, 30, 20], "iscrowd": 1,
         "segmentation": {"size": [30, 40], "counts": [600, 600]}},
        {"id": 3, "image_id": 6, "category_id": 7, "bbox": [0, 0, 40, 30]},
    ],
    "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three", "supercategory": "number"}],
}  # fmt: skip

CONFIG = {
    "model": {"name": "yolov3", "width": 0.125, "depths": [1, 1, 1, 1, 1], "profile": "darknet"},
    "data": {"imgsz": 64, "sizes": [64, 96], "names": ["a", "b"], "train_count": 8, "batch": 4, "root": "."},
    "augment": {"kind": "yolov3", "scale": [0.5, 1.5], "flip": 0.5},
    "optim": {"lr0": 0.01, "lr_epochs": [2, 3], "loss_scale": "dynamic", "freeze": ["backbone"]},
    "ema": {"kind": "exponential", "decay": 0.99},
    "eval": {"conf": 0.01, "nms_kind": "greedy"},
    "train": {"epochs": 3, "seed": 1, "project": "runs", "name": "run", "backend": "torch"},
}
