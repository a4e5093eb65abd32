"""Files against the frameworks themselves: they read what we write, we read what they write, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet_convert.files import WRITERS, ckpt, open_weights
from portdet_convert.files.source import BFLOAT16, Array, Arrays, as_float32

Run = Callable[[str, Path], str]


def tensors() -> Arrays:
    """One tensor of every dtype that all three frameworks have, and every awkward shape."""
    rng = np.random.default_rng(0)
    half = rng.integers(0, 2**16, (3, 5), dtype=np.uint16) & np.uint16(0xBFFF)  # no NaN, no infinity
    return {
        "w": rng.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "big": rng.standard_normal((40, 30), dtype=np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": rng.standard_normal((5, 4), dtype=np.float32).T,
        "half": rng.standard_normal(7).astype(np.float16),
        "brain": half.view(BFLOAT16),
        "double": rng.standard_normal((2, 3)),
        "long": np.arange(-3, 4),
        "int": np.arange(5, dtype=np.int32),
        "byte": np.arange(9, dtype=np.uint8),
        "char": np.arange(-4, 4, dtype=np.int8),
        "bool": np.array([True, False, True]),
    }


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check(found: dict[str, Array], ours: Arrays) -> None:
    """`found` is what a framework read: bfloat16 as float32, which numpy has."""
    assert set(found) == set(ours)
    for name, array in ours.items():
        assert same(found[name], as_float32(array) if array.dtype == BFLOAT16 else array), name


TORCH = """
import numpy as np, torch
read = lambda f: torch.load(f, weights_only=True)
plain = lambda d: {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in d.items()}
ours = read('ours.pth')
np.savez('read.npz', **plain(ours))
np.savez('mapped.npz', **plain(torch.load('ours.pth', weights_only=True, mmap=True)))
from safetensors.torch import load_file
np.savez('safe.npz', **plain(load_file('ours.safetensors')))
torch.save(ours, 'zip.pth')
torch.save(ours, 'legacy.pth', _use_new_zipfile_serialization=False)
base = torch.arange(24.).reshape(4, 6)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
views = {'t': base.t(), 'part': base[1:3, 2:], 'row': base[2], 'p': torch.nn.Parameter(torch.ones(3))}
torch.save(views, 'views.pth'); torch.save(views, 'views_legacy.pth', _use_new_zipfile_serialization=False)
np.savez('views.npz', **{k: v.detach().numpy() for k, v in views.items()})
opt = torch.optim.SGD(net.parameters(), .1, momentum=.9)
net(torch.randn(2, 3, 5, 5)).sum().backward(); opt.step()
torch.save({'state_dict': net.state_dict(), 'optimizer': opt.state_dict(), 'epoch': 3}, 'checkpoint.pth')
torch.save(net, 'whole.pth')
np.savez('net.npz', **{k: v.numpy() for k, v in net.state_dict().items()})
"""

MINDSPORE = """
import mindspore as ms, numpy as np
plain = lambda d: {k: (v.astype(ms.float32) if v.dtype == ms.bfloat16 else v).asnumpy() for k, v in d.items()}
ours = ms.load_checkpoint('ours.ckpt')
np.savez('read.npz', **plain(ours))
items = [{'name': k, 'data': ms.Tensor(v)} for k, v in ours.items() if k != 'empty']
ms.save_checkpoint(items, 'theirs.ckpt', append_dict={'epoch_num': 3, 'note': 'hello'})
ms.save_checkpoint(items, 'crc.ckpt', crc_check=True)
ms.save_checkpoint(items, 'encrypted.ckpt', enc_key=b'0123456789ABCDEF')
ms.save_checkpoint(items, 'theirs.safetensors', format='safetensors')
from mindspore.train import serialization
serialization.SLICE_SIZE = 1  # KB instead of 512 MiB: 'big' of 4800 bytes goes into five records
ms.save_checkpoint(items, 'split.ckpt')
"""

PADDLE = """
import paddle, numpy as np
plain = lambda d: {k: (v.astype('float32') if v.dtype == paddle.bfloat16 else v).numpy() for k, v in d.items()}
ours = paddle.load('ours.pdparams')
ours = {k: v if isinstance(v, paddle.Tensor) else paddle.to_tensor(v) for k, v in ours.items()}
np.savez('read.npz', **plain(ours))
for protocol in (2, 3, 4):
    paddle.save(ours, f'{protocol}.pdparams', protocol=protocol)
paddle.save({'model': ours, 'epoch': 3}, 'nested.pdparams')
paddle.save(ours, 'theirs.safetensors', safetensors=True)
net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
paddle.save(net.state_dict(), 'net.pdparams')
np.savez('net.npz', **{k: v.numpy() for k, v in net.state_dict().items()})
"""


def witness(framework: str, script: str, form: str, tmp: Path, run: Run) -> tuple[Path, Arrays]:
    ours = tensors()
    for name in {form, "safetensors"}:
        WRITERS[name](tmp / f"ours.{name}", ours)
    run(script, tmp)
    with np.load(tmp / "read.npz") as found:
        check(dict(found), ours)
    return tmp, ours


def test_torch(tmp_path: Path, run_alone: Run) -> None:
    folder, ours = witness("torch", TORCH, "pth", tmp_path, run_alone)
    for other in ("mapped", "safe"):
        with np.load(folder / f"{other}.npz") as found:
            check(dict(found), ours)
    for file in ("zip.pth", "legacy.pth"):
        found = open_weights(folder / file)
        assert found.format == "pth"
        assert all(same(found.arrays[name], array) for name, array in ours.items())
    with np.load(folder / "views.npz") as views:
        for file in ("views.pth", "views_legacy.pth"):
            arrays = open_weights(folder / file).arrays
            assert all(np.array_equal(arrays[name], views[name]) for name in views.files)
    arrays = open_weights(folder / "checkpoint.pth").arrays
    with np.load(folder / "net.npz") as net:
        assert all(same(arrays[f"state_dict.{name}"], net[name]) for name in net.files)
    assert "optimizer.state.0.momentum_buffer" in arrays
    with pytest.raises(Exception, match=r"refused: the pickle calls torch\.nn\.modules\.container\.Sequential"):
        open_weights(folder / "whole.pth")


def test_mindspore(tmp_path: Path, run_alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ckpt, "_SPLIT", 1024)
    folder, ours = witness("mindspore", MINDSPORE, "ckpt", tmp_path, run_alone)
    del ours["empty"]  # MindSpore does not save a tensor without values
    for file in ("theirs.ckpt", "crc.ckpt", "split.ckpt", "theirs.safetensors"):
        arrays = open_weights(folder / file).arrays
        assert all(same(arrays[name], array) for name, array in ours.items()), file
    assert str(open_weights(folder / "theirs.ckpt").arrays["note"]) == "hello"
    for file in ("ours.ckpt", "split.ckpt"):
        assert (folder / file).read_bytes().count(b"\x0a\x03big") == 5, "the tensor was not split"
    with pytest.raises(Exception, match="is encrypted"):
        open_weights(folder / "encrypted.ckpt")
    damaged = bytearray((folder / "crc.ckpt").read_bytes())
    damaged[40] ^= 1
    (folder / "damaged.ckpt").write_bytes(damaged)
    with pytest.raises(Exception, match="CRC32 is"):
        open_weights(folder / "damaged.ckpt")


def test_paddle(tmp_path: Path, run_alone: Run) -> None:
    folder, ours = witness("paddle", PADDLE, "pdparams", tmp_path, run_alone)
    for file, prefix in (("2", ""), ("3", ""), ("4", ""), ("nested", "model.")):
        arrays = open_weights(folder / f"{file}.pdparams").arrays
        assert all(same(arrays[prefix + name], array) for name, array in ours.items()), file
    arrays = open_weights(folder / "theirs.safetensors").arrays
    assert all(same(arrays[name], array) for name, array in ours.items())
    with np.load(folder / "net.npz") as net:
        arrays = open_weights(folder / "net.pdparams").arrays
        assert set(arrays) == set(net.files)
        assert all(same(arrays[name], net[name]) for name in net.files)
