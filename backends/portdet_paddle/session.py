"""A detector in Paddle: its train step, state and predictions."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from portdet.backends import watched
from portdet.errors import PortdetError
from portdet.processes.heap import keep_freed_memory
from portdet.session import Array, Arrays, Batch, Options, Recipe, Source, StepResult, StepValues
from portdet.shadow import HostShadow, Shadow
from portdet.source import load
from portdet.state import Stateful
from portdet_paddle.device import device_of_rank
from portdet_paddle.ema import DeviceShadow
from portdet_paddle.ranks import Alone, exchange
from portdet_paddle.sync_norm import SyncBatchNorm2D


class PaddleSession(Stateful):
    """One generated layer, its momentum and its EMA on one device; one rank of several, if `options.place` says so."""

    backend = "paddle"

    def __init__(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> None:
        if options.precision != "float32":
            raise PortdetError(f"precision '{options.precision}' in paddle", fix="float32; torch offers float64")
        self.place, self.sync_bn = options.place, options.sync_bn
        self.device = device_of_rank(options.device, self.place)
        paddle.set_device(self.device)
        self.ranks = exchange(self.place, self.device)
        if self.device == "cpu":
            keep_freed_memory()
        self.mode, self.recipe = options.mode, recipe
        generated: Any = load(source)
        if self.place.world > 1 and self.sync_bn:
            generated.BatchNorm2D = SyncBatchNorm2D  # what its classes make
        self.model: Any = getattr(generated, class_name)()
        tensors = self.model.state_dict()
        live = {name: tensors[native] for name, native in names.items()}
        self.trained = {name: live[name] for group in recipe.groups for name in group.names}
        for name, tensor in live.items():
            tensor.stop_gradient = name not in self.trained
        self._hold(live, {name: paddle.zeros_like(tensor) for name, tensor in self.trained.items()})
        self.run = self.model
        if options.mode == "compiled":  # one program a size; full_graph: what cannot be compiled raises
            warnings.filterwarnings("ignore", message="Tensor do not have 'place'")  # to_static's own, at each compile
            self.run = paddle.jit.to_static(self.model.forward, full_graph=True)

    # ------------------------------------------------------------------ state
    def _array(self, tensor: Any) -> Array:
        return _numpy(tensor)

    def _fill(self, tensors: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        for name, tensor in tensors.items():
            tensor.set_value(np.ascontiguousarray(arrays[name], np.float32))

    def _average(self, start: Arrays) -> Shadow:
        if self.device == "cpu":
            return HostShadow(start, self._view, int(os.environ["OMP_NUM_THREADS"]))
        return DeviceShadow(self.live, start)

    def _view(self, name: str) -> Array:
        """The weight in place; taken anew each time, as an update may give a tensor other memory."""
        return np.from_dlpack(self.live[name].detach())

    # ------------------------------------------------------------------ steps
    def _backward(self, batch: Batch, scale: float) -> tuple[list[str], Any]:
        """Names and values of a batch's losses; leaves `scale` times the gradients on the weights.

        With several ranks losses and gradients are the means over them.
        """
        for tensor in self.trained.values():
            tensor.clear_gradient(False)
        self.model.train()
        with self.ranks.step():
            losses: dict[str, Any] = self.run(*map(paddle.to_tensor, batch.inputs(self.model.forward)))
            (losses["loss"] * scale if scale != 1 else losses["loss"]).backward()
            self.ranks.average_gradients(self.trained.values())
            if not self.sync_bn:
                self.ranks.take_from_first(self.live[name] for name in self.live if name not in self.trained)
            return list(losses), self.ranks.mean(paddle.stack([value.detach() for value in losses.values()]))

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        losses = self._backward(batch, values.loss_scale)
        grads = {name: t.grad for name, t in self.trained.items() if t.grad is not None}
        factors = self._factors(grads, 1 / values.loss_scale)
        if factors is None:
            return StepResult(_floats(losses), skipped=True)
        with paddle.no_grad():
            for name, grad in grads.items():
                if factors[name] != 1:
                    grad.scale_(factors[name])
            self._update(values.lr)
        if self.shadow is not None:
            self.shadow.update(values.ema_decay)
        return StepResult(_floats(losses))

    def _factors(self, grads: Mapping[str, Any], unscale: float) -> dict[str, float] | None:
        """What each gradient is multiplied by, `unscale` or less where a norm is too large; None for an overflow."""
        recipe, factors = self.recipe, dict.fromkeys(grads, unscale)
        for names in recipe.clipped or ((tuple(grads),) if recipe.dynamic_scale else ()):
            part = [grads[name] for name in names if name in grads]
            # paddle.linalg.norm needs 300 ms for 62 M values, this kernel 10 ms
            norm = unscale * math.sqrt(float(paddle.concat([paddle._C_ops.squared_l2_norm(g) for g in part]).sum()))
            # the sum may overflow although every gradient is finite
            if recipe.dynamic_scale and not (math.isfinite(norm) or _finite(part)):
                return None
            if recipe.clip_norm:
                factors |= dict.fromkeys(names, unscale * min(1.0, recipe.clip_norm / (norm + 1e-6)))
        return factors

    def _update(self, lr: float) -> None:
        """v = m v + (g + decay w); w -= lr v: the kernel of paddle.optimizer.Momentum.

        The optimiser itself makes v at its first step, under names that differ between processes. The kernel's factor
        on the gradient (`rescale_grad`) does nothing on CPU in 3.3.1.
        """
        momentum, nesterov = self.recipe.momentum, self.recipe.nesterov
        for group in self.recipe.groups:
            rate = paddle.to_tensor([lr * group.lr_scale], dtype="float32")
            decay = ("l2_decay" if group.weight_decay else "", group.weight_decay)
            for name in group.names:
                weight, v = self.trained[name], self.momenta[name]
                if weight.grad is not None:
                    paddle._C_ops.momentum_(weight, weight.grad, v, rate, None, momentum, nesterov, *decay, False, 1.0)

    def _gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        losses = self._backward(batch, 1.0)
        grads = {name: _numpy(paddle.zeros_like(t) if t.grad is None else t.grad) for name, t in self.trained.items()}
        return _floats(losses), grads

    @paddle.no_grad()
    def predict(self, images: Array) -> Array:
        self.model.eval()
        return _numpy(self.run(paddle.to_tensor(images)))

    @paddle.no_grad()
    def activations(self, images: Array) -> Arrays:
        self.model.eval()
        with watched(self.model.named_sublayers(), "register_forward_post_hook", paddle.Tensor, _numpy) as found:
            self.model(paddle.to_tensor(images))
        return found

    def facts(self) -> dict[str, str]:
        facts = {
            "paddle": paddle.__version__,
            "device": self.device,
            "mode": self.mode,
            "threads": os.environ["OMP_NUM_THREADS"],
            "dtype": "float32",
        }
        if self.place.world > 1:
            facts |= {"ranks": str(self.place.world), "group": os.environ["PADDLE_DISTRI_BACKEND"]}
        if self.device == "cpu":
            facts["mkl cpu type"] = os.environ.get("MKL_DEBUG_CPU_TYPE", "own choice")
        elif self.device.startswith("gpu"):
            facts["gpu"] = paddle.device.cuda.get_device_name(self.device)
        return facts

    def gather(self, value: Any) -> list[Any]:
        return self.ranks.gather(value)

    def close(self) -> None:
        self.ranks.leave()
        self.ranks = Alone()
        self._release()
        self.trained = {}
        self.model = self.run = None
        if self.device.startswith("gpu"):
            paddle.device.cuda.empty_cache()


def _numpy(tensor: Any) -> Array:
    array: Array = tensor.numpy()  # a copy
    return array


def _finite(grads: list[Any]) -> bool:
    return bool(paddle.stack([paddle.isfinite(g).all() for g in grads]).all())


def _floats(losses: tuple[list[str], Any]) -> dict[str, float]:
    names, values = losses
    return dict(zip(names, values.tolist(), strict=True))
