"""The configuration: YAML in, checked and fully resolved values out.

A file may name one `_base_` file, whose values it overrides; `key=value` words of the command line come last. Keys
are `section.key`; a key that occurs in one section only may be given alone (`epochs=3`). Every key that nobody knows
is an error that names the nearest known one. `Config.dump` writes the resolved file (`args.yaml`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from portdet.errors import PortdetError, nearest
from portdet.outside import complaint, file_name, plain, shown
from portdet.plain_yaml import parse_yaml, read_yaml
from portdet.section import Section
from portdet.settings import (
    AugmentConfig,
    AugmentKind,
    DataConfig,
    EmaConfig,
    EmaKind,
    EvalConfig,
    OptimConfig,
    TrainConfig,
    Warmup,
)

__all__ = [
    "AugmentConfig",
    "AugmentKind",
    "Config",
    "DataConfig",
    "EmaConfig",
    "EmaKind",
    "EvalConfig",
    "OptimConfig",
    "Section",
    "TrainConfig",
    "Warmup",
    "config_root",
    "find",
    "load",
    "resolved",
    "sections",
]
COMMAND_LINE = "command line"  # where a word's value comes from, in errors


class Config(Section):
    """A whole configuration. `model` is checked by the model's own `Config` (portdet/models/<name>.py)."""

    model: dict[str, Any] = Field(default_factory=lambda: {"name": "yolov3"})
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    augment: AugmentConfig = Field(default_factory=lambda: AugmentConfig())
    optim: OptimConfig = Field(default_factory=lambda: OptimConfig())
    ema: EmaConfig = Field(default_factory=lambda: EmaConfig())
    eval: EvalConfig = Field(default_factory=lambda: EvalConfig())
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())

    def dump(self) -> str:
        """The resolved configuration as YAML; `load` reads it back to the same values."""
        values = self.model_dump(mode="json")
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        # what a terminal would take for a command, as a name that is read from right to left, is spelled as an escape
        return text if text.replace("\n", "").isprintable() else yaml.safe_dump(values, sort_keys=False)


def config_root() -> Path:
    """Folder of the configurations that portdet ships: the checkout's `configs/`, or the installed copy."""
    checkout = Path(__file__).parent.parent / "configs"
    return checkout if checkout.is_dir() else Path(__file__).parent / "configs"


def find(name: str) -> Path:
    """The configuration file of that path or, failing that, of that name among the shipped ones."""
    for candidate in (Path(name), config_root() / Path(name).name, config_root() / f"{Path(name).name}.yaml"):
        if os.path.isfile(candidate):  # Path.is_file raises where a name is longer than any file's
            return candidate
    known = [p.stem for p in config_root().glob("*.yaml")]
    raise PortdetError(f"no configuration {shown(name)}", fix=nearest(Path(name).stem, known))


def read_files(name: str) -> dict[str, Path]:
    """The files that `load` reads, for `files.distinct`."""
    path = find(name)
    base = _read(path).get("_base_")
    return {"the configuration": path} | ({"its _base_": path.parent / base} if isinstance(base, str) else {})


def load(name: str, overrides: tuple[str, ...] | list[str] = (), *, alone: bool = False) -> Config:
    """Read a configuration file (its `_base_` first), apply `key=value` words, and check everything.

    `_base_` may be any path, as from one's own file; `alone` refuses it: a run folder's args.yaml has none, and
    somebody else's must not choose what is read. Raises `PortdetError` naming the file and key for an unknown key, a
    wrong value or unreadable YAML.
    """
    path = find(name)
    values = _read(path)
    where = plain(str(path))
    if "_base_" in values:
        base = values.pop("_base_")
        if alone or type(base) is not str or not base:
            fix = "a run folder's args.yaml is whole" if alone else "name one file: _base_: common.yaml"
            raise PortdetError(f"_base_ is {shown(base)}", where=where, fix=fix)
        base_values = _read(path.parent / base)
        if "_base_" in base_values:
            raise PortdetError(
                f"_base_ file {shown(base)} has a _base_ itself", where=where, fix="keep one level of _base_"
            )
        values = _merge(base_values, values)
    config = resolved(values, overrides, where)
    if not config.train.name:
        config.train.name = file_name(path.stem, "the configuration's name", fix="set train.name")
    return config


def resolved(values: dict[str, Any], overrides: Sequence[str], where: str) -> Config:
    """Sections with their values, read at `where`, under the command line's words; as `load` without a file."""
    given = [_override(values, word) for word in overrides]
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where, given) from None


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path, fix="name a configuration file, or one that `portdet show configs` lists")
    if not isinstance(values, dict):
        raise PortdetError(f"expected sections (model:, data:, ...), found {shown(values)}", where=plain(str(path)))
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(out.get(key), dict) and isinstance(value, dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def sections() -> dict[str, type[Section]]:
    """The sections by name, `model` apart."""
    found = {}
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            found[name] = info.annotation
    return found


def _override(values: dict[str, Any], word: str) -> list[str]:
    """Set what a `key=value` word says; returns the key's path."""
    key, equals, text = word.partition("=")
    if not equals:
        raise PortdetError(f"{shown(word)} is not key=value", fix="write for example epochs=3 or optim.lr0=0.01")
    path = _resolve(key)
    node = values
    for i, part in enumerate(path[:-1], 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            section = shown(".".join(path[:i]))
            raise PortdetError(
                f"{section} is {shown(node)}, which leaves no place for {shown(key)}",
                fix=f"make {section} a section, with its keys indented below it",
            )
    node[path[-1]] = parse_yaml(text, f"{COMMAND_LINE}: {shown(key)}") if text else ""
    return path


def _resolve(key: str) -> list[str]:
    """`epochs` -> ['train', 'epochs']; a dotted key is checked; `model.*` is left to the model."""
    known = {f"{s}.{k}": [s, k] for s, cls in sections().items() for k in cls.model_fields}
    if key.startswith("model.") or key in known:
        return key.split(".", 8)
    alone = [path for path in known.values() if path[1] == key]
    if len(alone) == 1:
        return alone[0]
    if alone:
        raise PortdetError(f"{shown(key)} is in several sections", fix=f"write one of {[f'{s}.{k}' for s, k in alone]}")
    if key in Config.model_fields:
        fix = f"write {key}.KEY=VALUE; see `portdet help {'model NAME' if key == 'model' else f'config {key}'}`"
        raise PortdetError(f"'{key}' is a section, not a key", fix=fix)
    names = known if "." in key else {k for _, k in known.values()}
    raise PortdetError(f"unknown key {shown(key)}", fix=nearest(key, names, "`portdet help config` lists all keys"))


def _explain(error: ValidationError, where: str, given: Sequence[list[str]]) -> PortdetError:
    """pydantic's first complaint in our words, with the nearest known key. given: keys of the command line's words."""
    first = error.errors(include_url=False, include_context=False)[0]
    loc = [str(part) for part in first["loc"]]
    place = ".".join(loc)
    if any(loc[: len(path)] == path for path in given):
        where = COMMAND_LINE
    elif any(path[: len(loc)] == loc for path in given):  # keys that do not go together
        where = f"{where} and {COMMAND_LINE}"
    if first["type"] == "extra_forbidden":
        section = sections().get(str(first["loc"][0])) if len(first["loc"]) > 1 else None
        known = section.model_fields if section else Config.model_fields
        return PortdetError(f"unknown key {shown(place)}", where=where, fix=nearest(str(first["loc"][-1]), known))
    return complaint(error, where, "see `portdet help config`")
