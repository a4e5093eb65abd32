"""miemiedetection's PP-YOLO, seen by the library's hooks, its names turned into PaddleDetection's.

    PORTDET_MIEMIE=folder python -m tests.align.peers.miemie_child OUT VARIANT SEED...

Writes OUT/SEED.safetensors, sketches of every tensor of a step.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from portdet.align.compare import DumpWriter, Sketches
from portdet.session import Array
from portdet_torch import hooks
from tests import absent
from tests.align.peers import case

FOLDER = Path(os.environ["PORTDET_MIEMIE"])
Put = Callable[[str, Array], None]


def experiment(variant: str, own_rate: bool = False) -> Any:
    """The published experiment, without DropBlock's random numbers. own_rate: with its own learning rate.

    Where torchvision is absent, its deformable convolution is replaced by the program's other one.
    """
    from mmdet.models.backbones import resnet  # type: ignore[import-not-found]
    from mmdet.models.custom_layers import MyDCNv2  # type: ignore[import-not-found]

    if isinstance(resnet.torchvision, absent.Package):
        resnet.torchvision.ops = SimpleNamespace(DeformConv2d=MyDCNv2)
    name = case.EXPERIMENTS[variant]
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"exps/ppyolo/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.Exp()
    found.fpn["drop_block"] = False
    if not own_rate:
        found.warmup_epochs, found.basic_lr_per_img = 0, case.RATE  # the rate of the step, for a batch of one
    return found


def inputs(exp: Any, seed: int, put: Put) -> tuple[Any, Any, list[Any]]:
    """Images, boxes and targets, these by its own `Gt2YoloTarget`."""
    from mmdet.data import Gt2YoloTarget  # type: ignore[import-not-found]

    given = case.samples()
    made = Gt2YoloTarget(**exp.gt2YoloTarget)(given, None)
    levels = len(exp.head["anchor_masks"])
    targets = [np.stack([sample[f"target{level}"] for sample in made]).astype(np.float32) for level in range(levels)]
    for level, target in enumerate(targets):
        put(f"targets/{level}", target)
    boxes = np.stack([sample["gt_bbox"] for sample in case.samples()])
    return torch.from_numpy(case.pictures(seed)), torch.from_numpy(boxes), [torch.from_numpy(t) for t in targets]


def step(model: Any, exp: Any, seed: int, put: Put) -> None:
    """Weights, activations in evaluation and in training, losses, gradients, and the state after a step."""
    state = {n: t for n, t in model.state_dict().items() if "num_batches_tracked" not in n}
    arrays = case.weights([(case.to_ppdet(name), tuple(tensor.shape)) for name, tensor in state.items()], seed)
    model.load_state_dict({name: torch.from_numpy(arrays[case.to_ppdet(name)]) for name in state}, strict=False)
    weights(model, put)
    images, boxes, targets = inputs(exp, seed, put)
    model.eval()
    with hooks.collected(model, put, gradients=False), torch.no_grad():
        features = model.neck(model.backbone(images))
        for level, feature in enumerate(features):
            getattr(model.yolo_head, f"yolo_output_{level}")(feature)
    model.train()
    with hooks.collected(model, lambda name, array: put(name.replace("forward/", "train/", 1), array)):
        losses = model(images, None, boxes, targets)
        losses["total_loss"].backward()
    for name in sorted(losses, key="total_loss".__eq__):
        short = "loss" if name == "total_loss" else name.removeprefix("loss_")
        put(f"loss/{short}", losses[name].detach().reshape(()).numpy())
    hooks.weight_gradients(model, put)
    exp.__dict__.pop("optimizer", None)
    optimizer = exp.get_optimizer(1)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:
            put(f"step/momentum/{name}", optimizer.state[parameter]["momentum_buffer"].numpy())
    weights(model, lambda name, array: put(f"step/{name}", array))
    model.zero_grad()


def weights(model: Any, put: Put) -> None:
    """Without torch's counters of batches, which Paddle does not keep."""
    hooks.weights(model, lambda name, array: None if "num_batches_tracked" in name else put(name, array))


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    folder, variant, *seeds = sys.argv[1:]
    with absent.allowed():
        exp = experiment(variant)
        model = exp.get_model()
        for seed in map(int, seeds):
            about = {"program": "miemiedetection", "torch": torch.__version__, "seed": str(seed)}
            with DumpWriter(Path(folder, f"{seed}.safetensors"), about) as out:
                step(model, exp, seed, named(Sketches(out.put)))


def named(put: Sketches) -> Put:
    """With PaddleDetection's names; the last step to a dump."""
    return lambda name, array: put(case.to_ppdet(name), array)


if __name__ == "__main__":
    main()
