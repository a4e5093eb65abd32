"""COCO's twelve numbers and the table per class, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portdet.evaluate.coco_map import CocoScores, text

if TYPE_CHECKING:
    from rich.table import Table


def score_table(scores: CocoScores) -> list[Table]:
    """Two tables: the twelve numbers; boxes, AP and AP50 of each class."""
    from rich.table import Table

    from portdet.console import cell

    numbers = Table(title="COCO metric", title_justify="left")
    for name in scores.numbers:
        numbers.add_column(name, justify="right")
    numbers.add_row(*(text(value) for value in scores.numbers.values()))
    classes = Table(title="per class", title_justify="left")
    classes.add_column("class")
    for name in ("boxes", "AP", "AP50"):
        classes.add_column(name, justify="right")
    for one in scores.classes:
        classes.add_row(cell(one.name), str(one.boxes), text(one.ap), text(one.ap50))
    return [numbers, classes]
