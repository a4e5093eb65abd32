"""YAML from outside as plain values: null, booleans, numbers, text, lists and maps, as large as the text itself.

An alias may stand for what was named before it, and a file may be at most `EXPANDED` characters with all of them
written out: nine lines of nested aliases are 10^9 values to whoever walks through them. What YAML has beyond JSON's
types is refused or text (a date); so is a key that stands twice in one map, of which YAML keeps the last in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from portdet.errors import PortdetError
from portdet.outside import DEEPEST, is_text, plain, read_text, shown

MOST_BYTES = 1 << 18  # of a file; the largest that portdet ships has 2 KB, 1,200 class names 20 KB
EXPANDED = 4 * MOST_BYTES
_LONGEST_NUMBER = 400  # characters; 1:1:1:..., base 60, takes quadratic time
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, fix: str = "", *, most: int = MOST_BYTES) -> Any:
    """The values of a file of at most `most` bytes. Raises `PortdetError` with file and line for any other."""
    return parse_yaml(read_text(path, most=most, fix=fix), plain(str(path)), fix)


def parse_yaml(text: str, where: str, fix: str = "") -> Any:
    """The values of one document; None of an empty one."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = f"not valid YAML{place}: {plain(str(error.problem or error.context)[:200])}"
        raise PortdetError(what, where=where, fix=fix) from None
    except yaml.reader.ReaderError as error:
        what = f"not valid YAML: character {shown(error.character, 20)} at position {error.position}"
        raise PortdetError(what, where=where, fix=fix or "keep printable characters only") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # "\\UFFFFFFFF" is not looked at before chr()
        raise PortdetError(f"not valid YAML: {plain(str(error)[:200])}", where=where, fix=fix) from None


class _Loader(yaml.SafeLoader):
    """Bounds depth and expanded size while nodes are made, so that nothing large is ever built."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (a table of the class, as in its parent)
        letter: [(tag, pattern) for tag, pattern in rules if tag in _TAGS | {_MERGE}]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._most = max(EXPANDED, 2 * len(text))
        self._deep = 0
        self._done: dict[int, tuple[int, int]] = {}  # of a finished node: levels below it, characters with all aliases

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self._deep += 1
        _refuse(self._deep > DEEPEST, f"lists and maps are nested more than {DEEPEST} levels", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._deep -= 1
        if isinstance(event, yaml.AliasEvent):
            _refuse(id(node) not in self._done, f"*{str(event.anchor)[:40]} is inside of what it stands for", event)
        elif node is not None:
            _refuse(node.tag not in _TAGS | {_MERGE}, f"values of type {node.tag[:60]} are not taken", event)
            self._done[id(node)] = self._measured(node)
        if node is not None:
            levels, size = self._done[id(node)]
            _refuse(self._deep + levels > DEEPEST, f"aliases nest more than {DEEPEST} levels", event)
            _refuse(size > self._most, f"with its aliases written out it has over {self._most} characters", event)
        return node

    def _measured(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 0, len(node.value) + 2
        if isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    _refuse((key.tag, key.value) in seen, f"{shown(key.value, 60)} stands twice in one map", key)
                    seen.add((key.tag, key.value))
        inner = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        found = [self._done[id(child)] for child in inner]
        return 1 + max((levels for levels, _ in found), default=0), 2 + sum(size for _, size in found)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            if kind in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
                raise ValueError("too long")
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError):  # `!!bool maybe`, `!!int ""`
            _refuse(True, f"{shown(node.value, 60)} is no {kind}", node)
        _refuse(type(value) is int and value.bit_length() > 63, f"{shown(value)} has over 63 bits", node)
        _refuse(type(value) is str and not is_text(value), f"{shown(value, 60)} is no Unicode text", node)
        return value


def _refuse(bad: bool, problem: str, where: Any) -> None:
    if bad:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)
