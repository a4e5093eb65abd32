"""Reads the printed form of a graph (`portdet.ir.text`). Expressions go through `ast`; nothing is evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from portdet.errors import PortdetError
from portdet.ir.graph import Call, DType, Function, ModuleGraph, Node, ParamInfo, ParamRef, Size, Value
from portdet.ir.infer import retype, size_value
from portdet.ops.table import OPS, Type, type_of

_SIZE_OPS: dict[type[ast.operator], Any] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//"}
_DTYPES = ("float", "float32", "int32", "bool")


def parse_graph(text: str) -> ModuleGraph:
    """The graph that `print_graph` wrote. Raises PortdetError with the line number where the text is not one."""
    return _Reader(text).module("")


@dataclass
class _Block:
    """A heading and its lines, each with its number."""

    number: int
    heading: str
    where: str
    lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Section(_Block):
    """A module: its parameter lines and its methods."""

    methods: list[_Block] = field(default_factory=list)


class _Reader:
    """Splits the text into sections, then builds each Function when it is first called."""

    def __init__(self, text: str) -> None:
        self.modules: dict[str, _Section] = {}
        self.blocks: dict[str, _Block] = {}
        self.built: dict[tuple[str, str, bool], Function] = {}
        block: _Block | None = None
        for number, line in enumerate(text.splitlines(), start=1):
            kind, _, rest = line.strip().partition(" ")
            if kind == "module" and not line.startswith(" "):
                path, _, heading = rest.partition(": ")
                block = section = _Section(number, *_place(heading))
                self.modules[path.strip(".")] = section
            elif kind == "function" and not line.startswith(" "):
                block = _Block(number, *_place(rest))
                self.blocks[rest.partition("(")[0]] = block
            elif kind == "def" and line.startswith("  def ") and self.modules:
                block = _Block(number, *_place(rest))
                section.methods.append(block)
            elif kind and block is not None:
                block.lines.append((number, line.strip()))
            elif kind:
                raise PortdetError(f"not a graph: {line!r}", where=f"line {number}", fix="begin with a module section")

    def module(self, path: str) -> ModuleGraph:
        if path not in self.modules:
            raise PortdetError(f"no section 'module {path or '.'}'", fix="print the graph again")
        section = self.modules[path]
        call = section.heading.removesuffix(", leaf")
        head = _expression(call, section.number)
        if not isinstance(head, ast.Call):
            raise _wrong(section.heading, section.number)
        return ModuleGraph(
            class_name=cast(ast.Name, head.func).id,
            path=path,
            config={str(k.arg): _literal(k.value, section.number) for k in head.keywords},
            where=section.where,
            leaf=call != section.heading,
            params=_params(section),
            children={name: self.module(f"{path}.{name}".lstrip(".")) for name in self.children(path)},
            methods={(f.name, f.training): f for f in (self.method(path, block) for block in section.methods)},
        )

    def children(self, path: str) -> list[str]:
        prefix = f"{path}." if path else ""
        below = [other.removeprefix(prefix) for other in self.modules if other and other.startswith(prefix)]
        return [name for name in below if "." not in name]

    def method(self, path: str, block: _Block) -> Function:
        name, training = block.heading.partition("(")[0], block.heading.endswith(", training")
        key = path, name, training
        if key not in self.built:
            params = _params(self.modules[path])
            self.built[key] = _Body(self, path, params, name, training).read(block)
        return self.built[key]

    def child(self, path: str, name: str, training: bool, number: int) -> Function:
        """The method of a module, by name, in this mode."""
        for block in self.modules[path].methods if path in self.modules else ():
            if block.heading.startswith(f"{name}(") and block.heading.endswith(", training") == training:
                return self.method(path, block)
        raise PortdetError(f"module '{path}' has no {name} for training={training}", where=f"line {number}")

    def function(self, label: str, number: int) -> Function:
        if label not in self.blocks:
            raise PortdetError(f"no section 'function {label}'", where=f"line {number}")
        key = "", "function " + label, False
        if key not in self.built:
            block = self.blocks[label]
            training = block.heading.endswith(", training")
            self.built[key] = _Body(self, "", {}, _hint(label), training).read(block)
        return self.built[key]


class _Body:
    """Reads one Function."""

    def __init__(self, reader: _Reader, path: str, params: Mapping[str, ParamInfo], name: str, training: bool) -> None:
        self.reader, self.path, self.name, self.training = reader, path, name, training
        self.params = {key: ParamRef(info.shape, "float", name=key) for key, info in params.items()}
        self.values: dict[str, Value] = {}
        self.number = 0

    def read(self, block: _Block) -> Function:
        self.number = block.number
        head = block.heading.removesuffix(", training")
        arguments = cast(ast.FunctionDef, _statement(f"def {head}: pass", block.number)).args
        for arg in arguments.args:
            dims, dtype = self.type(arg.annotation)
            self.values[arg.arg] = Value(dims, dtype, hint=_hint(arg.arg))
        inputs = tuple(self.values.values())
        static = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        config = {arg.arg: _literal(default, block.number) for arg, default in static}
        nodes: list[Node] = []
        updates: dict[str, Value] = {}
        output: Any = None
        for self.number, line in block.lines:
            if line.startswith("return "):
                output = self.item(_expression(line.removeprefix("return "), self.number))
            elif line.startswith("self.") and " -> " not in line:
                name, _, value = line.removeprefix("self.").partition(" = ")
                updates[name] = self.item(_expression(value, self.number))
            else:
                nodes.append(self.node(line))
        return Function(self.name, inputs, tuple(nodes), output, block.where, self.training, config, updates)

    def node(self, line: str) -> Node:
        line, where = _place(line)
        code, _, types = line.rpartition(" -> ")
        names, _, right = code.partition(" = ")
        op, args, attrs, call = self.right(_expression(right, self.number))
        made = zip(names.split(", "), self.types(types), strict=True)
        outs = {name: Value(dims, dtype, where, _hint(name)) for name, (dims, dtype) in made}
        self.values.update(outs)
        return Node(op, args, attrs, tuple(outs.values()), where, call)

    def right(self, tree: ast.expr) -> tuple[str, tuple[Any, ...], dict[str, Any], Call | None]:
        if isinstance(tree, ast.Subscript):
            index = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
            parts = tuple(_index(part, self.number) for part in index)
            return "getitem", (self.item(tree.value),), {"index": parts}, None
        if not isinstance(tree, ast.Call):
            raise _wrong(ast.unparse(tree), self.number)
        args = tuple(self.item(arg) for arg in tree.args)
        attrs = {str(keyword.arg): self.item(keyword.value) for keyword in tree.keywords}
        if isinstance(tree.func, ast.Name):
            if tree.func.id not in OPS:
                raise PortdetError(f"unknown op '{tree.func.id}'", where=f"line {self.number}")
            return tree.func.id, args, attrs, None
        return "call", args, attrs, self.call(tree.func, [type_of(arg) for arg in args])

    def call(self, callee: ast.expr, types: Sequence[Type]) -> Call:
        name = str(_literal(callee.slice, self.number)) if isinstance(callee, ast.Subscript) else _attribute(callee)
        if ast.unparse(callee).startswith("function."):
            function = self.reader.function(name, self.number)
            return Call("function", function.name, function)
        if name in self.reader.children(self.path):
            path = f"{self.path}.{name}".lstrip(".")
            function = self.reader.child(path, "forward", self.training, self.number)
        else:
            function = self.reader.child(self.path, name, self.training, self.number)
        if [type_of(value) for value in function.inputs] != list(types):  # a module called at several sizes
            function = retype(function, types)
        return Call("child" if name in self.reader.children(self.path) else "method", name, function)

    def item(self, tree: ast.expr) -> Any:
        """An argument, attribute or output."""
        if isinstance(tree, ast.Name):
            if tree.id not in self.values:
                raise PortdetError(f"'{tree.id}' is not defined", where=f"line {self.number}")
            return self.values[tree.id]
        if isinstance(tree, ast.Attribute):
            if tree.attr not in self.params:
                raise PortdetError(f"'{ast.unparse(tree)}' is not a weight here", where=f"line {self.number}")
            return self.params[tree.attr]
        if isinstance(tree, ast.Tuple):
            return tuple(self.item(part) for part in tree.elts)
        if isinstance(tree, ast.Dict):
            keys = [_literal(key, self.number) for key in tree.keys]
            return dict(zip(keys, (self.item(value) for value in tree.values), strict=True))
        if isinstance(tree, ast.Subscript | ast.BinOp):
            return self.size(tree)
        return _literal(tree, self.number)

    def size(self, tree: ast.Subscript | ast.BinOp) -> Size:
        if isinstance(tree, ast.Subscript):
            value = self.item(cast(ast.Attribute, tree.value).value)
            axis = int(_literal(tree.slice, self.number))
            return Size("dim", (value, axis), value.dims[axis])
        kind = _SIZE_OPS[type(tree.op)]
        size = Size(kind, (self.item(tree.left), self.item(tree.right)), 0)
        return Size(kind, size.args, size_value(size, lambda value: value.dims))

    def types(self, text: str) -> list[Type]:
        tree = _expression(text, self.number)
        return [self.type(part) for part in (tree.elts if isinstance(tree, ast.Tuple) else [tree])]

    def type(self, tree: ast.expr | None) -> Type:
        name = tree.value if isinstance(tree, ast.Subscript) else tree
        if not isinstance(name, ast.Name) or name.id not in _DTYPES:
            raise PortdetError("a type is missing", where=f"line {self.number}", fix="write float[2, 3] or int32")
        if not isinstance(tree, ast.Subscript):
            return (), cast(DType, name.id)
        dims = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
        return tuple(int(_literal(dim, self.number)) for dim in dims), cast(DType, name.id)


def _hint(name: str) -> str:
    """The spec's name of a printed value: `y__1` -> `y`, `_0` -> none."""
    return re.sub(r"__\d+$", "", name) if not re.fullmatch(r"_\d+", name) else ""


def _place(line: str) -> tuple[str, str]:
    code, _, where = line.rpartition("  # ")
    return code, where.strip()


def _wrong(code: str, number: int) -> PortdetError:
    return PortdetError(f"cannot read {code!r}", where=f"line {number}")


def _statement(code: str, number: int) -> ast.stmt:
    try:
        return ast.parse(code).body[0]
    except (SyntaxError, IndexError):
        raise _wrong(code, number) from None


def _expression(code: str, number: int) -> ast.expr:
    statement = _statement(code.strip(), number)
    if not isinstance(statement, ast.Expr):
        raise _wrong(code, number)
    return statement.value


def _attribute(tree: ast.expr) -> str:
    return tree.attr if isinstance(tree, ast.Attribute) else ast.unparse(tree)


def _literal(tree: ast.expr | None, number: int) -> Any:
    try:
        if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "float":  # float('inf')
            return float(ast.literal_eval(tree.args[0]))
        return ast.literal_eval(cast(ast.expr, tree))
    except (ValueError, TypeError):
        raise _wrong(ast.unparse(tree) if tree else "", number) from None


def _index(tree: ast.expr, number: int) -> Any:
    if isinstance(tree, ast.Slice):
        return slice(*(None if bound is None else _literal(bound, number) for bound in (tree.lower, tree.upper)))
    return _literal(tree, number)


def _params(section: _Block) -> dict[str, ParamInfo]:
    return dict(_param(line, number) for number, line in section.lines)


def _param(line: str, number: int) -> tuple[str, ParamInfo]:
    name, _, right = line.partition(" = ")
    tree = _expression(right, number)
    if not isinstance(tree, ast.Call) or ast.unparse(tree.func) not in ("param", "buffer"):
        raise _wrong(line, number)
    shape = tuple(int(_literal(arg, number)) for arg in tree.args)
    return name, ParamInfo(shape, ast.unparse(tree.func) == "param", str(_literal(tree.keywords[0].value, number)))
