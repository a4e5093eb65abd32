"""darknet's own file into the net that portdet generates for each framework, strictly, and out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run as portdet
from portdet_convert import convert, load_canonical, open_weights, yolov3
from portdet_convert.files.source import BFLOAT16, Arrays, as_float32
from tests.bundles import near

Run = Callable[[str, Path], str]
THIN8 = (4, 8, 16, 32, 64, 128)

TORCH = """
import numpy as np, torch
from net import YOLOv3
net = YOLOv3().eval()
left = net.load_state_dict(torch.load('w.pth', weights_only=True), strict=False)
assert not left.unexpected_keys, left
assert all(name.endswith('.num_batches_tracked') for name in left.missing_keys), left
with torch.no_grad():
    outputs = net.heads(torch.from_numpy(np.load('x.npy')))
np.savez('y.npz', *[y.numpy() for y in outputs])
state = net.state_dict()
torch.save(state, 'out.zip'); torch.save(state, 'out.legacy', _use_new_zipfile_serialization=False)
optimiser = torch.optim.SGD(net.parameters(), .1, .9)
torch.save({'epoch': 7, 'model': state, 'optimizer': optimiser.state_dict()}, 'out.checkpoint')
torch.save(torch.nn.DataParallel(net).state_dict(), 'out.parallel')
for kind in (torch.float16, torch.bfloat16):
    narrow = {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(narrow, str(kind).split('.')[1])
"""
MINDSPORE = """
import mindspore as ms, numpy as np
from mindspore.train import serialization
ms.set_context(mode=ms.PYNATIVE_MODE)
from net import YOLOv3
net = YOLOv3().set_train(False)
left = ms.load_param_into_net(net, ms.load_checkpoint('w.ckpt'), strict_load=True)
assert left == ([], []), left
np.savez('y.npz', *[y.asnumpy() for y in net.heads(ms.Tensor(np.load('x.npy')))])
ms.save_checkpoint(net, 'out.ckpt')
ms.save_checkpoint(net, 'out.crc.ckpt', crc_check=True)
ms.save_checkpoint(net, 'out.separate.ckpt', integrated_save=False, append_dict={'epoch_num': 7, 'note': 'hello'})
ms.save_checkpoint(net, 'out.safetensors', format='safetensors')
for name, kind in (('float16', ms.float16), ('bfloat16', ms.bfloat16)):
    ms.save_checkpoint([{'name': p.name, 'data': p.value().astype(kind)} for p in net.get_parameters()], name + '.ckpt')
optimiser = ms.nn.Momentum(net.trainable_params(), 0.1, 0.9)
parameters = [*net.get_parameters(), *optimiser.get_parameters()]
ms.save_checkpoint([{'name': p.name, 'data': p} for p in {p.name: p for p in parameters}.values()], 'out.training.ckpt')
serialization.SLICE_SIZE = 16  # KB instead of 512 MiB: the larger tensors go into several records
ms.save_checkpoint(net, 'out.split.ckpt')
"""
PADDLE = """
import copy, numpy as np, paddle
from net import YOLOv3
net = YOLOv3()
net.eval()
left = net.set_state_dict(paddle.load('w.pdparams'))
assert left == ([], []), left
with paddle.no_grad():
    outputs = net.heads(paddle.to_tensor(np.load('x.npy')))
np.savez('y.npz', *[y.numpy() for y in outputs])
state = net.state_dict()
for protocol in (2, 4):
    paddle.save(state, f'out.{protocol}', protocol=protocol)
paddle.save({'epoch': 7, 'model': state}, 'out.checkpoint')
paddle.save(copy.deepcopy(state), 'out.pdema')
for kind in ('float16', 'bfloat16'):
    paddle.save({name: value.astype(kind) for name, value in state.items()}, kind)
"""


@pytest.mark.parametrize(
    ("backend", "script", "form"),
    [("torch", TORCH, "pth"), ("mindspore", MINDSPORE, "ckpt"), ("paddle", PADDLE, "pdparams")],
)
def test_in_and_out(oracles: Path, tmp_path: Path, run_alone: Run, backend: str, script: str, form: str) -> None:
    folder = oracles / "darknet_yolov3_thin8"
    (tmp_path / "c.yaml").write_text("model: {name: yolov3, profile: darknet, width: 0.125, classes: 80}\n")
    assert portdet(["emit", str(tmp_path / "c.yaml"), "--backend", backend, "-o", str(tmp_path / "net.py")]) == 0
    convert(folder / "yolov3_thin8.weights", tmp_path / f"w.{form}")
    want = np.load(folder / "eval.npz")
    np.save(tmp_path / "x.npy", want["input"])
    run_alone(script, tmp_path)
    with np.load(tmp_path / "y.npz") as found:
        for got, layer in zip(found.values(), ("layer81", "layer93", "layer105"), strict=True):
            # sums in float32 on both sides, over up to 1152 products in 75 layers
            near(got, want[layer], 2e-5)
    comes_back(folder / "yolov3_thin8.weights", tmp_path)
    narrow(folder / "yolov3_thin8.weights", tmp_path)


def comes_back(source: Path, folder: Path) -> None:
    """Every file that the framework wrote of the net, as a darknet file: the values that darknet wrote."""
    written = sorted(folder.glob("out.*"))
    assert len(written) >= 4
    for path in written:
        convert(path, folder / "back.weights")
        assert (folder / "back.weights").read_bytes()[20:] == source.read_bytes()[20:], path.name


def narrow(source: Path, folder: Path) -> None:
    """Half precision, as the framework rounds it: the dtype is kept, and widening gives what was narrowed."""
    layers = yolov3.darknet_order(channels=THIN8, outputs=255)
    exact = open_weights(source, lambda _: layers).arrays
    shapes = {name: array.shape for name, array in exact.items()}
    for dtype in ("float16", "bfloat16"):
        path = next(folder.glob(f"{dtype}*"))
        rounded = {name: halved(array, dtype) for name, array in exact.items()}
        found, _ = load_canonical(path, shapes)
        assert all(np.array_equal(found[name], rounded[name]) for name in rounded), dtype
        report = convert(path, folder / "narrow.safetensors")
        kinds = {row.dtype for row in report.rows}
        assert kinds == {dtype}


def halved(array: np.ndarray, dtype: str) -> np.ndarray:  # type: ignore[type-arg]
    """Rounded to nearest, ties to even, and widened again."""
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    bits = array.view(np.uint32).astype(np.uint64)
    top = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return as_float32(top.view(BFLOAT16).reshape(array.shape))


PDOPT = """
import copy, numpy as np, paddle
from paddle import nn
net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4))
rate = paddle.optimizer.lr.LinearWarmup(0.1, 5, 0.0, 0.1)
kinds = {
    'momentum': paddle.optimizer.Momentum(rate, 0.9, net.parameters(), multi_precision=True),
    'adamw': paddle.optimizer.AdamW(rate, parameters=net.parameters()),
    'adamax': paddle.optimizer.Adamax(rate, parameters=net.parameters()),
    'adagrad': paddle.optimizer.Adagrad(rate, parameters=net.parameters()),
    'rmsprop': paddle.optimizer.RMSProp(rate, parameters=net.parameters()),
    'adadelta': paddle.optimizer.Adadelta(rate, parameters=net.parameters()),
    'nadam': paddle.optimizer.NAdam(rate, parameters=net.parameters()),
    'amsgrad': paddle.optimizer.Adam(rate, parameters=net.parameters(), amsgrad=True),
    'sgd': paddle.optimizer.SGD(rate, parameters=net.parameters()),
}
for name, optimiser in kinds.items():
    net(paddle.randn([2, 3, 5, 5])).mean().backward()
    optimiser.step(); optimiser.clear_grad()
    paddle.save({**optimiser.state_dict(), 'last_epoch': 3}, name + '.pdopt')
paddle.save(net.state_dict(), 'net.pdparams')
paddle.save(copy.deepcopy(net.state_dict()), 'net.pdema')
paddle.save({'model': net.state_dict(), 'optimizer': kinds['momentum'].state_dict()}, 'both.pdparams')
np.savez('net.npz', **{name: value.numpy() for name, value in net.state_dict().items()})
"""


def test_what_paddle_writes_beside_the_weights(tmp_path: Path, run_alone: Run) -> None:
    """PaddleDetection saves the optimiser's state_dict with last_epoch as .pdopt, and a deepcopy of the model's as
    .pdema; both are told by what is in them, under any name."""
    run_alone(PDOPT, tmp_path)
    states = sorted(tmp_path.glob("*.pdopt"))
    assert len(states) == 9
    for path in states:
        path.rename(tmp_path / "model.pdparams")
        with pytest.raises(Exception, match="holds the state of an optimiser and no weights") as error:
            convert(tmp_path / "model.pdparams", tmp_path / "x.pth")
        assert ".pdparams" in error.value.fix, path.name  # type: ignore[attr-defined]
        assert "model.pdparams" in str(error.value)
        assert not (tmp_path / "x.pth").exists()
    (tmp_path / "net.pdema").rename(tmp_path / "copy.npz")
    report = convert(tmp_path / "copy.npz", tmp_path / "copy.pth")
    assert any(
        note.startswith("a copy that was taken in training, as PaddleDetection's .pdema") for note in report.notes
    )
    report = convert(tmp_path / "net.pdparams", tmp_path / "net.pth")
    assert not any("PaddleDetection" in note for note in report.notes)
    (tmp_path / "net.pdema").touch()
    report = convert(tmp_path / "net.pdparams", tmp_path / "net.pth")
    assert any(note.startswith("the average of the weights (EMA)") for note in report.notes)
    with np.load(tmp_path / "net.npz") as net:
        arrays: Arrays = open_weights(tmp_path / "net.pth").arrays
        assert all(np.array_equal(arrays[name], net[name]) for name in net.files)
        assert set(arrays) == set(net.files)
