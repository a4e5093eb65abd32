"""darknet's `.cfg`: the layers of a network in order, with the channels that flow through them.

`[kind]` begins a layer, `key=value` lines follow, `#` and `;` begin comments. Defaults are darknet's own
(`src/parser.c`). A layer number below zero counts back from the layer that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portdet.errors import PortdetError, nearest
from portdet.outside import plain, shown
from portdet_convert.files.source import Source

Value = int | str | tuple[int, ...]
_ALIASES = {"conv": "convolutional", "network": "net", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
_DEFAULTS: dict[str, dict[str, Value]] = {
    "net": {"width": 0, "height": 0, "channels": 0},
    "convolutional": {
        "batch_normalize": 0, "filters": 1, "size": 1, "stride": 1, "pad": 0, "padding": 0, "groups": 1, "dilation": 1,
        "activation": "logistic",
    },
    "shortcut": {"from": (), "activation": "linear"},
    "route": {"layers": (), "groups": 1},
    "upsample": {"stride": 2},
    "maxpool": {"size": 1, "stride": 1},
    "yolo": {"classes": 20, "mask": (), "anchors": ()},
    "avgpool": {}, "softmax": {}, "dropout": {}, "cost": {},
}  # fmt: skip
# Options that add values to the weight file or read it in another way.
_FOREIGN = ("weights_type", "share_index", "binary", "xnor", "stride_x", "stride_y", "assisted_excitation", "coordconv")
_MOST = 1 << 20


@dataclass(frozen=True)
class Section:
    """`[kind]` on `line`, and its options: key -> (text, line)."""

    kind: str
    line: int
    options: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A layer: where it stands, channels in and out, and its options with defaults filled in, layer numbers from 0."""

    number: int
    kind: str
    lines: Mapping[str, int]
    cin: int
    cout: int
    options: Mapping[str, Value]

    @property
    def count(self) -> int:
        """Number of float32 values in the weight file."""
        if self.kind != "convolutional":
            return 0
        size, groups = self.options["size"], self.options["groups"]
        assert isinstance(size, int)
        assert isinstance(groups, int)
        return self.cout * (self.cin // groups * size**2 + (4 if self.options["batch_normalize"] else 1))

    def line(self, key: str = "") -> int:
        """Line of an option, or of the section where the option is not written."""
        return self.lines.get(key, self.lines[""])


@dataclass(frozen=True)
class Network:
    """A parsed `.cfg`: path, input (channels, height, width) and layers."""

    path: Path
    size: tuple[int, int, int]
    layers: list[Layer]

    def error(self, what: str, line: int, fix: str = "") -> PortdetError:
        """A `PortdetError` that names the file and the line."""
        return PortdetError(what, where=f"{self.path}, line {line}", fix=fix)


def read(path: str | Path) -> Network:
    """Parse a `.cfg`. Raises `PortdetError` with the line of the first thing that is wrong or not understood."""
    path = Path(path)
    sections = _sections(path)
    options = _options(path, sections[0])
    channels, height, width = (_number(path, sections[0], options, key) for key in ("channels", "height", "width"))
    network = Network(path, (channels, height, width), [])
    for section in sections[1:]:
        network.layers.append(_layer(network, section))
    return network


def beside(path: str | Path) -> Path | None:
    """The `.cfg` that lies beside a weight file under its name, if there is one.

    darknet itself names `NAME.weights`, `NAME_last.weights`, `NAME_1000.weights` and `NAME.conv.74` after `NAME.cfg`.
    """
    path = Path(path)
    whole = re.sub(r"(\.weights|\.conv\.\d+)$", "", path.name)
    names = (whole, re.sub(r"_(last|best|final|\d+)$", "", whole)) if whole != path.name else ()
    return next((cfg for name in names if (cfg := path.with_name(f"{name}.cfg")).is_file()), None)


def _sections(path: Path) -> list[Section]:
    source = Source(path)
    if source.size > _MOST:
        raise source.error(f"is {source.size} bytes long, which no .cfg is", fix="give the network's .cfg file")
    sections: list[Section] = []
    for number, text in enumerate(str(source.data, "utf-8", "replace").splitlines(), start=1):
        line = re.split("[#;]", text)[0].strip()
        where = f"{path}, line {number}"
        if match := re.fullmatch(r"\[\s*(\w+)\s*\]", line):
            sections.append(Section(_ALIASES.get(match[1], match[1]), number))
            _known(sections[-1], where)
        elif line:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not key or not sections:
                raise PortdetError(f"{shown(line, 80)} is neither [layer] nor key=value", where=where)
            before = sections[-1].options.setdefault(key, (value, number))
            if before[0] != value:
                what = f"'{said(key)}' is {said(value)} here and {said(before[0])} on line {before[1]}"
                raise PortdetError(what, where=where)
    if not sections or sections[0].kind != "net":
        raise PortdetError("does not begin with [net]", where=str(path), fix="give the network's .cfg file")
    return sections


def said(value: Value) -> str:
    """A key or value of the file, bounded."""
    if isinstance(value, tuple):
        return ",".join(map(str, value[:30])) + (",..." if len(value) > 30 else "")
    return plain(value[:40]) if isinstance(value, str) else str(value)


def _known(section: Section, where: str) -> None:
    if section.kind not in _DEFAULTS:
        raise PortdetError(
            f"layers of kind [{plain(section.kind[:80])}] are not understood",
            where=where,
            fix=nearest(section.kind[:80], _DEFAULTS),
        )


def _options(path: Path, section: Section) -> dict[str, Value]:
    """The options that matter, with darknet's defaults. Lists of numbers become tuples."""
    found: dict[str, Value] = dict(_DEFAULTS[section.kind])
    for key, default in found.items():
        if key in section.options:
            text, line = section.options[key]
            try:
                if isinstance(default, tuple):
                    found[key] = tuple(_whole(part) for part in text.split(",") if part.strip())
                elif isinstance(default, int):
                    found[key] = _whole(text)
                else:
                    found[key] = text
            except ValueError:
                raise PortdetError(
                    f"{key}={said(text)} in [{section.kind}] is not a whole number", where=f"{path}, line {line}"
                ) from None
    for key in _FOREIGN:
        text, line = section.options.get(key, ("0", section.line))
        if text not in ("0", "none"):
            raise PortdetError(f"{key}={said(text)} in [{section.kind}] is not supported", where=f"{path}, line {line}")
    return found


def _whole(text: str) -> int:
    """A number of 40 bits: of larger ones the products and sums could not even be printed. Raises ValueError."""
    value = int(text)
    if value.bit_length() > 40:
        raise ValueError
    return value


def _number(path: Path, section: Section, options: Mapping[str, Value], key: str) -> int:
    value = options[key]
    if not isinstance(value, int) or not 1 <= value <= _MOST:
        line = section.options.get(key, ("", section.line))[1]
        raise PortdetError(
            f"{key}={shown(value)} in [{section.kind}] is not a number from 1 on", where=f"{path}, line {line}"
        )
    return value


def _layer(network: Network, section: Section) -> Layer:
    number, options = len(network.layers), _options(network.path, section)
    lines = {"": section.line, **{key: line for key, (_, line) in section.options.items()}}
    cin = network.layers[-1].cout if network.layers else network.size[0]
    cout = cin
    if section.kind == "convolutional":
        cout, size, groups = (_number(network.path, section, options, key) for key in ("filters", "size", "groups"))
        if cin % groups or cout % groups:
            raise network.error(f"groups={groups} does not divide {cin} and {cout} channels", lines["groups"])
        if options.pop("pad"):
            options["padding"] = size // 2
        options["batch_normalize"] = int(options["batch_normalize"] != 0)
    elif section.kind in ("route", "shortcut"):
        key = "layers" if section.kind == "route" else "from"
        sources = _sources(network, section, options, key)
        options[key] = tuple(layer.number for layer in sources)
        if section.kind == "route":
            cout = sum(layer.cout for layer in sources) // _number(network.path, section, options, "groups")
        elif any(layer.cout != cin for layer in sources):
            raise network.error(f"[shortcut] adds {sources[0].cout} channels to {cin}", lines[key])
    if cout > _MOST:
        raise network.error(f"layer {number}, [{section.kind}], has more than {_MOST} channels", section.line)
    return Layer(number, section.kind, lines, cin, cout, options)


def _sources(network: Network, section: Section, options: Mapping[str, Value], key: str) -> Sequence[Layer]:
    """The layers that `key` names."""
    named, here = options[key], len(network.layers)
    assert isinstance(named, tuple)
    found = [index if index >= 0 else here + index for index in named]
    if not found or not all(0 <= index < here for index in found):
        them = said(named) or "nothing"
        line = section.options.get(key, ("", section.line))[1]
        raise network.error(f"[{section.kind}] of layer {here} names {them}, which is no layer before it", line)
    return [network.layers[index] for index in found]
