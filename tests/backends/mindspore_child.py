"""MindSpore's train step on one small convolution: `python mindspore_child.py IN OUT MODE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from portdet.errors import PortdetError
from portdet.session import Arrays, Batch, Group, Options, Recipe, Session, Source, StepValues
from portdet_mindspore import BACKEND
from tests.backends.test_mindspore_steps import CASES, DECAY, LR, NET

SOURCE = Source(NET, Path("net.py"))
NAMES = {"conv.weight": "conv.weight", "conv.bias": "conv.bias"}


def batch(images: Any) -> Batch:
    n = len(images)
    return Batch(images, np.zeros((n, 1, 4), "f4"), np.zeros((n, 1), "i4"), np.zeros((n, 1), bool), np.arange(n))


def opened(case: dict[str, Any], mode: str, **options: Any) -> Session:
    groups = (Group(("conv.weight",), 0.05), Group(("conv.bias",), 0.0, 2.0))
    chosen = tuple(g for g in groups if g.names[0] in case.get("groups", NAMES))
    keys = ("nesterov", "clip_norm", "dynamic_scale", "ema_zero_start")
    recipe = Recipe(chosen, momentum=0.9, ema=True, **{k: case[k] for k in keys if k in case})
    return BACKEND.open_session(SOURCE, "Net", recipe, NAMES, Options(mode=mode, **options))


def refusal(call: Callable[[], Any]) -> Any:
    """The error's text, as an array."""
    try:
        call()
    except PortdetError as error:
        return np.array(str(error))
    return np.array("")


def main() -> None:
    given, mode = dict(np.load(sys.argv[1])), sys.argv[3]
    weights = {name: given[name] for name in NAMES}
    found: Arrays = {}
    three_steps(found, given, weights, mode)
    session = overflow(found, given, weights, mode)
    averages(found, given, weights, session)
    refusals(found, weights, session, mode)
    found["modes"] = np.array(modes_of_graphs(session, given))
    np.savez(sys.argv[2], **found)


def modes_of_graphs(session: Session, given: Arrays) -> list[int]:
    """MindSpore's mode at each call of a graph in one step."""
    import mindspore as ms

    from portdet_mindspore.graph import Graph

    modes, call = [], Graph.__call__

    def spy(self: Graph, *inputs: Any) -> Any:
        modes.append(ms.get_context("mode"))
        return call(self, *inputs)

    Graph.__call__ = spy
    session.train_step(batch(given["images"][0]), StepValues(0.0, ema_decay=0.5))
    Graph.__call__ = call
    assert ms.get_context("mode") == ms.PYNATIVE_MODE
    return modes


def three_steps(found: Arrays, given: Arrays, weights: Arrays, mode: str) -> None:
    """Every case of the test's list."""
    for label, case in CASES.items():
        session = opened(case, mode)
        session.load_weights(weights)
        for step in range(3):
            values = StepValues(LR[step], case.get("scale", 1.0), DECAY[step])
            result = session.train_step(batch(given["images"][step]), values)
            assert not result.skipped
            found[f"{label}/loss{step}"] = np.array(result.losses["loss"])
        found |= {f"{label}/{name}": array for name, array in session.state().items()}


def overflow(found: Arrays, given: Arrays, weights: Arrays, mode: str) -> Session:
    """A step whose scaled gradient overflows changes nothing; new rates and scales compile nothing."""
    session = opened({"dynamic_scale": True}, mode)
    session.load_weights(weights)
    session.train_step(batch(given["images"][0]), StepValues(0.1, 1024.0, 0.5))
    before = session.state()
    result = session.train_step(batch(given["images"][1]), StepValues(0.1, 3e38, 0.5))
    found["skipped"] = np.array(result.skipped)
    found["loss_of_skipped"] = np.array(result.losses["loss"])
    found["unchanged"] = np.array(all(before[n].tobytes() == a.tobytes() for n, a in session.state().items()))

    graphs = []
    for step in range(4):
        session.train_step(batch(given["images"][0]), StepValues(0.01 * (step + 1), 2.0**step, 0.5 + step / 10))
        graphs.append(compiled())
    small = given["images"][0][:, :, :-1]
    session.train_step(batch(small), StepValues(0.01, 1.0, 0.5))
    found["graphs"] = np.array([*graphs, compiled()])
    return session


def compiled() -> int:
    """Graphs that MindSpore has compiled and keeps, of functions and of cells."""
    from mindspore.graph import api

    return len(api.ms_compile_cache) + sum(map(len, api.cells_compile_cache.values()))


def averages(found: Arrays, given: Arrays, weights: Arrays, session: Session) -> None:
    """The average in the model, and the weights back after it; a shadow on the device gives what the host's gives."""
    raw, average = session.weights(), {n[4:]: a for n, a in session.state().items() if n.startswith("ema/")}
    plain = session.predict(given["images"][0])
    with session.ema_weights(0.5):
        found["held"] = np.array(
            all(np.array_equal(a, average[n] / np.float32(0.5)) for n, a in session.weights().items())
        )
        found["moved"] = np.array(np.abs(session.predict(given["images"][0]) - plain).max())
    found["back"] = np.array(all(raw[n].tobytes() == a.tobytes() for n, a in session.weights().items()))
    found["plain_again"] = np.array(np.array_equal(session.predict(given["images"][0]), plain))

    from portdet.shadow import HostShadow, Shadow
    from portdet_mindspore.ema import DeviceShadow

    live = session.live  # type: ignore[attr-defined]
    shadows: list[Shadow] = [HostShadow(weights, lambda name: live[name].asnumpy(), 2), DeviceShadow(live, weights)]
    for shadow in shadows:
        for decay in (0.9, 0.25):
            shadow.update(decay)
    host, device = (shadow.arrays() for shadow in shadows)
    found["shadows"] = np.array(max(np.abs(host[n] - device[n]).max() for n in host))
    found["shadow_moved"] = np.array(max(np.abs(host[n] - weights[n]).max() for n in host))


def refusals(found: Arrays, weights: Arrays, session: Session, mode: str) -> None:
    """What is refused, in its own words."""
    found["no_average"] = refusal(lambda: BACKEND.open_session(
        SOURCE, "Net", Recipe((Group(("conv.weight",), 0.0),)), NAMES, Options(mode=mode)
    ).ema_weights().__enter__())  # fmt: skip
    found["missing"] = refusal(lambda: session.load_weights({"conv.weight": weights["conv.weight"]}))
    found["misshapen"] = refusal(lambda: session.load_weights({**weights, "conv.bias": np.zeros(5, np.float32)}))
    found["unknown"] = refusal(lambda: session.load_weights({**weights, "conv.gamma": weights["conv.bias"]}))
    for name in ("Ascend", "npu:1", "cuda:0", "tpu", "cpu:x"):
        found[f"device {name}"] = refusal(lambda name=name: opened({}, mode, device=name))  # type: ignore[misc]
    found["float64"] = refusal(lambda: opened({}, mode, precision="float64"))


if __name__ == "__main__":
    main()
