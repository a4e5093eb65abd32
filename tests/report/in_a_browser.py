"""The ladder's page in a browser: heads sort, filters filter, nothing overflows, light and dark, and on paper.

Needs an installed Chromium, so it is no part of `make test`: python -m pytest tests/report/in_a_browser.py
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from portdet.report import align_page, ladder_page
from tests.report.browser import Browser
from tests.report.contrast import contrast
from tests.report.ladder_case import rich

ROWS = "[...document.querySelectorAll('#rows tbody tr')]"
SHOWN = f"{ROWS}.filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "align.html"
    ladder_page.save(path, rich())
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture(autouse=True)
def _clean(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    browser.asked.clear()
    yield
    assert browser.errors == []
    assert [address for address in browser.asked if not address.startswith("file:")] == []


def head(number: int) -> str:
    return f"document.querySelector('#rows thead').rows[0].cells[{number}]"


def test_a_click_on_a_head_sorts_and_a_second_turns_it_round(browser: Browser, path: Path) -> None:
    browser.open(path)
    ratios = f"{SHOWN}.map(row => row.cells[5].dataset.key).filter(Boolean).map(Number)"
    before = browser.value(ratios)
    assert before[0] == max(before)  # the largest first, without a click
    browser.value(f"{head(5)}.querySelector('button').click()")
    assert browser.value(f"{head(5)}.getAttribute('aria-sort')") == "descending"
    assert browser.value(ratios) == sorted(before, reverse=True)
    browser.value(f"{head(5)}.querySelector('button').click()")
    assert browser.value(f"{head(5)}.getAttribute('aria-sort')") == "ascending"
    assert browser.value(ratios) == sorted(before)
    keys = browser.value(f"{SHOWN}.map(row => row.cells[5].dataset.key ?? '')")
    assert keys.index("") == len(before) > 500  # what has no ratio stays at the end


def test_the_keyboard_reaches_heads(browser: Browser, path: Path) -> None:
    browser.open(path)
    browser.value(f"{head(4)}.querySelector('button').focus()")
    browser.press("Tab", 9)
    assert browser.value(f"document.activeElement === {head(5)}.querySelector('button')") is True
    browser.press("Enter", 13)
    assert browser.value(f"{head(5)}.getAttribute('aria-sort')") == "descending"
    assert browser.value(f"getComputedStyle({head(5)}.querySelector('button')).outlineStyle") == "solid"


def choose(browser: Browser, name: str, value: str) -> list[list[str]]:
    """Set a filter as a user does; level, backend and verdict of the rows that are left."""
    browser.value(
        f"(() => {{ const field = document.querySelector('form.filters').elements['{name}']; field.value = '{value}';"
        " field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    found: list[list[str]] = browser.value(f"{SHOWN}.map(row => Object.values({{...row.dataset}}))")
    return found


def test_filters_leave_what_was_asked_for(browser: Browser, path: Path) -> None:
    browser.open(path)
    rows = browser.value(f"{ROWS}.length")
    assert browser.value(f"{SHOWN}.length") == rows
    assert {level for level, *_ in choose(browser, "level", "grad")} == {"grad"}
    assert {backend for _, backend, _ in choose(browser, "backend", "paddle")} == {"paddle"}
    assert choose(browser, "verdict", "kink") == [["grad", "paddle", "kink"]]
    assert browser.value("document.querySelector('form.filters output').textContent") == f"1 of {rows} rows"
    for name in ("level", "backend", "verdict"):
        left = choose(browser, name, "")
    assert len(left) == rows
    assert len(choose(browser, "name", "ONERROR")) == 2
    assert browser.value(f"{SHOWN}.every(row => row.cells[0].textContent.includes('<img'))") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_and_ink_stands_out(browser: Browser, path: Path, width: int, scheme: str) -> None:
    browser.open(path, width, 844, scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg, pre') &&"
        f" e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.value(wide) == []
    ladder = "document.querySelector('#ladder .scroll')"
    assert browser.value(f"{ladder}.scrollWidth - {ladder}.clientWidth") == 0
    ground = browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) < 200) == (scheme == "dark")
    for selector in (".quiet", ".verdict b", ".ok", ".failed", ".unsure", "a"):
        colour = browser.value(
            f"getComputedStyle(document.querySelector('main {selector}')).color.match(/\\d+/g).map(Number)"
        )
        assert contrast(colour, ground) > 4.5, selector  # WCAG AA for text


def test_links_lead_to_their_sections(browser: Browser, path: Path) -> None:
    browser.open(path)
    links = browser.value("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert len(links) == 12
    for link in links[1:-1]:
        browser.value(f"document.querySelector('nav a[href=\"{link}\"]').click()")
        top = browser.value(f"document.querySelector('{link}').getBoundingClientRect().top")
        assert 0 <= top < 900 or browser.value("scrollY + innerHeight >= document.documentElement.scrollHeight - 1")


def test_everything_is_there_without_scripts(browser: Browser, path: Path) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path)
        assert browser.value("getComputedStyle(document.querySelector('form.filters')).display") == "none"
        assert browser.value(f"{ROWS}.every(row => row.getBoundingClientRect().height > 10)") is True
        assert browser.value("document.querySelectorAll('thead button').length") == 0
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(browser: Browser, path: Path) -> None:
    browser.open(path)
    paper = base64.b64decode(browser.send("Page.printToPDF", printBackground=True)["data"])
    assert paper.startswith(b"%PDF")
    assert 5 < paper.count(b"/Type /Page\n") < 30


def test_the_training_page_sorts_too(browser: Browser, tmp_path: Path) -> None:
    training = rich().training
    assert training is not None
    align_page.save(tmp_path / "align.html", training)
    browser.open(tmp_path / "align.html", 390, 844)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    first = "document.querySelector('table.sortable tbody tr').cells[0].textContent.trim()"
    tables = "[...document.querySelectorAll('table.sortable')]"
    epochs = f"{tables}.find(t => t.tHead.textContent.startsWith('AP50, epoch'))"
    column = f"[...{epochs}.tBodies[0].rows].map(row => Number(row.cells[0].textContent))"
    assert browser.value(first)
    assert browser.value(column) == list(range(1, 13))
    for _ in range(2):
        browser.value(f"{epochs}.tHead.rows[0].cells[0].querySelector('button').click()")
    assert browser.value(column) == list(range(12, 0, -1))


def test_paper_shows_whole_tables(browser: Browser, path: Path) -> None:
    browser.open(path, 720, 1000)  # about the width of A4 between its margins
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        wide = "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 721).length"
        assert browser.value(wide) == 0
        assert browser.value("getComputedStyle(document.querySelector('.long')).overflowY") == "visible"
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
