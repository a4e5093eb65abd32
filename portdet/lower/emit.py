"""A whole source file from a graph: spec functions, then classes, each before its first use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from portdet.errors import PortdetError
from portdet.ir.graph import Call, Function, ModuleGraph
from portdet.lower.body import Body
from portdet.lower.group import Group, name_groups
from portdet.lower.target import Target
from portdet.lower.text import Attrs, Holes, wrap


@dataclass
class Text:
    """The text of one instance, holes open. `init` is empty for functions."""

    init: list[str] = field(default_factory=list)
    init_holes: Holes = field(default_factory=Holes)
    bodies: list[tuple[str, str, Body]] = field(default_factory=list)  # method name, condition, body

    def key(self) -> Hashable:
        return tuple(self.init), tuple((name, when, *b.inputs, *b.lines) for name, when, b in self.bodies)


def emit(graph: ModuleGraph, target: Target, *, title: str, notes: str = "") -> str:
    """Source of the whole detector: plain code of the target's framework, that runs without portdet.

    The root class's forward takes `loss`'s inputs; with images alone it is `predict`.
    """
    return _Emitter(graph, target).source(title, notes)


class _Emitter:
    def __init__(self, graph: ModuleGraph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.module_group: dict[int, tuple[Group, int]] = {}
        self.function_group: dict[int, tuple[Group, int]] = {}
        written = [m for m in graph.walk() if not m.leaf and target.native(m) is None]
        self.functions = _by_name(_functions(written), lambda f: f.name, lambda f: [g.name for g in _callees(f)])
        modules = [m for m in graph.walk() if not m.leaf and m.class_name != "Sequential"]
        self.modules = _by_name(modules, lambda m: m.class_name, _child_classes)
        self.taken = frozenset(self.functions)

    def source(self, title: str, notes: str) -> str:
        blocks = [self._function(instances) for instances in self.functions.values()]
        blocks += [self._classes(instances) for instances in self.modules.values()]
        doc = "\n".join(filter(None, [f'"""{title}', notes and "\n" + notes])) + ('\n"""' if notes else '"""')
        self._check_names()
        text = "\n\n\n".join(b for block in blocks for b in block)
        return "\n\n\n".join([f"{doc}\n\n{self.target.header}", *self.target.needed(text), text]) + "\n"

    def _check_names(self) -> None:
        """A function or class of the spec must not hide what the target's own words stand for."""
        own = self.target.reserved | set(self.target.helpers)
        items = [item for known in (self.functions, self.modules) for found in known.values() for item in found]
        for item in items:
            group, _ = (self.function_group if isinstance(item, Function) else self.module_group)[id(item)]
            if group.name in own:
                raise PortdetError(
                    f"'{group.name}' means something else in source for {self.target.name}",
                    where=item.where,
                    fix="give it another name in the spec",
                )

    # ------------------------------------------------------------------ functions
    def _function(self, instances: list[Function]) -> list[str]:
        texts = [
            Text(bodies=[("", "", Body(f, self.target, self._call, lambda _: False, self.taken))]) for f in instances
        ]
        groups = self._group(texts, instances, lambda f: f.name, lambda f: f.config, self.function_group)
        out = []
        for group, members in groups:
            bodies = [texts[i].bodies[0][2] for i in members]
            lines = group.resolve(bodies[0].lines, [b.holes.values for b in bodies], method=False)
            group.name = group.name.lower() if group.name != group.base else group.base
            arguments = [*bodies[0].inputs, *group.ordered()]
            place = instances[members[0]].where
            out.append(
                "\n".join(
                    [
                        f"def {group.name}({', '.join(arguments)}):  # {place}",
                        *(w for line in lines for w in wrap(line, 4)),
                    ]
                )
            )
        return out

    # ------------------------------------------------------------------ classes
    def _classes(self, instances: list[ModuleGraph]) -> list[str]:
        texts = [self._text(module) for module in instances]
        groups = self._group(texts, instances, lambda m: m.class_name, lambda m: m.config, self.module_group)
        return [self._class(group, [instances[i] for i in members], [texts[i] for i in members])
                for group, members in groups]  # fmt: skip

    def _text(self, module: ModuleGraph) -> Text:
        text = Text()
        if module.params:
            raise PortdetError(
                f"{module.class_name} holds weights itself", where=module.where, fix="move them into a leaf layer"
            )
        for name, child in module.children.items():
            text.init.append(f"self.{name} = {self._make(child, text.init_holes)}")
        for name in dict.fromkeys(name for name, _ in module.methods):
            text.bodies += self._modes(module, name)
        return text

    def _modes(self, module: ModuleGraph, name: str) -> Iterator[tuple[str, str, Body]]:
        """A method once, or once per mode where training and evaluation differ."""
        found = {}
        for training in (True, False):
            if function := module.methods.get((name, training)):
                found[training] = Body(
                    function,
                    self.target,
                    lambda c, a, h: self._call(c, a, h, module),
                    lambda call: call.kind == "child" and module.children[call.name].leaf,
                    self.taken,
                    self.target.native(module) if name == "forward" else None,
                    module.config,
                )
        both = list(found.values())
        if len(both) == 2 and both[0].lines == both[1].lines and both[0].holes.values == both[1].holes.values:
            both = both[:1]
        if len(both) == 1:
            yield name, "", both[0]
        else:
            yield name, "if self.training:", found[True]
            yield name, "else:", found[False]

    def _make(self, child: ModuleGraph, holes: Holes) -> str:
        """The expression that makes a child."""
        if child.leaf:
            layer = self.target.layers.get(child.class_name)
            if layer is None:
                raise PortdetError(
                    f"portdet_{self.target.name} has no layer {child.class_name}",
                    where=child.where,
                    fix=f"add it to backends/portdet_{self.target.name}/target.py",
                )
            return layer.make(Attrs(child.config, holes, str))
        if child.class_name == "Sequential":
            return self._sequential(child, holes)
        group, number = self.module_group[id(child)]
        return f"{group.name}({_keywords(group, number, holes)})"

    def _sequential(self, child: ModuleGraph, holes: Holes) -> str:
        scratch = [Holes() for _ in child.children]
        items = [self._make(c, s) for c, s in zip(child.children.values(), scratch, strict=True)]
        plain = {(item, repr(s.values)) for item, s in zip(items, scratch, strict=True)}
        if len(plain) == 1 and len(items) > 1:
            item = self._make(next(iter(child.children.values())), holes)
            return f"{self.target.sequential}(*[{item} for _ in range({holes.add('depth', len(items))})])"
        return f"{self.target.sequential}({', '.join(self._make(c, holes) for c in child.children.values())})"

    def _class(self, group: Group, instances: list[ModuleGraph], texts: list[Text]) -> str:
        first = texts[0]
        methods: dict[str, list[str]] = {}
        for number, (name, when, body) in enumerate(first.bodies):
            holes = [text.bodies[number][2].holes.values for text in texts]
            lines = group.resolve(body.lines, holes, method=True)
            inputs = _inputs([other for own, _, other in first.bodies if own == name], instances[0])
            head = f"def {self.target.forward if name == 'forward' else name}({', '.join(['self', *inputs])}):"
            methods.setdefault(name, [head])
            wrapped = [out for line in lines for out in wrap(line, 8 if when else 4, 106)]
            methods[name] += [f"    {when}", *wrapped] if when else wrapped
        init = group.resolve(first.init, [text.init_holes.values for text in texts], method=False)
        if instances[0] is self.graph:
            methods["forward"] = self._dispatch()
        plural = "s" if len(instances) > 1 else ""
        head = f"class {group.name}({self.target.base}):  # {instances[0].where}, {len(instances)} instance{plural}"
        arguments = ", ".join(["self", *group.ordered()])
        body_lines = [f"def __init__({arguments}):", "    super().__init__()"]
        body_lines += [f"    self.{name} = {name}" for name in group.stored]
        body_lines += [out for line in init for out in wrap(line, 4, 106)]
        blocks = [body_lines, *methods.values()]
        return "\n".join([head, "\n\n".join("\n".join(f"    {line}" for line in block) for block in blocks)])

    def _dispatch(self) -> list[str]:
        """forward: the loss where its second input is given, otherwise the prediction, if the spec has one."""
        loss = self.graph.methods["loss", True]
        inputs = [v.hint for v in loss.inputs]
        if ("predict", False) not in self.graph.methods:
            call = ", ".join(inputs)
            return [f"def {self.target.forward}(self, {call}):", f"    return self.loss({call})"]
        if len(inputs) == 1:
            raise PortdetError(
                f"loss takes '{inputs[0]}' alone, so forward cannot tell it from predict",
                where=loss.where,
                fix="let it take its targets too",
            )
        optional = ", ".join(f"{name}=None" for name in inputs[1:])
        return [
            f"def {self.target.forward}(self, {inputs[0]}, {optional}):",
            f"    if {inputs[1]} is None:",
            f"        return self.predict({inputs[0]})",
            f"    return self.loss({', '.join(inputs)})",
        ]

    # ------------------------------------------------------------------ shared
    def _group(
        self,
        texts: list[Text],
        instances: list[Any],
        base: Callable[[Any], str],
        config: Callable[[Any], Any],
        register: dict[int, tuple[Group, int]],
    ) -> list[tuple[Group, list[int]]]:
        members: dict[Hashable, list[int]] = {}
        for number, text in enumerate(texts):
            members.setdefault(text.key(), []).append(number)
        groups = []
        for numbers in members.values():
            group = Group(base(instances[numbers[0]]), [config(instances[i]) for i in numbers])
            groups.append((group, numbers))
            for place, i in enumerate(numbers):
                register[id(instances[i])] = group, place
        name_groups([group for group, _ in groups])
        return groups

    def _call(self, call: Call, args: list[str], holes: Holes, module: ModuleGraph | None = None) -> str:
        if call.kind == "function":
            group, number = self.function_group[id(call.function)]
            return f"{group.name}({', '.join(filter(None, [*args, _keywords(group, number, holes)]))})"
        if call.kind == "child" and module is not None:
            child = module.children[call.name]
            if child.leaf and child.class_name in self.target.layers:
                layer = self.target.layers[child.class_name]
                args = [layer.call(Attrs(child.config, holes, str), args[0]), *args[1:]]
        return f"self.{call.name}({', '.join(args)})"


def _keywords(group: Group, number: int, holes: Holes) -> str:
    return ", ".join(f"{name}={holes.add(name, group.args[name][number])}" for name in group.ordered())


def _inputs(bodies: list[Body], module: ModuleGraph) -> list[str]:
    """Parameters of a method. What only one of training and evaluation takes comes last and may be left out."""
    few, many = (chosen(bodies, key=lambda body: len(body.inputs)).inputs for chosen in (min, max))
    if many[: len(few)] != few:
        raise PortdetError(
            f"{module.class_name} takes {many} in one mode and {few} in the other",
            where=module.where,
            fix="put inputs of training alone last",
        )
    return [*few, *(f"{name}=None" for name in many[len(few) :])]


def _callees(function: Function) -> list[Function]:
    return [n.call.function for n in function.nodes if n.call is not None and n.call.kind == "function"]


def _functions(modules: list[ModuleGraph]) -> list[Function]:
    """Every spec function that these modules' methods reach, once per call."""
    found: list[Function] = []

    def visit(function: Function) -> None:
        for callee in _callees(function):
            found.append(callee)
            visit(callee)

    for module in modules:
        for function in module.methods.values():
            visit(function)
    return found


def _child_classes(module: ModuleGraph) -> list[str]:
    """Class names below a module that its constructor mentions; a Sequential is looked through."""
    found: list[str] = []
    for child in module.children.values():
        found += _child_classes(child) if child.class_name == "Sequential" else [child.class_name]
    return found


def _by_name(items: list[Any], name: Callable[[Any], str], uses: Callable[[Any], list[str]]) -> dict[str, list[Any]]:
    """Instances by name, every name after the ones it uses. Raises PortdetError for a name that needs itself."""
    instances: dict[str, list[Any]] = {}
    for item in items:
        instances.setdefault(name(item), []).append(item)
    ordered: dict[str, list[Any]] = {}
    inside: list[str] = []  # names that wait for what they use

    def place(key: str) -> None:
        if key in ordered or key not in instances:
            return
        inside.append(key)
        for item in instances[key]:
            for used in uses(item):
                if used in inside:
                    raise PortdetError(
                        f"{used} needs another {used}: {' -> '.join([*inside[inside.index(used) :], used])}",
                        where=item.where,
                        fix=f"give one of them another name: the source says what {used} is before its first use",
                    )
                place(used)
        inside.pop()
        ordered[key] = instances[key]

    for key in instances:
        place(key)
    return ordered
