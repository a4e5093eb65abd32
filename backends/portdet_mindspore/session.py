"""A detector in MindSpore: its train step, state and predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np

from portdet.backends import watched
from portdet.errors import PortdetError
from portdet.processes.cores import cores
from portdet.session import Array, Arrays, Batch, Options, Recipe, Source, StepResult, StepValues
from portdet.shadow import HostShadow, Shadow
from portdet.source import load
from portdet.state import Stateful
from portdet_mindspore.arrays import copy_in, to_numpy, to_tensor
from portdet_mindspore.device import use_device
from portdet_mindspore.ema import DeviceShadow
from portdet_mindspore.graph import compiled
from portdet_mindspore.ranks import average, follow_first, gather, join
from portdet_mindspore.step import Trained, make_backward, make_update
from portdet_mindspore.sync_norm import batch_norms, share_statistics


class MindSporeSession(Stateful):
    """One generated cell, its momentum and its EMA on one device. Mode 'eager' is PyNative, 'compiled' graph mode."""

    backend = "mindspore"

    def __init__(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> None:
        if options.precision != "float32":
            raise PortdetError(
                f"precision '{options.precision}': mindspore runs float32 alone", fix="use --backend torch for float64"
            )
        ms.set_context(mode=ms.PYNATIVE_MODE)
        self.place, self.mode, self.recipe = options.place, options.mode, recipe
        self.device = use_device(options.device, options.place)
        if self.place.world > 1:
            join(self.place)  # before the first tensor, as HCCL asks
        self.threads = options.threads or cores()
        self.model: Any = getattr(load(source), class_name)()
        parameters = dict(self.model.parameters_and_names())
        live = {name: parameters[native] for name, native in names.items()}
        self.kept: list[Any] = []  # statistics of batch norm, rank 0's
        if self.place.world > 1 and options.sync_bn:
            share_statistics(self.model, self.place)
        elif self.place.world > 1:
            self.kept = [p for norm in batch_norms(self.model) for p in (norm.moving_mean, norm.moving_variance)]
        self._build_step(live)
        self._hold(live, {name: item.momentum for name, item in self.trained.items()})

    def _build_step(self, live: Mapping[str, Any]) -> None:
        recipe = self.recipe
        wanted = {name: group for group in recipe.groups for name in group.names}
        for name, parameter in live.items():
            parameter.requires_grad = name in wanted
        self.trained: dict[str, Trained] = {}
        for name, group in wanted.items():
            weight = live[name]
            momentum = ms.Parameter(ms.Tensor(np.zeros(weight.shape, np.float32)), f"momentum.{name}")
            self.trained[name] = Trained(weight, momentum, group.weight_decay, group.lr_scale)
        weights = ms.ParameterTuple([item.weight for item in self.trained.values()])
        self.backward = self._compiled(make_backward(self.model, weights, find_overflow=recipe.dynamic_scale))
        clipped = [len(names) for names in recipe.clipped]
        settings = list(self.trained.values()), recipe.momentum, recipe.nesterov, recipe.clip_norm, clipped
        self.updates = {scaled: self._compiled(make_update(*settings, scaled)) for scaled in (False, True)}
        self.predictor = self._compiled(self.model.construct)

    def _compiled(self, function: Any) -> Any:
        return compiled(function) if self.mode == "compiled" else function

    # ------------------------------------------------------------------ state
    def _array(self, tensor: Any) -> Array:
        return to_numpy(tensor)

    def _fill(self, tensors: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        copy_in(tensors, arrays)

    def _average(self, start: Arrays) -> Shadow:
        if self.device == "cpu":
            return HostShadow(start, lambda name: self.live[name].asnumpy(), self.threads)  # shares its memory
        return DeviceShadow(self.live, start)

    # ------------------------------------------------------------------ steps
    def _backward(self, batch: Batch, loss_scale: float) -> tuple[dict[str, float], bool, Any]:
        """Losses by name, whether all gradients are finite, and the gradients times loss_scale; over all ranks."""
        self.model.set_train(True)
        inputs = map(to_tensor, batch.inputs(self.model.construct))
        names, values, grads = self.backward(ms.Tensor(loss_scale, ms.float32), *inputs)
        if self.place.world > 1:
            values, grads = average(values, grads, self.place)
        if self.kept:
            follow_first(self.kept, self.place)
        *losses, finite = values.asnumpy().tolist()
        return dict(zip(names, losses, strict=True)), finite > 1 - 0.5 / self.place.world, grads

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        losses, finite, grads = self._backward(batch, values.loss_scale)
        if not finite:
            return StepResult(losses, skipped=True)
        update = self.updates[values.loss_scale != 1.0]
        update(ms.Tensor(values.lr, ms.float32), ms.Tensor(1.0 / values.loss_scale, ms.float32), *grads)
        if self.shadow is not None:
            self.shadow.update(values.ema_decay)
        return StepResult(losses)

    def _gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        losses, _, grads = self._backward(batch, 1.0)
        return losses, {name: to_numpy(grad) for name, grad in zip(self.trained, grads, strict=True)}

    def predict(self, images: Array) -> Array:
        self.model.set_train(False)
        return to_numpy(self.predictor(to_tensor(images)))

    def activations(self, images: Array) -> Arrays:
        self.model.set_train(False)
        with watched(self.model.cells_and_names(), "register_forward_hook", ms.Tensor, to_numpy) as found:
            self.model(to_tensor(images))
        return found

    def facts(self) -> dict[str, str]:
        return {
            "mindspore": ms.__version__,
            "device": self.device,
            "mode": self.mode,
            "threads": str(cores()),  # MindSpore takes all cores; no setting of 2.10 makes it take fewer
            "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", "unset"),
            "dtype": "float32",
            **({"ranks": str(self.place.world)} if self.place.world > 1 else {}),
        }

    def gather(self, value: Any) -> list[Any]:
        return gather(value, self.place) if self.place.world > 1 else [value]

    def close(self) -> None:
        self.gather("closed")  # the group ends with its processes: so together
        self._release()
        self.trained, self.updates = {}, {}
        self.model = self.backward = self.predictor = None
