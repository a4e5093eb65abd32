"""The page of `portdet align`: one HTML file that needs no network, and reads well on a phone and without scripts.

The verdict comes first, in words; then the curves, AP per epoch, the final numbers, the losses, what each backend
found in the same images, and what everything ran on.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.report.align_reference import values_of
from portdet.report.align_run import (
    LAST,
    AlignRun,
    BackendRun,
    Rows,
    epoch_table,
    final_score,
    loss_table,
    metric_table,
)
from portdet.report.align_tables import against_cells, difference, loss_number, number, relative, shown_metrics
from portdet.report.html import COLOURS, document, section, swatch, table, words_table
from portdet.report.progress import duration
from portdet.report.svg import Background, Curve, line_chart

_MEANING = {
    "AP": "mean over IoU .50 to .95",
    "AP50": "IoU at least .50",
    "AP75": "IoU at least .75",
    "APs": "objects under 32² pixels",
    "APm": "32² to 96² pixels",
    "APl": "over 96² pixels",
    "AR1": "recall, 1 box per image",
    "AR10": "recall, 10 boxes",
    "AR100": "recall, 100 boxes",
    "ARs": "recall, under 32² pixels",
    "ARm": "recall, 32² to 96² pixels",
    "ARl": "recall, over 96² pixels",
}
Part = tuple[str, str, str]  # title, note in words, body in HTML
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}


def save(path: Path, run: AlignRun) -> None:
    """Write the page; pictures are looked for relative to its folder."""
    write_text(path, page(run, Path(path).parent))


def page(run: AlignRun, folder: Path) -> str:
    """The whole page. Raises PortdetError for a picture that is missing or of a kind browsers do not show."""
    cards = section("Runs" if run.intro else "Backends", "", _cards(run))
    sections = [section(*part) for part in parts(run, folder)]
    return document(f"portdet align: {run.config_name}", [_verdict(run), cards, *sections])


def parts(run: AlignRun, folder: Path) -> list[Part]:
    """What follows the verdict: title, note in words, body."""
    found = [
        ("Curves", "Equal curves lie on each other: the first one is drawn thickest.", _charts(run)),
        ("Checks", "", _checks(run) if run.checks else ""),
        _against(run),
        ("AP per epoch", "On the same validation images, after each epoch.", _epochs(run)),
        ("At the last validated epoch", _FINAL_NOTE, _final(run)),
        ("Loss at some steps", _LOSS_NOTE, _losses(run) if any(b.step_losses for b in run.backends) else ""),
        *_pictures(run, folder),
        ("Ran on", "", _environment(run)),
    ]
    return [part for part in found if part[2]]


_FINAL_NOTE = (
    "COCO's twelve numbers: AP is average precision, AR average recall; s, m, l are small, medium and large objects. "
    "n/a: there are no such objects."
)
_LOSS_NOTE = (
    "Total loss of the same batch. Rounding errors grow with every step, so the curves must agree closely in the "
    "first steps and only in their course later on."
)


def _verdict(run: AlignRun) -> str:
    tone, word = {True: ("good", "✓ Passed"), False: ("bad", "✗ Not passed"), None: ("open", "? Undecided")}[run.passed]
    names = " · ".join(escape(backend.name) for backend in run.backends)
    intro = run.intro or "one detector, trained from the same initial weights on the same batches on"
    return (
        f'<h1>{escape(run.config_name)}</h1><p class="quiet">portdet align: {escape(intro)} {names}</p>'
        f'<div class="verdict {tone}"><b>{word}</b><p>{escape(run.verdict)}</p>'
        f'<p class="rule">Rule: {escape(run.rule_text)}</p></div>'
    )


def _cards(run: AlignRun) -> str:
    cards = []
    for index, backend in enumerate(run.backends):
        facts = {
            "AP": number(_score(run, backend, "AP")[0]),
            "version": backend.version,
            "device": backend.device,
            "time": duration(backend.seconds) if backend.seconds else "",
        }
        score, when = _score(run, backend, "AP50")
        rows = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
        cards.append(
            f'<div class="card"><h3>{swatch(index)}{escape(backend.name)}</h3>'
            f'<div class="big">{number(score)}</div><div class="quiet">AP50, {when}</div><dl>{rows}</dl></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _charts(run: AlignRun) -> str:
    legend = "".join(f"<span>{swatch(i)}{escape(b.name)}</span>" for i, b in enumerate(run.backends))
    charts = [(f"{metric} per epoch", _epoch_chart(run, metric)) for metric in ("AP50", "AP")]
    charts += [
        (f"{metric} beside the middle of the dashed", _apart_chart(run, metric)) for metric in shown_metrics(run)
    ]
    if any(backend.step_losses for backend in run.backends) or not run.intro:
        charts.append(("Loss per step (log scale)", line_chart(_loss_curves(run), x_label="step", log=True)))
    if run.reference:
        legend += '<span><span class="swatch band"></span>dashed: ' + escape(run.reference.title)
        legend += f"{'; shaded: what its spread allows' if run.reference.spread else ''}</span>"
    cards = "".join(f'<div class="card"><h3>{title}</h3>{svg}</div>' for title, svg in charts)
    return f'<div class="legend">{legend}</div><div class="charts">{cards}</div>'


def _epoch_chart(run: AlignRun, metric: str) -> str:
    behind = None
    if run.reference:
        band = [(epoch, low, high) for epoch, (low, high) in run.reference.allowed(metric).items()]
        curves = [(name, list(run.reference.curve(name, metric).items())) for name in run.reference.curves]
        behind = Background(band, [(name, points) for name, points in curves if points])
    return line_chart(_epoch_curves(run, metric), x_label="epoch", markers=True, background=behind)


def _apart_chart(run: AlignRun, metric: str) -> str:
    """Everything less the middle of the reference's curves: differences of a hundredth become visible."""
    assert run.reference is not None
    middle = {epoch: (low + high) / 2 for epoch, (low, high) in run.reference.span(metric).items()}
    allowed = run.reference.allowed(metric).items()
    band = [(epoch, low - middle[epoch], high - middle[epoch]) for epoch, (low, high) in allowed]
    curves = []
    for curve in _epoch_curves(run, metric):
        points = [(x, y - middle[int(x)]) for x, y in zip(curve.xs, curve.ys, strict=True) if x in middle]
        curves.append(Curve(curve.name, [x for x, _ in points], [y for _, y in points], curve.index))
    theirs = [
        (name, [(epoch, value - middle[epoch]) for epoch, value in run.reference.curve(name, metric).items()])
        for name in run.reference.curves
    ]
    return line_chart(curves, x_label="epoch", markers=True, background=Background(band, [t for t in theirs if t[1]]))


def _epoch_curves(run: AlignRun, metric: str) -> list[Curve]:
    curves = []
    for index, backend in enumerate(run.backends):
        points = [(row["epoch"], row[metric]) for row in backend.epochs if row.get(metric, -1) >= 0]
        curves.append(Curve(backend.name, [x for x, _ in points], [y for _, y in points], index % COLOURS))
    return curves


def _loss_curves(run: AlignRun) -> list[Curve]:
    return [
        Curve(b.name, range(1, len(b.step_losses) + 1), b.step_losses, i % COLOURS) for i, b in enumerate(run.backends)
    ]


def _table(
    run: AlignRun,
    key: str,
    rows: Rows,
    show: Callable[[float | None], str],
    apart: Callable[[float | None], str],
    notes: Mapping[str, str] | None = None,
) -> str:
    """One row per epoch, step or name; one column per backend; the largest difference last."""
    names = [f"{swatch(i)}{escape(b.name)}" for i, b in enumerate(run.backends)]
    lines = []
    for head, values, far in rows:
        note = f' <span class="note">{escape(notes.get(str(head), ""))}</span>' if notes else ""
        cells = "".join(f"<td>{show(value)}</td>" for value in values)
        lines.append(f'<tr><th>{escape(str(head))}{note}</th>{cells}<td class="apart">{apart(far)}</td></tr>')
    return table([escape(key), *names, "largest difference"], lines, long=len(rows) > len(_MEANING))


def _against(run: AlignRun) -> Part:
    """The runs beside published curves, with where those come from."""
    if run.reference is None:
        return "", "", ""
    note = ". ".join(filter(None, [run.reference.trained, f"Source: {run.reference.source}"]))
    tables = []
    for metric in shown_metrics(run):
        (first, *head), rows = against_cells(run, metric)
        body = (f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
        tables.append(table([f"{metric}, {escape(first)}", *map(escape, head)], body))
    return f"Against {run.reference.title}", note, f'<div class="tables wide">{"".join(tables)}</div>'


def _epochs(run: AlignRun) -> str:
    tables = [_table(run, f"{m}, epoch", epoch_table(run, m), number, difference) for m in ("AP50", "AP")]
    return f'<div class="tables">{"".join(tables)}</div>'


def _final(run: AlignRun) -> str:
    return _table(run, "", metric_table(run), number, difference, _MEANING)


def _losses(run: AlignRun) -> str:
    return _table(run, "step", loss_table(run), loss_number, relative)


_MARKS = {
    True: '<span class="ok">✓ holds</span>',
    False: '<span class="failed">✗ fails</span>',
    None: '<span class="unsure">? undecided</span>',
}


def _checks(run: AlignRun) -> str:
    lines = []
    for check in run.checks:
        lines.append([escape(check.name), _MARKS[check.passed], escape(check.detail)])
    return words_table(["check", "", "figures"], lines)


def _pictures(run: AlignRun, folder: Path) -> list[Part]:
    """Pictures of all backends together in full width, then those that each backend has, side by side."""
    found = [
        (_words_of(name), "", f'<div class="pictures wide">{_picture(name, "", folder / file)}</div>')
        for name, file in run.pictures.items()
    ]
    for name in dict.fromkeys(name for backend in run.backends for name in backend.pictures):
        figures = [
            _picture(name, f"{swatch(index)}{escape(backend.name)}", folder / backend.pictures[name])
            for index, backend in enumerate(run.backends)
            if name in backend.pictures
        ]
        found.append((_words_of(name), "", f'<div class="pictures">{"".join(figures)}</div>'))
    return found


def _picture(name: str, caption: str, path: Path) -> str:
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="card">{caption}<img alt="{escape(_words_of(name))}" src="{_data_uri(path)}"></figure>'


def _words_of(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _environment(run: AlignRun) -> str:
    keys = list(dict.fromkeys(key for backend in run.backends for key in backend.environment))
    rows = [[escape(key), *(escape(b.environment.get(key, "")) for b in run.backends)] for key in keys]
    rows.insert(0, ["version", *(escape(b.version) for b in run.backends)])
    rows.insert(1, ["device", *(escape(b.device) for b in run.backends)])
    shared = [[escape(key), escape(value)] for key, value in run.environment.items()]
    own = words_table(["", *(f"{swatch(i)}{escape(b.name)}" for i, b in enumerate(run.backends))], rows)
    return f'<div class="tables">{own}{words_table(["all backends", ""], shared) if shared else ""}</div>'


def _data_uri(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:
        raise PortdetError(f"cannot show {path} on a page", fix=f"use one of {', '.join(_TYPES)}")
    try:
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError as error:
        fix = "give its path from the page's folder"
        raise PortdetError(f"cannot read picture {path}: {error.strerror}", fix=fix) from None


def _score(run: AlignRun, backend: BackendRun, metric: str) -> tuple[float | None, str]:
    """The number that the verdict speaks of, and when it was measured."""
    value, when = final_score(backend, metric), f"mean of the last {LAST} validated epochs"
    if run.intro:  # held against curves, epoch by epoch
        epoch, value = next(reversed(values_of(backend.epochs, metric).items()), (0, math.nan))
        when = f"at epoch {epoch}"
    return (None, "never validated") if math.isnan(value) else (value, when)
