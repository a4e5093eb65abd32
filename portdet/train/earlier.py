"""What an earlier run left in a folder: it is never written over, but resumed, refused, or set aside whole."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Collection
from pathlib import Path

from portdet.errors import PortdetError

SIGNS = ("args.yaml", "results.csv", "steps.csv", "weights")
OF_A_TRAINING = (
    *SIGNS, "environment.json", "session.json", "metrics.json", "detections.json", "results.png", "labels.png",
    "train_batch.jpg", "val_batch.jpg", "PR.png", "confusion.png", "ranks",
)  # fmt: skip
_ASIDE = re.compile(r"earlier\d+")


def make_room(folder: Path, *, exist_ok: bool, say: Callable[[str], None]) -> None:
    """Refuse a folder that holds a training; with `exist_ok` set that aside, and say where it is."""
    found = next((name for name in SIGNS if (folder / name).exists()), "")
    if not found:
        return
    if not exist_ok:
        raise PortdetError(
            f"holds a run already ({found})",
            where=str(folder),
            fix=f"continue it with `portdet train --resume {shlex.quote(str(folder))}`, name another folder, or add "
            "exist_ok=true: it is then set aside, and a new run starts here",
        )
    aside = set_aside(folder, OF_A_TRAINING)
    say(f"the run that was in {folder} is now in {aside}")


def clear(folder: Path, say: Callable[[str], None]) -> None:
    """Set aside all that an alignment's folder holds, and say where it is."""
    if aside := set_aside(folder):
        say(f"what was in {folder} is now in {aside}")


def set_aside(folder: Path, names: Collection[str] = ()) -> Path | None:
    """Move `names`, or all that is not hidden, into the first free of earlier1, earlier2, ...; None if nothing is."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if (path.name in names if names else not path.name.startswith(".") and not _ASIDE.fullmatch(path.name))
    ]
    if not found:
        return None
    for number in itertools.count(1):
        aside = folder / f"earlier{number}"
        try:
            aside.mkdir()
        except FileExistsError:
            continue
        for path in found:
            path.rename(aside / path.name)
        return aside
    raise AssertionError("itertools.count ended")


def nothing_saved(folder: Path) -> bool:
    """Whether a run was stopped before its first checkpoint, so that it goes on from its very beginning."""
    return not (folder / "results.csv").exists() and not list((folder / "weights").glob("*.safetensors"))
