"""The statements of one traced function: names as in the spec, single-use values written in place."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from portdet.errors import PortdetError
from portdet.ir.graph import Call, Function, Node, ParamRef, Size, Value, leaves
from portdet.lower.target import Native, Target
from portdet.lower.text import ATOM, COMPARE, INFIX, PRODUCT, SUM, UNARY, Args, Attrs, Holes, bracket, index_text

INLINE = 64  # longest text that is written in place of a name

CallText = Callable[[Call, list[str], Holes], str]


class Body:
    """Writes one function for one target. `calls` gives the text of a call, which the caller knows how to group.

    layer: whether a call is that of a leaf layer. native: what writes the statements instead, from the static values
    `config`.
    """

    def __init__(
        self,
        function: Function,
        target: Target,
        calls: CallText,
        layer: Callable[[Call], bool],
        taken: frozenset[str],
        native: Native | None = None,
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.function, self.target, self.calls, self.layer = function, target, calls, layer
        self.holes = Holes()
        self.names: dict[Value, str] = {}
        self.inline: dict[Value, Node] = {}
        self.taken = taken | target.reserved | set(target.helpers) | {"self"}
        for value in function.inputs:
            self.names[value] = _free(value.hint or "x", set(self.names.values()) | self.taken)
        attrs = Attrs(config, self.holes, str)
        self.lines: list[str] = self._write() if native is None else native(attrs, self.inputs)

    @property
    def inputs(self) -> list[str]:
        return [self.names[v] for v in self.function.inputs]

    def _write(self) -> list[str]:
        nodes = self.function.nodes
        uses = Counter(v for node in nodes for v in _used(node.args, node.attrs))
        uses.update(leaves(self.function.output))
        asked = {v for node in nodes for v in _sized(node.args, node.attrs)}
        producers: dict[Value, Node] = {}
        for node in nodes:
            producers.update(dict.fromkeys(node.outs, node))
            out = node.outs[0]
            if len(node.outs) == 1 and uses[out] == 1 and out not in asked and self._length(node) <= INLINE:
                self.inline[out] = node
        if len(leaves(self.function.output)) > 1:
            for value in leaves(self.function.output):
                if value in self.inline and self._length(self.inline[value]) > 24:
                    del self.inline[value]
        return self._statements(nodes)

    def _length(self, node: Node) -> int:
        """About how long a node's text is, with inlined arguments written out."""
        template = self.target.ops.get(node.op, "{0} + {1}" if node.op in INFIX else "[..., 0:1]")
        size = len(re.sub(r"{.*?}", "", template)) if isinstance(template, str) else 8 + len(node.op)
        if node.call is not None:
            size = 6 + len(node.call.name)
        size += sum(10 for v in node.attrs.values() if isinstance(v, tuple) and len(v) > 2)
        for value in _used(node.args, {}):
            size += self._length(self.inline[value]) if value in self.inline else 2 + len(value.hint or "abcd")
        return size

    def _statements(self, nodes: tuple[Node, ...]) -> list[str]:
        written = [node for node in nodes if not any(out in self.inline for out in node.outs)]
        last: dict[Value, int] = {}
        for position, node in enumerate(written):
            last.update(dict.fromkeys(self._reach(node), position))
        for value in leaves(self.function.output):
            last.update(dict.fromkeys(self._reach_value(value), len(written)))
        lines: list[str] = []
        result = self.function.output
        for position, node in enumerate(written):
            text, _ = self._node(node)
            if position == len(written) - 1 and isinstance(result, Value) and node.outs == (result,):
                return [*lines, f"return {text}"]
            live = {self.names[v] for v in self.names if last.get(v, -1) > position}
            targets = []
            for out in node.outs:
                if out not in last:
                    targets.append("_")
                    continue
                self.names[out] = _free(out.hint or node.op.strip("_"), live | self.taken)
                live.add(self.names[out])
                targets.append(self.names[out])
            lines.append(f"{', '.join(targets)} = {text}")
        return [*lines, f"return {self._output(result, bare=True)}"]

    def _reach(self, node: Node) -> Iterator[Value]:
        for value in _used(node.args, node.attrs):
            yield from self._reach_value(value)

    def _reach_value(self, value: Value) -> Iterator[Value]:
        if value in self.inline:
            yield from self._reach(self.inline[value])
        else:
            yield value

    def _output(self, output: Any, *, bare: bool = False) -> str:
        """bare: a tuple needs no parentheses."""
        if isinstance(output, Value):
            return self._value(output)[0]
        if isinstance(output, Mapping):
            return "{" + ", ".join(f'"{key}": {self._output(v)}' for key, v in output.items()) + "}"
        listed = ", ".join(self._output(v) for v in output)
        return listed if bare or len(output) == 1 else f"({listed})"

    def _value(self, value: Value) -> tuple[str, int]:
        if value in self.inline:
            return self._node(self.inline[value])
        if isinstance(value, ParamRef):
            raise PortdetError(
                f"weight '{value.name}' is used outside a leaf layer", fix="put it into a leaf layer with a target text"
            )
        return self.names[value], ATOM

    def _arg(self, arg: Any) -> Any:
        if isinstance(arg, Value):
            return self._value(arg)
        if isinstance(arg, Size):
            return self._size(arg)
        if isinstance(arg, tuple):
            return [self._arg(a) for a in arg]
        if isinstance(arg, int | float) and arg < 0:
            return self.holes.add("value", arg), UNARY
        return self.holes.add("value", arg), ATOM

    def _size(self, size: Any) -> tuple[str, int]:
        if not isinstance(size, Size):
            return repr(size), ATOM
        if size.kind == "dim":
            return f"{self._value(size.args[0])[0]}.shape[{size.args[1]}]", ATOM
        level = SUM if size.kind in "+-" else PRODUCT
        left, right = (self._size(arg) for arg in size.args)
        return f"{bracket(*left, level)} {size.kind} {bracket(*right, level + 1)}", level

    def _spare(self, arg: Any) -> bool:
        """Whether it is written in place of a name and comes from a sum or a leaf layer: those need no output."""
        node = self.inline.get(arg) if isinstance(arg, Value) else None
        return node is not None and (node.op == "add" if node.call is None else self.layer(node.call))

    def _node(self, node: Node) -> tuple[str, int]:
        texts = [self._arg(arg) for arg in node.args]
        if node.call is not None:
            check_output(node)
            return self.calls(node.call, [text for text, _ in texts], self.holes), ATOM
        if node.op in INFIX and node.op not in self.target.ops:
            symbol, level = INFIX[node.op]
            left = level + (level == COMPARE)  # comparisons do not chain
            (a, binds_a), (b, binds_b) = texts
            return f"{bracket(a, binds_a, left)} {symbol} {bracket(b, binds_b, level + 1)}", level
        if node.op == "neg":
            text, binds = texts[0]
            return f"-{bracket(text, binds, UNARY)}", UNARY
        attrs = Attrs(node.attrs, self.holes, lambda size: self._size(size)[0])
        args = Args(texts, attrs, self._spare(node.args[0]) if node.args else False)
        if node.op == "getitem" and "getitem" not in self.target.ops:
            return args.tight(0) + index_text(node.attrs["index"]), ATOM
        template = self.target.ops.get(node.op)
        if template is None:
            raise PortdetError(
                f"portdet_{self.target.name} has no '{node.op}'",
                where=node.where,
                fix=f"add a line to backends/portdet_{self.target.name}/target.py",
            )
        if callable(template):
            return template(args), ATOM
        words = {name: attrs[name] for name in node.attrs if f"{{{name}}}" in template}
        places = [args.tight(i) if f"{{{i}}}." in template else args[i] for i in range(len(texts))]
        return template.format(*places, **words), ATOM


def _used(args: Any, attrs: Mapping[str, Any]) -> Iterator[Value]:
    """Every Value that a node mentions, sizes included."""
    for arg in (*args, *attrs.values()) if attrs else args:
        if isinstance(arg, Value):
            yield arg
        elif isinstance(arg, Size | tuple):
            yield from _used(arg.args if isinstance(arg, Size) else arg, {})


def _sized(args: Any, attrs: Mapping[str, Any], inside: bool = False) -> Iterator[Value]:
    """The Values whose sizes a node asks for: they need a name."""
    for arg in (*args, *attrs.values()) if attrs else args:
        if isinstance(arg, Value) and inside:
            yield arg
        elif isinstance(arg, Size | tuple):
            yield from _sized(arg.args if isinstance(arg, Size) else arg, {}, inside or isinstance(arg, Size))


def check_output(node: Node) -> None:
    """The caller takes the outputs apart in their order. Raises PortdetError for what a call cannot give so."""
    assert node.call is not None
    output = node.call.function.output
    if isinstance(output, Value) or (len(output) > 1 and all(isinstance(v, Value) for v in output)):
        return
    kind = "a mapping" if isinstance(output, Mapping) else "a tuple of one" if len(output) == 1 else "a nested tuple"
    raise PortdetError(
        f"'{node.call.name}' returns {kind}",
        where=node.where,
        fix="return a tensor, or a tuple of two tensors and more",
    )


def _free(base: str, taken: set[str] | frozenset[str]) -> str:
    if base not in taken and not keyword.iskeyword(base):
        return base
    return next(name for i in range(2, 10**6) if (name := f"{base}_{i}") not in taken)
