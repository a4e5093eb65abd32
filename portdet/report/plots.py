"""Pictures of a run, with matplotlib (imported when one is drawn; no display, no global state)."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from portdet.errors import plain
from portdet.evaluate.coco_map import NAMES, RECALLS, CocoScores, text
from portdet.files import replacing
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun
from portdet.report.colours import colour, hexadecimal
from portdet.session import Array

_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a class may be named $x$
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
}
_MARKERS = "osD^vPX*"


@contextmanager
def _figure(path: Path, width: float, height: float) -> Any:
    """A figure that is written to `path` when the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        yield figure
        with replacing(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name; it is drawn as a box
            figure.savefig(temporary, dpi=120)


def results(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """`results.png` from the rows of results.csv: loss and its parts, AP, AP by size, learning rate."""
    parts = [k for k in (rows[0] if rows else {}) if k not in {"epoch", "time", "step", "lr", "images_per_s", *NAMES}]
    with _figure(path, 12, 7.5) as figure:
        loss, ap, by_size, rate = figure.subplots(2, 2).flat
        for index, name in enumerate(parts):
            _line(loss, rows, name, index, linewidth=2.6 if name == "loss" else 1.4)
        _log_if_wide(loss, [row[name] for row in rows for name in parts if name in row])
        for index, name in enumerate(("AP50", "AP", "AP75")):
            _line(ap, rows, name, index)
        for index, name in enumerate(("APs", "APm", "APl", "AR100")):
            _line(by_size, rows, name, index)
        _line(rate, rows, "lr", 0)
        best = max((r for r in rows if r.get("AP", -1) >= 0), key=lambda r: r["AP"], default=None)
        if best:
            ap.axvline(best["epoch"], color="#999999", linestyle=":", zorder=0)
            ap.set_title(f"Average precision (best AP {best['AP']:.3f}, epoch {best['epoch']:.0f})")
        else:
            ap.set_title("Average precision")
        for axes, title in ((loss, "Training loss"), (by_size, "By size of object"), (rate, "Learning rate")):
            axes.set_title(title)
        for axes in (ap, by_size):
            axes.set_ylim(0, 1)
        for axes in (loss, ap, by_size, rate):
            axes.set_xlabel("epoch")
            _whole_epochs(axes)
            if axes is not rate and axes.get_legend_handles_labels()[0]:
                axes.legend(ncols=2)


def side_by_side(path: Path, run: AlignRun) -> None:
    """`side_by_side.png`: AP50 and AP per epoch and loss per step, a curve per backend."""
    with _figure(path, 15, 4.8) as figure:
        ap50, ap, loss = figure.subplots(1, 3)
        for index, backend in enumerate(run.backends):
            _line(ap50, backend.epochs, "AP50", index, label=plain(backend.name), marker=True)
            _line(ap, backend.epochs, "AP", index, label=plain(backend.name), marker=True)
            steps = np.arange(1, len(backend.step_losses) + 1)
            width = max(0.8, 3.2 - index)  # thinner above thicker: equal curves all show
            colour_of = hexadecimal(colour(index))
            loss.plot(
                steps, backend.step_losses, linewidth=width, label=plain(backend.name), color=colour_of, alpha=0.85
            )
        for axes, metric in ((ap50, "AP50"), (ap, "AP")):
            _published(axes, run.reference, metric)
        for axes, title, unit in (
            (ap50, "AP at IoU .50, per epoch", "epoch"),
            (ap, "AP at IoU .50:.95, per epoch", "epoch"),
            (loss, "Loss per step (log scale)", "step"),
        ):
            axes.set_title(title)
            axes.set_xlabel(unit)
            if any(len(line.get_xdata()) for line in axes.lines):
                axes.legend(fontsize=8 if run.reference else None)
        for axes in (ap50, ap):
            axes.set_ylim(bottom=0)
            _whole_epochs(axes)
        if any(value > 0 for backend in run.backends for value in backend.step_losses):
            _log(loss)
        elif not any(backend.step_losses for backend in run.backends):
            loss.set_axis_off()
            loss.text(0.5, 0.5, "no losses were kept", ha="center", transform=loss.transAxes)
        title = f"{plain(run.config_name)}: {len(run.backends)} {'runs' if run.intro else 'backends'} side by side"
        figure.suptitle(f"{title}, against {plain(run.reference.title)}" if run.reference else title, fontweight="bold")


def _published(axes: Any, reference: Reference | None, metric: str) -> None:
    """The reference's curves, dashed and grey; what they allow, shaded."""
    if reference is None:
        return
    if allowed := reference.allowed(metric):
        low, high = zip(*allowed.values(), strict=True)
        axes.fill_between(list(allowed), low, high, color="#888888", alpha=0.25, label="allowed", zorder=0)
    for index, name in enumerate(reference.curves):
        if curve := reference.curve(name, metric):
            style = {"color": "#777777", "linestyle": "--", "linewidth": 1.2, "marker": "+x1234"[index % 6]}
            axes.plot(list(curve), list(curve.values()), label=plain(name), zorder=1, **style)


def labels(path: Path, ground_truth: Mapping[str, Any]) -> None:
    """Statistics of a COCO ground truth: boxes per class and per image, sizes, centres. Images need width, height."""
    images = {image["id"]: image for image in ground_truth["images"]}
    rows = [a for a in ground_truth["annotations"] if a["image_id"] in images]
    size = np.array([[images[a["image_id"]][k] for k in ("width", "height")] for a in rows], float).reshape(-1, 2)
    box = np.array([a["bbox"] for a in rows], float).reshape(-1, 4)
    share, centre = box[:, 2:] / size, (box[:, :2] + box[:, 2:] / 2) / size
    names = {c["id"]: plain(c["name"]) for c in ground_truth["categories"]}
    label = np.array([a["category_id"] for a in rows], np.int64)
    counts = {k: int((label == k).sum()) for k in names}
    per_image = list(Counter(dict.fromkeys(images, 0) | Counter(a["image_id"] for a in rows)).values())
    most = sorted(counts, key=lambda k: -counts[k])[:30]
    with _figure(path, 12, 9) as figure:
        classes, number, sizes, centres = figure.subplots(2, 2).flat
        classes.barh([names[k] for k in most], [counts[k] for k in most], color=hexadecimal(colour(0)))
        classes.invert_yaxis()
        for index, k in enumerate(most):
            classes.text(counts[k], index, f" {counts[k]}", va="center")
        classes.set_title(f"{len(rows)} boxes, {len(names)} classes" + (" (30 largest)" if len(names) > 30 else ""))
        number.hist(per_image, bins=np.arange(max(per_image, default=0) + 2) - 0.5, color=hexadecimal(colour(2)))
        number.set_title(f"Boxes per image, {len(images)} images")
        for index, k in enumerate(most[:8]):
            sizes.scatter(*share[label == k].T, s=10, alpha=0.5, color=hexadecimal(colour(index)), label=names[k])
        sizes.set(xlabel="width / image width", ylabel="height / image height")
        sizes.set_title("Size of boxes")
        sizes.legend(markerscale=2)
        _heat(centres, centre)


def _heat(axes: Any, centre: Array) -> None:
    grid, _, _ = np.histogram2d(centre[:, 1], centre[:, 0], bins=24, range=[[0, 1], [0, 1]])
    axes.imshow(grid, extent=(0, 1, 1, 0), cmap="Blues", aspect="auto")
    axes.grid(False)
    axes.set_title("Where the centres are")
    axes.set(xlabel="x / image width", ylabel="y / image height")


def precision_recall(path: Path, scores: CocoScores) -> None:
    """Precision against recall at IoU .50: a curve per class (the ten with most boxes), and their mean."""
    known = [i for i, one in enumerate(scores.classes) if one.boxes]
    with _figure(path, 7.5, 6) as figure:
        axes = figure.subplots()
        for index, i in enumerate(sorted(known, key=lambda i: -scores.classes[i].boxes)[:10]):
            one = scores.classes[i]
            label = f"{plain(one.name)}  {text(one.ap50)}"
            axes.plot(RECALLS, scores.precision[i], color=hexadecimal(colour(index)), label=label, linewidth=1.4)
        if known:
            label = f"all classes  {text(scores.numbers['AP50'])}"
            axes.plot(RECALLS, scores.precision[known].mean(0), color="black", linewidth=3, label=label)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.set_title("Precision and recall at IoU .50 (number: AP50)")
        if known:
            axes.legend(loc="lower left")


def confusion(path: Path, matrix: Array, names: Sequence[str]) -> None:
    """The matrix of `evaluate.confusion`: share of each true class in colour, counts as numbers."""
    words = [*map(plain, names), "background"]
    share = matrix / np.maximum(matrix.sum(0, keepdims=True), 1)
    side = min(16.0, 3.5 + 0.8 * len(words))
    with _figure(path, side + 1.2, side) as figure:
        axes = figure.subplots()
        shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_xticks(range(len(words)), words, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(words)), words)
        for row, column in zip(*np.nonzero(matrix), strict=True) if len(words) <= 30 else ():
            tint = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=tint)
        axes.set(xlabel="what is there", ylabel="what was found")
        axes.set_title("Confusion of classes")
        figure.colorbar(shown, ax=axes, shrink=0.8, label="share of what is there")


def _line(
    axes: Any,
    rows: Sequence[Mapping[str, float]],
    name: str,
    index: int,
    *,
    label: str = "",
    marker: bool = False,
    linewidth: float = 2.0,
) -> None:
    """One column over epochs; epochs without a value (or with -1, undefined) leave no point."""
    points = [(r["epoch"], r[name]) for r in rows if name in r and math.isfinite(r[name])]
    points = [p for p in points if p[1] >= 0 or name not in NAMES]
    if points:
        dot = _MARKERS[index % len(_MARKERS)] if marker or len(points) < 3 else None
        style = {"color": hexadecimal(colour(index)), "linewidth": linewidth, "marker": dot, "alpha": 0.85}
        axes.plot(*zip(*points, strict=True), label=label or name, markersize=max(4, 9 - 2 * index), **style)


def _log_if_wide(axes: Any, values: Sequence[float]) -> None:
    """Log scale where the positive values span more than a factor of 20."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        _log(axes)


def _log(axes: Any) -> None:
    """A logarithmic axis whose numbers are plain text; matplotlib would write powers of ten as math."""
    from matplotlib.ticker import LogFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def _whole_epochs(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
