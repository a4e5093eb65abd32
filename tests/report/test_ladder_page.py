"""The ladder's page as a document: every finding is there in words, nothing unescaped, nothing from outside."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from portdet.errors import PortdetError
from portdet.report import ladder_page
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_runs import interval_bar
from portdet.report.ladder_words import place, ratio, sentence
from portdet.report.outcome import Interval, Outcome, Row, load, save
from portdet.report.ratio_chart import Point, ratio_chart
from tests.report.ladder_case import ODD, RULES, rich
from tests.report.test_align_page import Tags


def text_of(page: str) -> str:
    """What a reader sees, as one line of words."""
    body = page[page.index("<main>") : page.index("</main>")]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<wbr>", "", re.sub(r"<(?!wbr)[^>]*>", " ", body))))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "align.html"
    ladder_page.save(path, rich())
    return path.read_text(encoding="utf-8")


def test_it_is_whole_and_needs_no_network(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    links = [address for address in tags.addresses if address.startswith("#")]
    assert links == tags.addresses
    ids = re.findall(r' id="([^"]+)"', page)
    assert {link[1:] for link in links} <= set(ids)
    assert len(ids) == len(set(ids))
    assert not re.search(r"https?://|@import|url\(|<script src|<link", page)


def test_the_verdict_comes_first_and_names_the_first_guilty_place(page: str) -> None:
    text = text_of(page)
    first = (
        "The first place where mindspore differs from torch is the running variance of backbone.stage0.conv0.norm "
        "after one training step"
    )
    order = ["✗ Different", "mindspore, level step is the lowest", first, "It lies apart by 4.9e-03", "The ladder"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "portdet align yolov3_tiny --level all --seeds 3" in text
    assert "paddle, level ranks: could not run to the end" in text
    assert "RuntimeError: <no> launcher" in text
    for passed, word in ((True, "✓ Equivalent"), (None, "? Inconclusive")):
        other = rich()
        other.passed = passed
        assert word in ladder_page.page(other, Path())


def test_every_outcome_is_in_the_ladder(page: str) -> None:
    rungs = page[page.index('<table class="ladder">') :]
    rungs = rungs[: rungs.index("</table>")]
    for outcome in rich().outcomes:
        word = "missed" if outcome.level == "power" else "guilty"
        row = text_of(f"<main>{rungs[rungs.index(f'<b>{outcome.level}</b>') :].partition('</tr>')[0]}</main>")
        for words in (f"{outcome.checked:,} checked", f"{outcome.guilty:,} {word}", f"ratio {ratio(outcome.ratio)}"):
            assert words in row or words.startswith("0 ") or words == "ratio 0"
    assert rungs.count("✗ different") == 3
    assert rungs.count("! could not run") == 1
    assert rungs.count("✗ faults missed") == 1


def test_levels_that_were_not_run_say_so() -> None:
    report = rich()
    report.outcomes = [o for o in report.outcomes if o.level in ("weights", "grad")]
    report.levels = ["weights", "grad", "step"]
    text = text_of(ladder_page.page(report, Path()))
    ladder = text[text.index("The ladder") : text.index("Cross/self ratio by tensor", text.index("The lowest"))]
    assert ladder.count("not reached") == 2
    assert ladder.count("not asked for") == 2 * 8


def test_figures_of_every_section_are_there(page: str) -> None:
    text = text_of(page)
    for words in (
        "0 of 30 held-out healthy runs (95 % sure: below 9.5 %)",
        "23 of 24", "22 of 23", "19 of 20", "12 of 24", *RULES, "cosine above 0.99 fault number 5 ✗ missed",
        "fault number 9 ✓ caught",
        "-0.0210 to +0.0130", "93%", "? inconclusive", "horizon", "AP per epoch", "2, 4 of 8 images each",
        "910", "2.10.0", "0 equivalent, 1 different",
    ):  # fmt: skip
        assert words in text, words
    steps = text[text.index("Teacher-forced steps", text.index("How far")) :]
    assert "182 ✗ 28" in steps


def test_names_are_escaped(page: str) -> None:
    assert "<img" not in page
    assert "<1>" not in page
    assert "<no>" not in page
    assert ODD in text_of(page)
    assert ODD in unescape(re.findall(r"<title>([^<]*onerror[^<]*): [^<]*</title>", page)[0])


def test_the_least_there_can_be() -> None:
    bare = LadderReport("x", "Nothing.", None, "torch", ["torch"], [])
    page = ladder_page.page(bare, Path())
    assert Tags(page).open == []
    assert "torch against itself" in text_of(page)
    row = Row("grad/a", "different", ratio=math.inf, tolerance=1e-7, cosine=math.nan, signed_ulp=math.nan)
    bare.outcomes = [Outcome.of("grad", "paddle", [row, Row("grad/b", "noise", ratio=math.nan)])]
    assert "∞" in text_of(ladder_page.page(bare, Path()))


def test_data_come_back(tmp_path: Path) -> None:
    report = rich()
    report.outcomes[0].rows[0].ratio = math.inf
    report.save(tmp_path / "align.json")
    assert LadderReport.from_json((tmp_path / "align.json").read_text(encoding="utf-8")) == report
    with pytest.raises(PortdetError, match="here: "):
        LadderReport.from_json("[]", "here")
    odd = Outcome.of(
        "train", "nan", [Row("nan", "same", "inf")], intervals=[Interval("a", 0.1, -math.inf, math.inf, 0.1, 1, "x")]
    )
    save(tmp_path / "o.json", odd)
    assert load(tmp_path / "o.json") == odd


def test_words() -> None:
    assert place("step/weights/a.norm.running_var") == "the running variance of a.norm after one training step"
    assert place("step/momentum/a.weight") == "the momentum of the weight of a after one training step"
    assert place("step/ema/a.bias") == "the moving average (EMA) of the bias of a after one training step"
    assert place("grad/a.b.gamma") == "the gradient of the scale of a.b"
    assert place("forward/predict") == "the predictions"
    assert place("loss/loss") == "the total loss"
    assert place("rule/ema_decay") == "the ema decay, which has to be exactly the same"
    assert place("AP50 final") == "AP50 final"
    assert place("loss") == "the total loss"
    assert place("ranks/gradient/a.weight") == "the gradient of the weight of a with several processes"
    assert place("ranks/state/momentum/a.weight").startswith("the momentum of the weight of a after one training step")
    assert place("ranks/batch") == "batch with several processes"
    assert sentence("is 0.1 instead of 0.2") == "It is 0.1 instead of 0.2."
    assert sentence("nothing was found!") == "Nothing was found!"
    assert [ratio(value) for value in (0.123, 9.96, 12345.6, math.inf)] == ["0.12", "10", "12,346", "∞"]


def test_ratios_lie_where_they_belong() -> None:
    """Log scale from 0.1 to 100 over 238 units: a decade is 79.33 of them, 1 lies at 250 - 79.33."""
    points = [Point(1, 1.0, "a", 1, False), Point(2, 10.0, "<b>", 1, False, True), Point(3, 0.0, "same", 1, False)]
    root = ElementTree.fromstring(ratio_chart(points, "x"))
    circles = [(e.get("class"), float(e.get("cx", "")), float(e.get("cy", ""))) for e in root.iter("circle")]
    assert circles == [("dot c1", 62.0, 170.7), ("cross c1", 468.0, 91.3)]
    zones = [(float(e.get("y", "")), float(e.get("height", ""))) for e in root.iter("rect")]
    assert zones == [(12.0, 79.3), (91.3, 31.6)]
    texts = [e.text for e in root.iter("text")]
    assert {"10 different", "4 doubtful", "1 own noise"} <= set(texts)
    guilty = ElementTree.fromstring(ratio_chart([*points, Point(4, math.inf, "c", 1, True)], "x"))
    assert [e.text for e in guilty.iter("text") if e.get("class") == "named c1"] == ["first: c"]


def test_intervals_lie_where_they_belong() -> None:
    """A bar of 180 units for -0.1 to 0.1: 0 is at 90, 0.05 at 135."""
    bar = ElementTree.fromstring(interval_bar(Interval("AP50", 0.0, -0.05, 0.05, 0.1, 3, "equivalent"), 0.1))
    paths = [e.get("d") for e in bar.iter("path")]
    assert paths == ["M90.0 0V26", "M45.0 13.0H135.0"]
    rect = next(bar.iter("rect"))
    assert (rect.get("x"), rect.get("width")) == ("0.0", "180")
    one = interval_bar(Interval("AP50", 0.01, -math.inf, math.inf, 0.1, 1, "inconclusive"), 0.1)
    assert "M0.0 13.0H180.0" in one
    assert one.count("bar open") == 2


def test_of_rows_with_one_name_the_guilty_one_is_first() -> None:
    rows = [Row("loss", "noise", step=0), Row("loss", "different", "is 9 instead of 3", step=7)]
    report = LadderReport("x", "Different.", False, "torch", ["torch", "paddle"], ["free"])
    report.outcomes = [Outcome.of("free", "paddle", rows)]
    text = text_of(ladder_page.page(report, Path()))
    assert "differs from torch is the total loss at training step 7, on level free" in text
    assert "It is 9 instead of 3." in text


def test_curves_of_others_are_one_more_column() -> None:
    report = LadderReport("x", "Different.", False, "torch", ["torch", "paddle"], ["train"])
    report.outcomes = [
        Outcome("train", "torch", True, "AP50 0.500 at the end."),
        Outcome("train", "published curves", False, "paddle: outside by +0.1"),
    ]
    text = text_of(ladder_page.page(report, Path()))
    assert "published curves Different on level train . Paddle: outside by +0.1." in text
    assert "torch ✓ done" in text
    report.outcomes[1].passed = True
    assert "published curves ✓ equivalent" in text_of(ladder_page.page(report, Path()))


def test_an_interval_of_runs_that_learnt_nothing_is_not_equivalent() -> None:
    """AP50 of 0.001 lies inside of any margin; the level leaves it unjudged, so the table may not praise it."""
    it = Interval("AP50 final", 0.0, -0.001, 0.001, 0.1, 2, "equivalent", 1.0, 2)
    report = LadderReport("x", "Inconclusive.", None, "torch", ["torch", "paddle"], ["train"])
    report.outcomes = [Outcome.of("train", "paddle", [Row("AP50 final", "unjudged", "too low")], intervals=[it])]
    assert "✓ equivalent" not in text_of(ladder_page.page(report, Path()))
    report.outcomes[0].rows[0].status = "noise"
    assert "✓ equivalent" in text_of(ladder_page.page(report, Path()))
