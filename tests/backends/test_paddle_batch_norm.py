"""Batch norm in generated Paddle source stores the unbiased variance, as PyTorch does; Paddle's own does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from portdet.session import Arrays
from portdet_paddle.target import TARGET
from tests.backends.paddle_process import run_for_arrays

SOURCE = f"""{TARGET.header}


{TARGET.helpers["BatchNorm2D"]}


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.norm = BatchNorm2D(3, momentum=0.7, epsilon=1e-05)
        self.native = nn.BatchNorm2D(3, momentum=0.7, epsilon=1e-05)

    def forward(self, images, boxes=None, labels=None, valid=None):
        y = self.norm(images)
        if boxes is None:
            return y
        loss = (y * y * y).mean() + (self.native(images) * images).mean()
        return {{"loss": loss, "twice": loss * 2.0}}
"""

SCRIPT = """
leaves = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
names = {f"{layer}.{leaf}": f"{layer}.{own}" for layer in ("norm", "native") for leaf, own in leaves.items()}
recipe = Recipe((Group(("norm.weight", "norm.bias"), 0.0),))
weights = {name: given[name.split(".")[1]] for name in names}
for mode in ("eager", "compiled"):
    session = open_net("net.py", recipe, names, mode)
    session.load_weights(weights)
    for images in given["images"]:
        losses, gradients = session.losses_and_gradients(batch(images))
        session.train_step(batch(images), StepValues(0.0))  # moves the statistics alone
    found[f"{mode}/losses"] = np.array([losses["loss"], losses["twice"]])
    found |= {f"{mode}/gradient.{name}": value for name, value in gradients.items()}
    found |= {f"{mode}/{name}": value for name, value in session.weights().items()}
    found[f"{mode}/predict"] = session.predict(given["images"][0])
    found |= {f"{mode}/after/{name}": value for name, value in session.weights().items()}
"""

MODES = pytest.mark.parametrize("mode", ["eager", "compiled"])


@pytest.fixture(scope="module")
def given() -> Arrays:
    rng = np.random.default_rng(3)
    return {
        "images": rng.normal(0.5, 2.0, (3, 2, 3, 2, 2)).astype(np.float32),  # 8 values a channel: 8/7 is 14 %
        "weight": rng.normal(1.0, 0.2, 3).astype(np.float32),
        "bias": rng.normal(0.0, 0.2, 3).astype(np.float32),
        "running_mean": rng.normal(0.0, 1.0, 3).astype(np.float32),
        "running_var": rng.uniform(0.5, 2.0, 3).astype(np.float32),
    }


@pytest.fixture(scope="module")
def found(given: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    folder: Path = tmp_path_factory.mktemp("norm")
    (folder / "net.py").write_text(SOURCE)
    return run_for_arrays(SCRIPT, folder, given)


@pytest.fixture(scope="module")
def wanted(given: Arrays) -> Arrays:
    """The same three batches through PyTorch in float64."""
    norm = torch.nn.BatchNorm2d(3, momentum=0.3).double()
    norm.load_state_dict(
        {k: torch.from_numpy(v).double() for k, v in given.items() if k != "images"}
        | {"num_batches_tracked": torch.tensor(0)}
    )
    for images in torch.from_numpy(given["images"]).double():
        norm.zero_grad()
        (norm(images) ** 3).mean().backward()
    out = {name: value.numpy() for name, value in norm.state_dict().items()}
    out |= {f"gradient.{name}": value.grad.numpy() for name, value in norm.named_parameters()}
    out["predict"] = norm.eval()(torch.from_numpy(given["images"][0]).double()).detach().numpy()
    return out


@MODES
@pytest.mark.parametrize("name", ["running_mean", "running_var", "gradient.weight", "gradient.bias", "predict"])
def test_equals_torch(found: Arrays, wanted: Arrays, mode: str, name: str) -> None:
    prefix = "" if name == "predict" else "gradient.norm." if name.startswith("gradient") else "norm."
    got = found[f"{mode}/{prefix}{name.removeprefix('gradient.')}"]
    np.testing.assert_allclose(got, wanted[name], rtol=2e-6, atol=1e-6)


@MODES
def test_the_native_layer_alone_would_fail(found: Arrays, wanted: Arrays, mode: str) -> None:
    native = found[f"{mode}/native.running_var"]
    assert np.all(np.abs(native / wanted["running_var"] - 1) > 0.02)
    np.testing.assert_allclose(found[f"{mode}/native.running_mean"], wanted["running_mean"], rtol=2e-6, atol=1e-6)


@MODES
def test_evaluation_changes_no_statistics(found: Arrays, mode: str) -> None:
    for name in ("norm.running_mean", "norm.running_var", "native.running_var"):
        np.testing.assert_array_equal(found[f"{mode}/{name}"], found[f"{mode}/after/{name}"])


@MODES
def test_losses_come_by_name(found: Arrays, mode: str) -> None:
    loss, twice = found[f"{mode}/losses"]
    assert twice == pytest.approx(2 * loss)
