"""One weight file to another format, with a report on every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from portdet import files
from portdet.errors import PortdetError
from portdet.outside import shown
from portdet_convert import aliases, checks, layouts, models, yolov3, yolov3_cfg
from portdet_convert.files import FORMATS, HEADER, WRITERS, WeightsFile, darknet, open_weights, pdparams
from portdet_convert.files.darknet import Conv
from portdet_convert.files.source import Array, Arrays, dtype_name, little, raw
from portdet_convert.naming import WRITTEN
from portdet_convert.report import Report, Row
from portdet_convert.rules import KEPT, Naming, Renamed, UnknownModel, explain, rename, restore

SUFFIXES = {
    ".ckpt": "ckpt", ".npz": "npz", ".pdparams": "pdparams", ".pdema": "pdparams", ".pth": "pth", ".pt": "pth",
    ".safetensors": "safetensors", ".weights": "darknet", ".conv": "darknet",
}  # fmt: skip


def format_of(path: str | Path) -> str:
    """The format that an output name asks for: by its suffix, `.conv.74` included."""
    suffixes = Path(path).suffixes
    for suffix in (*suffixes[-1:], *suffixes[-2:-1]):
        if suffix in SUFFIXES and (suffix != ".conv" or suffixes[-1][1:].isdigit()):
            return SUFFIXES[suffix]
    raise PortdetError(f"cannot tell the format of '{path}'", fix=f"give --to: {', '.join(FORMATS)}")


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: str | None = None,
    names: str | None = None,
    cfg: str | Path | None = None,
    depths: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    allow_nan: bool = False,
    check: Callable[[Path, Report], None] | None = None,
) -> Report:
    """Convert a weight file and report on every tensor: a model of `models.KNOWN`, whole or its backbone, by its rules.

    The formats are told from the content of `src` and from `to` or the name of `dst`; names become those of the
    target's framework under the spec's paths, or with `names` those of one of the model's programs. darknet files are
    YOLOv3's, and hold no shapes: their layers are those of `cfg`, of a model's `depths` and `channels` (stem and five
    stages), of the `.cfg` that lies beside `src`, or the published ones. Every tensor of the file must be used or
    skipped for a stated reason and every tensor of the model filled. In a file of a model that is not known every
    tensor keeps its name, unless a model or names are given; the report says so.
    `dst` appears whole or not at all. `check` gets the written file before it takes the place of `dst`, which stays
    as it was if `check` raises. Raises `PortdetError`.
    """
    target = to or format_of(dst)
    if target not in FORMATS:
        raise PortdetError(f"unknown format '{target}'", fix=f"known: {', '.join(FORMATS)}")
    _check_names(target, names)
    files.distinct({"the converted file": dst}, {"the source": src, "the .cfg": cfg})
    order = yolov3_cfg.order(src, cfg, depths, channels)
    anything = target != "darknet" and names is None and depths is None and channels is None
    file, found = read(src, order, anything=anything)
    arrays = found.arrays
    if not allow_nan:
        checks.finite(arrays, str(src))
    naming = _naming(target, names, found, str(src))
    report = Report(str(src), str(dst), file.format, target, found.naming.name, skipped=found.skipped)
    report.notes = [*order.notes, *found.notes, *_about(Path(src), file)]
    if naming is KEPT:
        report.notes += layouts.notes(file.format, target, arrays)
        report.untransposed = layouts.untransposed(file.format, target, arrays)
    with _unseen(dst) if check else nullcontext(Path(dst)) as path:
        with ThreadPoolExecutor(1) as pool:  # hashing takes as long as writing, and both let go of the interpreter
            checksums = pool.map(checksum, arrays.values())
            written = _write(path, target, naming, arrays, file.metadata)
            for (name, array), digest in zip(arrays.items(), checksums, strict=True):
                source, transform = found.origin[name]
                dtype = dtype_name(array)
                report.rows.append(Row(source, written[name], array.shape, dtype, dtype, transform, digest))
        theirs = {row.source: array for row, array in zip(report.rows, arrays.values(), strict=True)}
        report.shared = aliases.shared(theirs)
        report.notes += aliases.lines(theirs, {row.source: row.checksum for row in report.rows})
        if check:
            check(path, report)
    return report


def read(
    path: str | Path, layers: Callable[[int], Sequence[Conv]], *, anything: bool = False
) -> tuple[WeightsFile, Renamed]:
    """A weight file, and its arrays under canonical names in darknet's order; `layers` as in `open_weights`.

    With `anything` the arrays of a model that is not known come under their own names. Raises `PortdetError` as
    `convert` does.
    """
    with checks.naming_file(path):
        file = open_weights(path, layers)
        try:
            found = models.recognise(file.arrays, file.format)
        except UnknownModel as error:
            if not anything:
                raise
            return file, _kept(file.arrays, f"no known naming: names kept; {error.what}")
        notes = [found.naming.note] if found.naming.note else []
        return file, replace(found, arrays=ordered(found), notes=notes)


def _kept(arrays: Arrays, note: str) -> Renamed:
    """Every tensor under its own name. Raises `PortdetError` for one that cannot be kept."""
    found = rename(KEPT, arrays)
    if found.unknown:
        raise PortdetError(f"{len(found.unknown)} tensors cannot keep their names, first {shown(found.unknown[0])}")
    return replace(found, notes=[note])


def _about(src: Path, file: WeightsFile) -> list[str]:
    """What ppdet's files hold when it trains with an average: it writes two, and exchanges them."""
    if file.metadata.get(pdparams.COPIED):
        return [
            "a copy that was taken in training, as PaddleDetection's .pdema: the weights as trained; their average "
            "(EMA), which it evaluates, is in the .pdparams beside it"
        ]
    if file.format == "pdparams" and src.suffix == ".pdparams" and src.with_suffix(".pdema").is_file():
        return [
            "the average of the weights (EMA), as PaddleDetection writes it where a .pdema lies beside: that holds the "
            "weights as trained"
        ]
    return []


@contextmanager
def _unseen(dst: str | Path) -> Iterator[Path]:
    """A temporary file beside `dst` that takes its place at the end; errors name `dst`."""
    with files.replacing(dst) as temporary:
        try:
            yield temporary
        except PortdetError as error:
            where = error.where.replace(str(temporary), str(dst))
            raise PortdetError(error.what, fix=error.fix, where=where) from None


def ordered(found: Renamed) -> Arrays:
    """The arrays in the network's order. Raises `PortdetError` unless they are exactly the model's."""
    model = models.of(found.arrays)
    wanted = model.expected(found.arrays)
    missing = [name for name in wanted if name not in found.arrays]
    unknown = [*found.unknown, *(found.origin[name][0] for name in set(found.arrays) - set(wanted))]
    if missing or unknown:
        raise PortdetError(
            f"{len(missing)} of {len(wanted)} tensors are not in the file, {len(unknown)} of the file are not used "
            f"({found.naming.name} names): {explain(missing, unknown)}",
            fix=f"give a file of {model.title}, whole or its backbone alone",
        )
    arrays = {name: found.arrays[name] for name in wanted}
    checks.shapes(arrays, model.wanted({name: array.shape for name, array in arrays.items()}))
    return arrays


def _check_names(target: str, names: str | None) -> None:
    """What can be said of `names` before the file is read."""
    if names is not None and target == "darknet":
        raise PortdetError("a darknet file holds no names", fix="leave --names out")
    if names is not None and names not in models.PROGRAMS:
        raise PortdetError(f"unknown names '{names}'", fix=f"known: {', '.join(models.PROGRAMS)}")


def _naming(target: str, names: str | None, found: Renamed, src: str) -> Naming:
    """Whose names the written file has: those of the target's framework, or the chosen ones.

    Raises `PortdetError` where the model has none of the program, or none in a darknet file.
    """
    if found.naming is KEPT:
        return KEPT
    model = models.of(found.arrays)
    if target == "darknet" and model is not models.YOLOV3:
        formats = ", ".join(WRITERS)
        raise PortdetError(
            f"is {model.title}: darknet has no such layers, its files hold YOLOv3",
            where=src,
            fix=f"give one of {formats}",
        )
    if names is not None and names not in model.programs:
        what = f"is {model.title}, of which {names} has no weights"
        raise PortdetError(what, where=src, fix=f"known: {', '.join(model.programs)}")
    return yolov3.DARKNET if target == "darknet" else model.programs[names] if names else WRITTEN[target]


def _write(dst: str | Path, target: str, naming: Naming, arrays: Arrays, metadata: dict[str, str]) -> dict[str, str]:
    """Write the file; canonical name -> name in it."""
    if target == "darknet":
        header = darknet.Header.parse(metadata[HEADER]) if HEADER in metadata else darknet.Header()
        layers = yolov3.layers_of({name: array.shape for name, array in arrays.items()})
        darknet.write(dst, arrays, layers, header)
        return {name: name for name in arrays}
    out, names = restore(naming, arrays)
    WRITERS[target](dst, out, {HEADER: metadata[HEADER]} if HEADER in metadata else None)
    return names


def checksum(array: Array) -> str:
    """First 16 digits of the SHA-256 of the values in C order, little-endian."""
    return hashlib.sha256(raw(little(array))).hexdigest()[:16]
