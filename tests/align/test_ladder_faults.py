"""Every planted fault: it can be planted, in sources that differ for every backend, and does what its name says."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pytest

from portdet import ops
from portdet.align.ladder.fault_edge import CONVERSION, INPUTS, OPTIMISER
from portdet.align.ladder.fault_graph import again, below, edited, entry, found
from portdet.align.ladder.fault_model import smoothed
from portdet.align.ladder.fault_planting import Planting, applicable
from portdet.align.ladder.fault_session import Taken
from portdet.align.ladder.faults import BANK
from portdet.backends import load_backend, source_text
from portdet.ir.text import print_graph
from portdet.ir.verify import verify
from portdet.models import Detector, load_model
from portdet.reference import run
from portdet.session import Arrays, Batch, Group, Recipe, StepValues
from portdet.train.groups import decays

SECTIONS = {
    "yolov3": {"name": "yolov3", "classes": 3, "width": 1 / 16, "depths": (1, 1, 1, 1, 1)},
    "darknet": {"name": "yolov3", "profile": "darknet", "classes": 3, "width": 1 / 16, "depths": (1, 1, 1, 1, 1)},
    "ppyolo": {"name": "ppyolo", "variant": "nano", "classes": 3},
    "ppyolov2": {"name": "ppyolo", "variant": "v2", "depths": (1, 1, 1, 1), "width": 8, "neck_width": 16, "classes": 3},
}
LEAST = {"yolov3": 55, "darknet": 50, "ppyolo": 60, "ppyolov2": 55}


@dataclass(frozen=True)
class Subject:
    detector: Detector
    recipe: Recipe

    def batch(self, step: int) -> Batch:
        raise NotImplementedError

    def values(self, step: int) -> StepValues:
        return StepValues(lr=1e-3 * (step + 1), ema_decay=0.9 * (1 - 0.5 ** (step + 1)))


@functools.cache
def subject(model: str) -> Subject:
    detector = load_model(SECTIONS[model], imgsz=128 if "pp" in model else 64, max_boxes=4)
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    decayed = tuple(name for name, shape in shapes.items() if decays(name, shape))
    plain = tuple(name for name in shapes if name not in decayed)
    return Subject(detector, Recipe((Group(decayed, 5e-4), Group(plain, 0.0)), clip_norm=10.0, ema=True))


@functools.cache
def planted(model: str) -> dict[str, Planting]:
    return {fault.name: one for fault, one in applicable(BANK, subject(model))}


def test_names_differ_and_every_fault_has_a_place_somewhere() -> None:
    names = [fault.name for fault in BANK]
    assert len(set(names)) == len(names)
    assert set(names) == {name for model in SECTIONS for name in planted(model)}


@pytest.mark.parametrize("model", SECTIONS)
def test_the_bank_is_large_on_every_detector(model: str) -> None:
    assert len(planted(model)) >= LEAST[model]


@pytest.mark.parametrize("model", SECTIONS)
def test_what_has_to_be_named_first_exists(model: str) -> None:
    graph = subject(model).detector.graph
    loss = graph.methods["loss", True].output
    weights = list(graph.weights())
    known = [f"forward/{m.path}" for m in graph.walk()] + [f"loss/{name}" for name in loss] + ["forward/predict"]
    known += [f"{level}/{name}" for level in ("weights", "grad", "step/weights", "step/ema") for name in weights]
    known += [f"step/momentum/{name}" for name, info in graph.weights().items() if info.trainable]
    known += ["rule/lr", "rule/ema_decay"]
    for name, planting in planted(model).items():
        for pattern in planting.first:
            assert any(fnmatchcase(one, pattern) for one in known), (name, pattern)


@pytest.mark.parametrize("model", SECTIONS)
def test_graph_faults_change_every_backend_s_source(model: str) -> None:
    detector = subject(model).detector
    before = print_graph(detector.graph)
    faulty = {name: one.detector for name, one in planted(model).items() if one.detector}
    assert len(faulty) >= 20
    for backend in ("torch", "mindspore", "paddle"):
        target = load_backend(backend).target
        texts = {name: source_text(one, target) for name, one in faulty.items()}
        for text in texts.values():
            ast.parse(text)
        assert len({*texts.values(), source_text(detector, target)}) == len(texts) + 1  # no two alike
    assert print_graph(detector.graph) == before


@pytest.mark.parametrize("model", SECTIONS)
def test_edited_graphs_are_sound(model: str) -> None:
    """All but those whose layers are changed by their arguments alone: their insides are the framework's."""
    names = [name for name, one in planted(model).items() if one.detector]
    checked = 0
    for name in names:
        detector = planted(model)[name].detector
        assert detector is not None
        if detector.graph.config == subject(model).detector.graph.config and _same_layers(detector, model):
            verify(detector.graph)
            checked += 1
    assert checked >= 14


def _same_layers(detector: Detector, model: str) -> bool:
    own = [module.config for module in subject(model).detector.graph.walk()]
    return [module.config for module in detector.graph.walk()] == own


def test_bilinear_is_torchs() -> None:
    import torch

    x = np.random.RandomState(0).randn(2, 3, 4, 5)
    want = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=2, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(smoothed(ops.upsample_nearest(x, factor=2)), want.numpy(), rtol=1e-12)


def test_reordered_channels_are_bgr() -> None:
    """The faulty graph on an image is the healthy one on the image's channels in the other order."""
    it = subject("yolov3")
    detector = planted("yolov3")["channels BGR"].detector
    assert detector is not None
    random = np.random.RandomState(1)
    weights = {
        name: random.uniform(0.5, 1, info.shape) if len(info.shape) == 1 else random.randn(*info.shape) * 0.05
        for name, info in it.detector.graph.weights().items()
    }
    images = random.randn(1, 3, 64, 64)
    got, _ = run(detector.graph, "predict", False, weights, {"images": images})
    want, _ = run(it.detector.graph, "predict", False, weights, {"images": images[:, ::-1]})
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_once_means_one_line_in_training_and_evaluation() -> None:
    graph = subject("yolov3").detector.graph
    pick = lambda site, node: node.op == "upsample_nearest"  # noqa: E731
    _, everywhere = edited(graph, pick, again)
    _, once = edited(graph, pick, again, once=True)
    assert [(s.module, s.method, s.function.training) for s in once] == [("", "heads", True), ("", "heads", False)]
    assert len(everywhere) == len(found(graph, pick)) == 4


def test_entry_is_the_first_layer_that_runs() -> None:
    graph = subject("ppyolo").detector.graph
    assert entry(below(graph, "neck.block0")) == "neck.block0.conv0.conv.conv"
    assert entry(below(graph, "backbone.res2")) == "backbone.res2.0.conv1.conv"


# ---------------------------------------------------------------------- the edge
def edge(name: str, model: str = "yolov3") -> Planting:
    return planted(model)[name]


def taken(state: Arrays, after: Arrays, images: tuple[int, ...] = (2, 3, 64, 64)) -> Taken:
    batch = Batch(np.zeros(images, np.float32), *(np.zeros(1),) * 4)
    return Taken(state, after, batch, StepValues(lr=0.1, ema_decay=0.5))


def steps(model: str = "yolov3") -> Taken:
    """One step of all weights: from 1, momentum 2, with a gradient of 3 (decay included)."""
    before: Arrays = {}
    after: Arrays = {}
    for name, info in subject(model).detector.graph.weights().items():
        one = np.ones(info.shape, np.float32)
        before |= {f"weights/{name}": one, f"ema/{name}": one, f"momentum/{name}": 2 * one}
        velocity = np.float32(0.9 * 2 + 3) * one
        weight = one - np.float32(0.1) * velocity
        after |= {f"weights/{name}": weight, f"momentum/{name}": velocity, f"ema/{name}": 0.5 * one + 0.5 * weight}
    return taken(before, after)


@pytest.mark.parametrize(
    ("name", "velocity", "weight"),
    [
        ("rate inside the velocity", 0.9 * 2 + 0.1 * 3, 1 - (0.9 * 2 + 0.1 * 3)),
        ("gradient dampened", 0.9 * 2 + 0.1 * 3, 1 - 0.1 * (0.9 * 2 + 0.1 * 3)),
        ("a step not taken", 2, 1),
        ("decay decoupled from the gradient", 0.9 * 2 + 3 - 5e-4, 1 - 0.1 * (0.9 * 2 + 3)),
    ],
)
def test_steps_of_other_optimisers(name: str, velocity: float, weight: float) -> None:
    stepped = edge(name).edge.stepped  # type: ignore[union-attr]
    assert stepped is not None
    state = stepped(steps())
    first = "backbone.conv0.conv.weight"
    np.testing.assert_allclose(state[f"momentum/{first}"], velocity, rtol=1e-6)
    np.testing.assert_allclose(state[f"weights/{first}"], weight, rtol=1e-6)


def test_biased_variance_is_what_paddle_stores() -> None:
    """Of 8 samples a channel torch stores 0.95645 and Paddle 0.94939 (measured with torch 2.13 and Paddle 3.3.1)."""
    name = "backblock0.conv0.norm.running_var"  # at stride 32: 2 x 2 cells of 64 px
    it = steps()
    it.before[f"weights/{name}"][:] = 1
    it.after[f"weights/{name}"][:] = 0.95645
    it.after[f"ema/{name}"][:] = 0.5 + 0.5 * 0.95645
    stepped = edge("biased running variance").edge.stepped  # type: ignore[union-attr]
    assert stepped is not None
    state = stepped(it)
    np.testing.assert_allclose(state[f"weights/{name}"], 0.94939, atol=1e-5)
    np.testing.assert_allclose(state[f"ema/{name}"], 0.5 + 0.5 * 0.94939, atol=1e-5)


def test_rounding_to_ten_bits_is_tf32s() -> None:
    images = edge("10 bits of mantissa").edge.images  # type: ignore[union-attr]
    assert images is not None
    x = np.array([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -3.14159274, 0.0], np.float32)
    want = np.array([1.0, 1 + 2**-10, 1 + 2**-10, 1.0, -3.140625, 0.0], np.float32)
    np.testing.assert_array_equal(images(x), want)


def test_every_edge_changes_what_it_is_given() -> None:
    random, state = np.random.RandomState(0), Arrays()
    for name, info in subject("yolov3").detector.graph.weights().items():
        for part in ("weights", "momentum", "ema"):
            state[f"{part}/{name}"] = random.randn(*info.shape).astype(np.float32)
    for fault in [*CONVERSION, *INPUTS, *OPTIMISER]:
        one = edge(fault.name).edge
        assert one is not None
        kinds = [one.loads, one.images, one.batch, one.gradients, one.values, one.stepped]
        assert sum(kind is not None for kind in kinds) == 1
        if one.loads:
            changed = one.loads(state)
            assert changed.keys() == state.keys()
            assert sum(not np.array_equal(changed[name], state[name]) for name in state) >= 1
