"""The one gate for what comes from outside: files, names, folders, YAML, JSON, command lines.

Whatever passes here is of a known type and a bounded size before anything is made of it, and is shown in a bounded
text of one line without a terminal's commands. Nothing that passes can run, hang, or name another place.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from portdet.errors import PortdetError, plain, plain_lines

__all__ = ["plain", "plain_lines"]  # the rest is public by its name

LONGEST_SHOWN = 120  # characters of a value in a message
LONGEST_NAME = 200  # of a file or folder name: file systems take 255 bytes, and ours get suffixes
MOST_BYTES = 1 << 28  # of a file in a run's folder; steps.csv has 100 bytes a step
DEEPEST = 64  # nested lists and maps in a file
_ITEMS = 8  # of a list or a map that are shown
_DEEP = 3  # levels that are shown

_SURROGATES = re.compile("[\ud800-\udfff]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a file's name may well hold what is no control and not printable

T = TypeVar("T")


def shown(value: Any, limit: int = LONGEST_SHOWN) -> str:
    """A value from outside as text for a person: one line, at most `limit` characters, no control characters.

    Only the built-in types are looked into, each within its bound; of anything else the type's name is shown. Takes
    time bounded by `limit`, whatever the value: a list that holds itself 10^9 times, an integer of 10^6 digits.
    """
    text = _text(value, limit, _DEEP)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _text(value: Any, limit: int, deep: int) -> str:
    kind = type(value)
    if kind is str:
        cut = value[:limit]
        return f"'{plain(cut)}'" + ("..." if len(value) > limit else "")
    if kind is bytes:
        return f"{len(value)} bytes" if len(value) > limit else plain(repr(value))
    if kind is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if value is None or kind in (bool, int, float, complex):
        return repr(value)
    if kind in (list, tuple, set, frozenset, dict):
        return _many(value, limit, deep)
    return f"a value of type {plain(kind.__name__[:limit])}"


def _many(value: Any, limit: int, deep: int) -> str:
    opening, closing = "()" if type(value) is tuple else "[]" if type(value) is list else "{}"
    if not deep:
        return f"{opening}... {len(value)} items{closing}" if value else opening + closing
    parts: list[str] = []
    room = limit
    for item in value:
        if len(parts) == _ITEMS or room <= 0:
            parts.append("...")
            break
        part = _text(item, room, deep - 1)
        if type(value) is dict:
            part += f": {_text(value[item], room, deep - 1)}"
        parts.append(part)
        room -= len(part)
    if type(value) is tuple and len(value) == 1:
        parts[0] += ","
    return opening + ", ".join(parts) + closing


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON and YAML can spell half of a surrogate pair, which no file takes."""
    return text.isascii() or not _SURROGATES.search(text)


def read_text(path: Path, *, most: int, fix: str = "") -> str:
    """A regular file of at most `most` bytes, as UTF-8. Never waits: a pipe is refused unopened."""
    fix = fix or "check the path and that it is UTF-8 text"
    try:
        return read_bytes(path, most=most, fix=fix).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PortdetError(f"cannot be read: {error}", where=plain(str(path)), fix=fix) from None


def read_bytes(path: Path, *, most: int, fix: str = "") -> bytes:
    """A regular file of at most `most` bytes. Never waits, as `read_text`."""
    where = plain(str(path))
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise PortdetError("is not a regular file", where=where, fix=fix or "name the file itself")
        if about.st_size > most:
            raise PortdetError(f"has {about.st_size} bytes, at most {most} are read", where=where, fix=fix)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or half a surrogate pair
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PortdetError(f"cannot be read: {reason}", where=where, fix=fix or "check the path") from None


def parse_json(text: str, where: str, fix: str = "", *, nan: bool = False, deep: bool = False) -> Any:
    """JSON of at most `DEEPEST` levels.

    nan: NaN and infinities, which JSON has not and Python's json writes, are numbers. deep: as deep as Python reads,
    for files of 10^6 entries of which only checked values are used.
    """

    def constant(name: str) -> float:
        if nan:
            return float(name)
        raise ValueError(f"{name} is no JSON number")

    try:
        value = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:LONGEST_SHOWN]
        raise PortdetError(f"not valid JSON: {what}", where=where, fix=fix) from None
    if not deep:
        check_depth(value, where)
    return value


def read_json(path: Path, model: TypeAdapter[T], fix: str = "", *, nan: bool = False) -> T:
    """A JSON file of portdet's own making, which may be somebody else's: its values as the model."""
    where = plain(str(path))
    return checked(model, parse_json(read_text(path, most=MOST_BYTES, fix=fix), where, fix, nan=nan), where, fix)


def read_csv(path: Path, fix: str = "") -> list[list[str]]:
    """The lines of a CSV file, the columns' names first; [] of an empty one."""
    text = read_text(path, most=MOST_BYTES, fix=fix)
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error as error:  # a cell of over 131072 characters
        raise PortdetError(f"not valid CSV: {error}", where=plain(str(path)), fix=fix) from None


def check_depth(value: Any, where: str) -> None:
    """Raise where lists and maps are nested more than `DEEPEST` levels. For trees, as JSON gives them; no recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [item.values() if type(item) is dict else item for item in level if type(item) in (list, dict)]
        level = [value for values in inner for value in values if type(value) in (list, dict)]
        if not level:
            return
    raise PortdetError(f"lists and maps are nested more than {DEEPEST} levels", where=where, fix="flatten the file")


def checked(model: TypeAdapter[T], value: Any, where: str, fix: str = "") -> T:
    """`value` as a pydantic adapter's model, or a `PortdetError` with the first complaint, its place and the value."""
    try:
        return model.validate_python(value)
    except ValidationError as error:
        raise complaint(error, where, fix) from None


def complaint(error: ValidationError, where: str, fix: str = "", *, under: str = "") -> PortdetError:
    """pydantic's first complaint in bounded words, its place below `under`: `3.bbox = [1, 2]: list should have ...`."""
    first = error.errors(include_url=False, include_context=False)[0]
    parts = [under, *(str(part)[:LONGEST_SHOWN] for part in first["loc"][:8])]
    place = ".".join(part for part in parts if part)
    value = "" if first["type"] == "missing" else f"{' = ' if place else 'is '}{shown(first['input'])}"
    classes = first["type"] in ("model_type", "dataclass_type")  # pydantic would name ours
    reason = "no map of names to values" if classes else first["msg"][:300].lower().removeprefix("value error, ")
    return PortdetError(f"{place}{value}: {reason}", where=where, fix=fix)


def file_name(name: str, what: str, fix: str = "") -> str:
    """`name` where it can be the name of one file or folder: no separator, no control character, short."""
    bad = (
        "is empty" if not name
        else "is a folder's way up or itself" if name in (".", "..")
        else "holds a path separator" if "/" in name or "\\" in name
        else "holds control characters" if CONTROLS.search(name)
        else f"has over {LONGEST_NAME} bytes" if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME
        else ""
    )  # fmt: skip
    if bad:
        raise PortdetError(f"{what} {shown(name)} {bad}", fix=fix or "give a plain name")
    return name


def path_text(text: str) -> str:
    """`text` where it can be a path; a ValueError, for pydantic's fields, where it cannot."""
    if CONTROLS.search(text):
        raise ValueError("a path holds no control characters")
    return text


def below(folder: Path, name: str, what: str, fix: str = "") -> Path:
    """The path `name` inside `folder`. Raises for one that is absolute, climbs out, or holds control characters."""
    parts = PurePosixPath(name).parts
    bad = (
        "is empty" if not parts
        else "is absolute" if name.startswith(("/", "\\"))
        else "climbs out of its folder" if ".." in parts
        else "has a part of over 255 bytes" if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts)
        else "holds control characters" if CONTROLS.search(name)
        else ""
    )  # fmt: skip
    if bad:
        raise PortdetError(f"{what} {shown(name)} {bad}", where=plain(str(folder)), fix=fix or "give a path inside")
    return folder / name


def named(values: Mapping[str, Any], limit: int = 6) -> str:
    """The first keys of a map from outside, bounded: for messages that list what was found."""
    keys = [shown(key, 40) for _, key in zip(range(limit), values, strict=False)]
    return ", ".join(keys) + (f", ... ({len(values)} in all)" if len(values) > limit else "")
