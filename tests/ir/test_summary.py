"""Parameters, tensors and GFLOPs of the published YOLOv3, and a net that is counted by hand."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from portdet import ops
from portdet.errors import PortdetError
from portdet.ir.summary import print_summary, summary
from portdet.ir.trace import graph
from portdet.models import load_model
from portdet.spec import BatchNorm2d, Conv2d, Module


@pytest.mark.parametrize(("side", "gflops"), [(416, 65.86), (608, 140.7)])
def test_published_yolov3(side: int, gflops: float) -> None:
    """darknet prints 65.86 (416) and 140.69 (608) BFLOPs; mindspore-ai/models' 366 tensors hold 61,949,149 weights."""
    rows = summary(load_model({"name": "yolov3"}, imgsz=side, batch=1).graph)
    assert (rows[0].parameters, rows[0].tensors) == (61_949_149, 366)
    assert rows[0].flops / 1e9 == pytest.approx(gflops, abs=0.05 if side == 608 else 0.005)
    assert rows[0].shapes == ((1, 3 * 21 * (side // 32) ** 2, 85),)
    by_path = {row.path: row for row in rows}
    assert by_path["backbone"].parameters == 40_584_928
    assert [shape[1:] for shape in by_path["backbone"].shapes] == [
        (c, side // s, side // s) for c, s in ((256, 8), (512, 16), (1024, 32))
    ]


def test_sixteen_classes() -> None:
    assert summary(load_model({"name": "yolov3", "classes": 16}).graph)[0].parameters == pytest.approx(61.6e6, rel=2e-3)


class ByHand(Module):
    """Called twice: 2 x (2 x 3 x 4 x 5 outputs x 2 x 9 products); a matrix product (2 x 4 x 7) x (7 x 3)."""

    def __init__(self) -> None:
        self.conv = Conv2d(4, 3, 3, pads=(1, 1, 1, 1), bias=True)
        self.conv2 = Conv2d(3, 4, 1, groups=1)
        self.norm = BatchNorm2d(3)

    def forward(self, x: Any, a: Any, b: Any) -> Any:
        y = self.norm(self.conv(x)) + 1.0
        return self.conv(self.conv2(y))[..., 0], ops.matmul(a, b)


def test_counted_by_hand() -> None:
    traced = graph(
        ByHand(),
        {
            "forward": (
                False,
                {"x": ((2, 4, 5, 6), "float"), "a": ((2, 4, 7), "float"), "b": ((2, 7, 3), "float")},
            )
        },
    )
    model, conv, conv2, norm = summary(traced, method="forward", dtype_bytes=2)
    assert conv.flops == 2 * 2 * (2 * 3 * 5 * 6 * 4 * 9)
    assert conv2.flops == 2 * (2 * 4 * 5 * 6 * 3)
    assert model.flops == conv.flops + conv2.flops + 2 * (2 * 4 * 3 * 7)
    assert (conv.parameters, conv2.parameters, norm.parameters) == (3 * 4 * 9 + 3, 12, 6)
    assert (model.parameters, model.tensors) == (108 + 3 + 12 + 6, 2 + 1 + 4)
    three, four = 2 * 3 * 5 * 6, 2 * 4 * 5 * 6  # elements: conv, norm, sum; conv2; conv again; the product
    assert model.activation_bytes == 2 * (3 * three + four + three + 2 * 4 * 3)
    assert model.shapes == ((2, 3, 5), (2, 4, 3))


def test_table_is_cut_at_the_depth() -> None:
    out = StringIO()
    rows = summary(load_model({"name": "yolov3"}, batch=1).graph)
    print_summary(rows, depth=1, console=Console(file=out, width=100))
    text = out.getvalue()
    assert "61,949,149" in text
    assert "65.86" in text
    assert "1x1024x13x13" in text
    assert "layer1" not in text


def test_unknown_method_is_an_error() -> None:
    with pytest.raises(PortdetError, match="no method 'predikt'"):
        summary(load_model({"name": "yolov3", "width": 0.125}).graph, method="predikt")
