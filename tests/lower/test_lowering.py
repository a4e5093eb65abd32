"""Lowering on small specs: names, sharing of classes, modes, and errors that say what to add."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from portdet import ops
from portdet.errors import PortdetError
from portdet.ir.graph import DType
from portdet.ir.trace import graph
from portdet.lower.emit import emit
from portdet.lower.names import native_names
from portdet.lower.text import wrap
from portdet.spec import BatchNorm2d, Conv2d, Module, Param, Sequential, function
from portdet_torch.target import TARGET


@function
def halved(x: Any, by: float) -> Any:
    y = ops.exp(x)
    return y / by + y


class Unit(Module):
    def __init__(self, cin: int, cout: int, act: str = "relu") -> None:
        self.act = act
        self.conv, self.norm = Conv2d(cin, cout, 3, pads=(1, 1, 1, 1)), BatchNorm2d(cout)

    def forward(self, x: Any) -> Any:
        y = self.norm(self.conv(x))
        return ops.relu(y) if self.act == "relu" else ops.sigmoid(y)


class Net(Module):
    def __init__(self) -> None:
        self.stem = Unit(3, 4, "sigmoid")
        self.body = Sequential([Unit(4, 4), Unit(4, 4)])
        self.tail = Unit(4, 8)

    def loss(self, images: Any, scale: Any) -> Any:
        out = self.tail(self.body(self.stem(images)))
        total = ops.sum(halved(out, 2.0) * scale, axis=None)
        return {"loss": total + ops.sum(halved(out, 3.0), axis=None)}

    def predict(self, images: Any) -> Any:
        return self.tail(self.body(self.stem(images)))


def traced(net: Module | None = None) -> Any:
    images: tuple[tuple[int, ...], DType] = ((2, 3, 8, 8), "float")
    return graph(
        net or Net(),
        {"loss": (True, {"images": images, "scale": ((1,), "float")}), "predict": (False, {"images": images})},
    )


def test_instances_with_equal_text_share_a_class_named_for_what_differs() -> None:
    source = emit(traced(), TARGET, title="")
    assert source.count("class Unit") == 2
    assert "class UnitRelu(nn.Module):" in source
    assert "class UnitSigmoid(nn.Module):" in source
    assert "nn.Sequential(*[UnitRelu(cout=4) for _ in range(2)])" in source


class Noisy(Module):
    def __init__(self) -> None:
        self.unit = Unit(3, 4)

    def forward(self, x: Any, noise: Any = None) -> Any:
        y = self.unit(x)
        return y if noise is None else y * noise


class NoisyNet(Module):
    def __init__(self) -> None:
        self.noisy = Noisy()

    def loss(self, images: Any, noise: Any) -> Any:
        return {"loss": ops.sum(self.noisy(images, noise), axis=None)}

    def predict(self, images: Any) -> Any:
        return self.noisy(images)


def test_an_input_of_training_alone_may_be_left_out() -> None:
    source = emit(
        graph(
            NoisyNet(),
            {
                "loss": (True, {"images": ((2, 3, 8, 8), "float"), "noise": ((2, 4, 8, 8), "float")}),
                "predict": (False, {"images": ((2, 3, 8, 8), "float")}),
            },
        ),
        TARGET,
        title="",
    )
    assert "def forward(self, x, noise=None):" in source
    assert "self.noisy(images, noise)" in source
    assert "return self.noisy(images)\n" in source
    assert "def forward(self, images, noise=None):" in source


def test_inputs_must_agree_but_for_the_last() -> None:
    class Swapped(Noisy):
        def forward(self, x: Any, noise: Any = None) -> Any:
            return self.unit(x) if self.training else self.unit(noise)

    class SwappedNet(Module):
        def __init__(self) -> None:
            self.noisy = Swapped()

        def loss(self, images: Any, noise: Any) -> Any:
            return {"loss": ops.sum(self.noisy(images, noise), axis=None)}

        def predict(self, images: Any) -> Any:
            return self.noisy(None, images)

    shape: tuple[tuple[int, ...], DType] = ((2, 3, 8, 8), "float")
    made = graph(
        SwappedNet(), {"loss": (True, {"images": shape, "noise": shape}), "predict": (False, {"images": shape})}
    )
    with pytest.raises(PortdetError, match="in one mode"):
        emit(made, TARGET, title="")


def test_a_function_called_with_other_constants_takes_them_as_arguments() -> None:
    source = emit(traced(), TARGET, title="")
    assert source.count("def halved(x, by):") == 1
    assert "by=2.0" in source
    assert "by=3.0" in source


def test_a_missing_op_names_the_spec_line_and_the_file_to_change() -> None:
    short = replace(TARGET, ops={name: text for name, text in TARGET.ops.items() if name != "exp"})
    with pytest.raises(PortdetError, match=r"test_lowering.py:\d+: portdet_torch has no 'exp'") as caught:
        emit(traced(), short, title="")
    assert "target.py" in caught.value.fix


HALVED = halved


def namesake() -> Any:
    """Another function of the name `halved`; by way of `doubled` it calls the first one."""

    @function
    def doubled(x: Any) -> Any:
        return HALVED(x, 0.5)

    @function
    def halved(x: Any) -> Any:
        return doubled(x) / 4

    return halved


@function
def countdown(x: Any, steps: int) -> Any:
    y = ops.exp(x)
    return y if steps == 0 else countdown(y, steps - 1)


def test_a_function_that_needs_one_of_its_name_is_an_error() -> None:
    """By way of another function, or by recursion: never a KeyError or an endless descent."""
    other = namesake()

    class Calls(Net):
        def loss(self, images: Any, scale: Any) -> Any:
            return {"loss": ops.sum(other(images * scale), axis=None)}

    class CountsDown(Net):
        def loss(self, images: Any, scale: Any) -> Any:
            return {"loss": ops.sum(countdown(images * scale, 2), axis=None)}

    with pytest.raises(PortdetError, match=r"test_lowering.py:\d+: halved needs .* halved -> doubled -> h") as caught:
        emit(traced(Calls()), TARGET, title="")
    assert "another name" in caught.value.fix
    with pytest.raises(PortdetError, match="countdown needs another countdown: countdown -> countdown"):
        emit(traced(CountsDown()), TARGET, title="")


def test_a_module_that_holds_one_of_its_class_is_an_error() -> None:
    class Nest(Module):
        def __init__(self, depth: int) -> None:
            self.unit = Nest(depth - 1) if depth else Unit(3, 3)

        def forward(self, x: Any) -> Any:
            return self.unit(x)

    class NestNet(Net):
        def __init__(self) -> None:
            super().__init__()
            self.nest = Nest(2)

        def predict(self, images: Any) -> Any:
            return self.nest(images)

    with pytest.raises(PortdetError, match="Nest needs another Nest: Nest -> Nest"):
        emit(traced(NestNet()), TARGET, title="")


def test_a_missing_layer_is_an_error() -> None:
    short = replace(TARGET, layers={"Conv2d": TARGET.layers["Conv2d"]})
    with pytest.raises(PortdetError, match="no layer BatchNorm2d"):
        emit(traced(), short, title="")


def test_weights_outside_a_leaf_layer_are_an_error() -> None:
    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__()
            self.scale = Param((1,), "ones")

        def predict(self, images: Any) -> Any:
            return self.stem(images) * self.scale

    with pytest.raises(PortdetError, match="holds weights itself"):
        emit(traced(Scaled()), TARGET, title="")


def test_modes_that_differ_become_a_branch() -> None:
    class Noisy(Unit):
        def forward(self, x: Any) -> Any:
            y = self.norm(self.conv(x))
            return ops.exp(y) if self.training else y

    class Outer(Net):
        def __init__(self) -> None:
            super().__init__()
            self.stem = Noisy(3, 4)

    source = emit(traced(Outer()), TARGET, title="")
    assert "if self.training:" in source
    assert "else:" in source


def test_native_names_follow_the_layers_table() -> None:
    renamed = replace(TARGET.layers["BatchNorm2d"], names={**TARGET.layers["BatchNorm2d"].names, "weight": "gamma"})
    names = native_names(traced(), replace(TARGET, layers={**TARGET.layers, "BatchNorm2d": renamed}))
    assert names["body.1.norm.weight"] == "body.1.norm.gamma"
    assert names["body.1.conv.weight"] == "body.1.conv.weight"


def test_brackets_follow_precedence() -> None:
    class Sums(Net):
        def loss(self, images: Any, scale: Any) -> Any:
            a = (images - scale) * (images + (scale - images)) / (images * scale)
            b = -(images + scale) - (scale - images)
            return {"loss": ops.sum(a, axis=None) + ops.sum(b, axis=None)}

    source = emit(traced(Sums()), TARGET, title="")
    assert "(images - scale) * (images + (scale - images)) / (images * scale)" in source
    assert "-(images + scale) - (scale - images)" in source


@pytest.mark.parametrize("width", [20, 40, 70])
def test_wrapped_lines_are_the_same_code(width: int) -> None:
    import ast

    line = "value = first(one, two(three, four), [five, six], key=(seven, eight)) + second(nine, ten)[..., 0:2]"
    assert ast.dump(ast.parse("\n".join(wrap(line, 0, width)))) == ast.dump(ast.parse(line))


class Activations(Module):
    """relu of a layer's own tensor, of a sum, of one that is read again, of an op, and of another module's output."""

    def __init__(self) -> None:
        self.first, self.second, self.third = (Conv2d(3, 3, 1) for _ in range(3))
        self.unit = Unit(3, 3, "sigmoid")

    def forward(self, x: Any) -> Any:
        a = ops.relu(self.first(x))
        b = ops.relu(self.second(a) + a)
        c = self.third(b)
        return ops.relu(c) * c + ops.relu(ops.sigmoid(b)) + ops.relu(self.unit(b))


class ActivationsNet(Module):
    def __init__(self) -> None:
        self.body = Activations()

    def loss(self, images: Any, scale: Any) -> Any:
        return {"loss": ops.sum(self.body(images) * scale, axis=None)}

    def predict(self, images: Any) -> Any:
        return self.body(images)


def test_torch_overwrites_only_what_nothing_else_reads() -> None:
    """Not an op's output either, which its own gradient may need, nor a module's, which may be its input."""
    source = emit(traced(ActivationsNet()), TARGET, title="")
    assert "F.relu(self.first(x), inplace=True)" in source
    assert "F.relu(self.second(a) + a, inplace=True)" in source
    assert source.count("inplace=True") == 2, source
    assert source.count("F.relu(") == 5


class LossAlone(Module):
    def __init__(self) -> None:
        self.conv = Conv2d(3, 3, 1)

    def loss(self, images: Any) -> Any:
        return {"loss": ops.sum(self.conv(images), axis=None)}


class NoTargets(LossAlone):
    def predict(self, images: Any) -> Any:
        return self.conv(images)


def test_forward_is_the_loss_where_nothing_else_is() -> None:
    images: tuple[tuple[int, ...], DType] = ((2, 3, 8, 8), "float")
    source = emit(graph(LossAlone(), {"loss": (True, {"images": images})}), TARGET, title="")
    assert "def forward(self, images):\n        return self.loss(images)" in source
    both = graph(NoTargets(), {"loss": (True, {"images": images}), "predict": (False, {"images": images})})
    with pytest.raises(PortdetError, match="loss takes 'images' alone"):
        emit(both, TARGET, title="")


def _mapping(x: Any) -> Any:
    return {"a": x, "b": x + 1.0}


def _nested(x: Any) -> Any:
    return x, (x + 1.0, x * 2.0)


class Inner(Module):
    def __init__(self, returns: Any) -> None:
        self.returns = returns

    def forward(self, x: Any) -> Any:
        return self.returns(x)


class Outer(Module):
    def __init__(self, returns: Any, take: Any) -> None:
        self.inner, self.take = Inner(returns), take

    def predict(self, x: Any) -> Any:
        return self.take(self.inner(x)) * 2.0

    def loss(self, x: Any, y: Any) -> Any:
        return {"loss": self.take(self.inner(x)) * y}


@pytest.mark.parametrize(
    ("returns", "take", "words"),
    [
        (_mapping, lambda out: out["b"], "'inner' returns a mapping"),
        (_nested, lambda out: out[1][0], "'inner' returns a nested tuple"),
        (lambda x: (x,), lambda out: out[0], "'inner' returns a tuple of one"),
    ],
)
def test_a_module_that_returns_what_a_caller_cannot_take_apart_is_an_error(returns: Any, take: Any, words: str) -> None:
    """Its caller would take names for tensors: `a, b = self.inner(x)` of a mapping."""
    one: tuple[tuple[int, ...], DType] = ((1, 2), "float")
    traced = graph(Outer(returns, take), {"predict": (False, {"x": one}), "loss": (True, {"x": one, "y": one})})
    with pytest.raises(PortdetError, match=words) as raised:
        emit(traced, TARGET, title="")
    assert "test_lowering.py" in raised.value.where


def test_a_detector_may_return_tuples_within_a_mapping() -> None:
    class Named(Module):
        def loss(self, x: Any, y: Any) -> Any:
            return {"loss": x, "both": (x, y * 2.0)}

    one: tuple[tuple[int, ...], DType] = ((1, 2), "float")
    source = emit(graph(Named(), {"loss": (True, {"x": one, "y": one})}), TARGET, title="")
    assert 'return {"loss": x, "both": (x, y * 2.0)}' in source
