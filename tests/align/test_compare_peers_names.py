"""Tensors of two programs brought under one name."""

from __future__ import annotations

import numpy as np
import pytest

from portdet.align.compare import Envelope, compare
from portdet.align.compare.names import Renamed, by_position, shared
from portdet.errors import PortdetError
from portdet.session import Arrays


def given(*names: str, shapes: tuple[tuple[int, ...], ...]) -> Arrays:
    return {
        name: np.full(shape, place, np.float32) for place, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }


OURS = given(
    "weights/a", "weights/b", "forward/stem", "forward/head", "grad/b", shapes=((3, 2), (4,), (5, 5), (5,), (4,))
)


def test_names_by_a_dictionary() -> None:
    other = Renamed({"x": np.ones(2), "y": np.zeros(3)}, {"x": "a", "unused": "b"})
    assert list(other) == ["a", "y"]
    assert len(other) == 2
    assert other["a"].tolist() == [1, 1]
    with pytest.raises(PortdetError, match="'y' and 'x' would both be 'a'"):
        Renamed({"x": np.ones(2), "y": np.zeros(3)}, {"x": "a", "y": "a"})


def test_names_by_position() -> None:
    theirs = given(
        "weights/first.kernel", "weights/first.offset", "weights/counter", "forward/Conv_0", "forward/Identity_1",
        "forward/Dense_2", "extra/z", shapes=((3, 2), (4,), (), (5, 5), (7,), (5,), (4,)),
    )  # fmt: skip
    names = by_position(OURS, theirs)
    assert names == {
        "weights/first.kernel": "weights/a", "weights/first.offset": "weights/b", "forward/Conv_0": "forward/stem",
        "forward/Dense_2": "forward/head",
    }  # fmt: skip
    renamed = Renamed(theirs, names)
    ours, port = shared(OURS, renamed)
    assert list(ours) == ["weights/a", "weights/b", "forward/stem", "forward/head"]
    envelope = Envelope()
    envelope.add(ours, ours)
    first = compare(ours, [port], envelope).first
    assert first is not None
    assert first.name == "forward/stem", "the fill of the arrays tells their place, which is another from here on"
