"""What a page holds before any script has run, read without a browser: colours, order, keys and what is hidden."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from portdet.report import ladder_page
from tests.report.contrast import contrast
from tests.report.ladder_case import rich

CSS = files("portdet.report").joinpath("page.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): #(\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", CSS, re.S))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "align.html"
    ladder_page.save(path, rich())
    return path.read_text(encoding="utf-8")


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour))


def test_contrast_of_known_pairs() -> None:
    """Black on white is 21, a colour on itself 1; #767676 is the lightest grey that WCAG allows on white (4.54)."""
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((9, 99, 200), (9, 99, 200)) == 1
    assert contrast(rgb("767676"), (255, 255, 255)) == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_ink_stands_out(scheme: dict[str, str]) -> None:
    """4.5 for text (WCAG AA) on what it is written on, 3 for the lines of charts on their cards."""
    pairs = [(ink, ground) for ink in ("ink", "quiet", "good", "bad", "open", "c0") for ground in ("ground", "card")]
    pairs += [(verdict, f"{verdict}-ground") for verdict in ("good", "bad", "open")]
    found = {(ink, ground): contrast(rgb(scheme[ink]), rgb(scheme[ground])) for ink, ground in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}
    assert LIGHT.keys() == DARK.keys()
    assert (sum(rgb(scheme["ground"])) < 200) == (scheme is DARK)


def test_without_scripts_all_rows_are_there_and_nothing_waits_for_a_click(page: str) -> None:
    body = page[page.index("<main>") : page.index("</main>")]
    assert body.count("<form") == body.count('<form class="filters" data-table="rows" hidden>') == 1
    assert re.search(r"\.filters\[hidden\] \{ display: none; \}", page)
    assert "<button" not in body
    assert "<tr hidden" not in body


def test_rows_come_with_the_largest_ratio_first_and_keys_for_the_script(page: str) -> None:
    rows = re.findall(r"<tr data-level=.*?</tr>", page[page.index('<div id="rows">') :], re.S)
    assert len(rows) > 500
    for row in rows:
        assert re.match(r'<tr data-level="\w+" data-backend="\w+" data-verdict="\w+">', row), row[:90]
    guilty = [row for row in rows if 'data-verdict="guilty"' in row]
    assert rows[: len(guilty)] == guilty
    ratios = [float(key) for row in guilty for key in re.findall(r'<td data-key="([^"]+)">', row)[:1]]
    assert ratios == sorted(ratios, reverse=True)
    assert len(ratios) > 1


def test_every_filter_offers_what_rows_have(page: str) -> None:
    rows = page[page.index('<div id="rows">') :]
    form = page[page.index('<form class="filters"') : page.index("</form>")]
    for name in ("level", "backend", "verdict"):
        select = re.search(rf'<select name="{name}">(.*?)</select>', form, re.S)
        assert select is not None
        offered = set(re.findall(r'<option value="(\w+)"', select[1]))
        assert set(re.findall(rf'data-{name}="(\w+)"', rows)) <= offered, name


def test_on_paper_tables_are_whole() -> None:
    paper = CSS[CSS.index("@media print") :]
    for rule in (".long { max-height: none; }", ".scroll { overflow: visible; }", "nav, .filters { display: none; }"):
        assert rule in paper


def test_a_training_page_is_sortable_too(tmp_path: Path) -> None:
    from portdet.report import align_page

    training = rich().training
    assert training is not None
    align_page.save(tmp_path / "align.html", training)
    text = (tmp_path / "align.html").read_text(encoding="utf-8")
    assert '<table class="sortable">' in text
    assert text.count("<script>") == 1
