"""What every page is made of: one document that needs no network, sections, cards, tables of cells, swatches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

COLOURS = 8  # in page.css


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page. The script only adds sorting and filtering: everything is there without it."""
    here = Path(__file__)
    css, script = (here.with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{css}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, parts))
        + f"\n</main><script>\n{script}</script></body></html>\n"
    )


def section(title: str, note: str, body: str, *, anchor: str = "", level: int = 2) -> str:
    """A heading, a note in quiet letters, the body (HTML already)."""
    note = f'<p class="quiet">{escape(note)}</p>' if note else ""
    named = f' id="{escape(anchor)}"' if anchor else ""
    return f"<section{named}><h{level}>{escape(title)}</h{level}>{note}{body}</section>"


def swatch(index: int) -> str:
    return f'<span class="swatch c{index % COLOURS}"></span>'


def table(head: Sequence[str], rows: Iterable[str], *, kind: str = "", long: bool = False, name: str = "") -> str:
    """A sortable table in a card of its own that scrolls; heads are HTML, rows whole <tr>. kind: further classes."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(rows)
    label = f' role="region" aria-label="{escape(name)}"' if name else ""
    return (
        f'<div class="card scroll{" long" if long else ""} {kind}" tabindex="0"{label}><table class="sortable">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def words_table(head: Sequence[str], rows: Iterable[Iterable[str]], *, long: bool = False) -> str:
    """A table of words; cells are HTML already."""
    return table(
        head, (f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows), kind="words", long=long
    )


def cell(text: str, key: float | None = None) -> str:
    """A table's cell that is sorted by `key`."""
    return f"<td>{text}</td>" if key is None else f'<td data-key="{key:.9g}">{text}</td>'
