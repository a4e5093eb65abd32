"""The alignment's data, tables and page: figures by hand, nothing from the network, nothing unescaped."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from portdet.errors import PortdetError
from portdet.report import align_page
from portdet.report.align_run import AlignRun, BackendRun, Check, epoch_table, loss_table, metric_table
from portdet.report.align_tables import console_table, markdown, relative
from portdet.report.draw import save
from portdet.report.svg import Curve, line_chart


def run() -> AlignRun:
    torch = BackendRun(
        "torch",
        "2.13",
        "cpu",
        61.0,
        [{"epoch": 1, "AP": 0.1, "AP50": 0.25}, {"epoch": 2, "AP": 0.2, "AP50": 0.5}],
        [100.0, 50.0, 25.0],
        {"AP": 0.2, "AP50": 0.5, "APl": -1.0},
        environment={"mode": "eager"},
    )
    paddle = BackendRun(
        "paddle", "3.3", "cpu", 9.0, [{"epoch": 1, "AP": -1.0, "AP50": 0.2}], [100.0, 51.0], {"AP": 0.15, "AP50": 0.4}
    )
    checks = [Check("weights <same>", True, "366 tensors"), Check("steps", False, "5 % > 1 %")]
    return AlignRun("tiny <1>", "a rule", "They differ & more.", [torch, paddle], False, checks, {"numpy": "1.26.4"})


def test_json_comes_back(tmp_path: Path) -> None:
    run().save(tmp_path / "align.json")
    assert AlignRun.load(tmp_path / "align.json") == run()
    for text in ("[]", "{}", "nonsense", '{"backends": [{"nam": 1}]}'):
        with pytest.raises(PortdetError, match="here: "):
            AlignRun.from_json(text, where="here")
    with pytest.raises(PortdetError, match="cannot be read"):
        AlignRun.load(tmp_path / "absent.json")


def test_tables_by_hand() -> None:
    assert epoch_table(run(), "AP50") == [(1, [0.25, 0.2], pytest.approx(0.05)), (2, [0.5, None], None)]
    assert epoch_table(run(), "AP") == [(1, [0.1, None], None), (2, [0.2, None], None)]
    assert loss_table(run()) == [(1, [100.0, 100.0], 0.0), (2, [50.0, 51.0], 0.02), (3, [25.0, None], None)]
    assert [row[:2] for row in metric_table(run())] == [
        ("AP", [0.2, 0.15]),
        ("AP50", [0.5, 0.4]),
        ("APl", [None, None]),
    ]
    many = AlignRun("", "", "", [BackendRun("a", "", "", 0.0, step_losses=[1.0] * 384)])
    assert [row[0] for row in loss_table(many)] == [1, 2, 5, 10, 20, 50, 100, 200, 384]
    assert [relative(v) for v in (0.0, 2.1e-7, 0.0456, None)] == ["0", "2.1e-07", "4.6%", ""]


def test_console_and_markdown() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(console_table(run()))
    text = out.getvalue()
    assert all(words in text for words in ("torch", "0.250 (0.100)", "0.200 (n/a)", "0.050", "They differ & more."))
    assert "| 1 | 0.250 (0.100) | 0.200 (n/a) | 0.050 |" in markdown(run())
    assert "| AP50 | 0.500 | 0.400 | 0.100 |" in markdown(run())


class Tags(HTMLParser):
    """Counts open tags and keeps every address that a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        if tag not in {"meta", "img", "wbr", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    picture = np.full((8, 8, 3), 200, np.uint8)
    save(tmp_path / "found.png", picture)
    save(tmp_path / "all.jpg", picture)
    one = run()
    one.backends[1].pictures["sample_predictions"] = "found.png"
    one.pictures["same_images"] = "all.jpg"
    align_page.save(tmp_path / "align.html", one)
    page = (tmp_path / "align.html").read_text()
    tags = Tags(page)
    assert tags.open == []
    assert [a.partition(",")[0] for a in tags.addresses] == ["data:image/jpeg;base64", "data:image/png;base64"]
    assert base64.b64decode(tags.addresses[1].partition(",")[2]) == (tmp_path / "found.png").read_bytes()
    assert not re.search(r"https?://|@import|url\(|<script src", page)
    assert page.index("✗ Not passed") < page.index("They differ &amp; more.") < page.index("<svg")
    assert "tiny &lt;1&gt;" in page
    assert "<1>" not in page
    assert all(words in page for words in ("prefers-color-scheme: dark", "366 tensors", "1 min 1 s", "Same images"))
    for passed, words in ((True, "✓ Passed"), (None, "? Undecided")):
        one.passed = passed
        assert words in align_page.page(one, tmp_path)


def test_page_without_data_and_with_a_missing_picture(tmp_path: Path) -> None:
    empty = AlignRun("x", "r", "v", [BackendRun("torch", "1", "cpu", 0.0)])
    assert "Nothing was measured" in align_page.page(empty, tmp_path)
    empty.pictures["a"] = "absent.png"
    with pytest.raises(PortdetError, match=r"absent\.png"):
        align_page.page(empty, tmp_path)
    empty.pictures["a"] = "a.tiff"
    with pytest.raises(PortdetError, match=r"use one of \.png"):
        align_page.page(empty, tmp_path)


def test_chart_puts_points_where_they_belong() -> None:
    chart = line_chart([Curve("a", [1, 2, 3], [0.0, 0.5, 1.0], 0)], x_label="epoch", markers=True)
    root = ElementTree.fromstring(chart)
    dots = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in root.iter("circle")]
    assert dots == [(62.0, 250.0), (265.0, 131.0), (468.0, 12.0)]
    log = ElementTree.fromstring(line_chart([Curve("a", [1, 2, 3], [10.0, 0.0, 1000.0], 0)], x_label="s", log=True))
    points = log.find("polyline").get("points").split()  # type: ignore[union-attr]
    assert points == ["62.0,250.0", "468.0,12.0"]  # zero has no logarithm and is left out
    labels = [e.text for e in log.iter("text")]
    assert labels[:3] == ["10", "100", "1,000"]
    long = line_chart([Curve("a", range(5000), [1.0] * 5000, 0)], x_label="s")
    assert long.count(",") < 1000
