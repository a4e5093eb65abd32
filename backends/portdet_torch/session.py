"""A detector in PyTorch: its train step, state and predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from portdet.backends import watched
from portdet.errors import PortdetError
from portdet.processes.cores import cores
from portdet.processes.heap import keep_freed_memory
from portdet.session import Array, Arrays, Batch, Options, Recipe, Source, StepResult, StepValues
from portdet.shadow import HostShadow, Shadow
from portdet.source import load
from portdet.state import BUFFERS, Stateful
from portdet_torch.ema import DeviceShadow
from portdet_torch.ranks import Group, device_of, synchronise_norms


class TorchSession(Stateful):
    """One generated module, its optimiser and its EMA on one device."""

    backend = "torch"

    def __init__(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> None:
        # cuBLAS is deterministic only with a fixed workspace; to be set before its first call
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.torch_device = device_of(options)
        self.device, self.mode, self.recipe, self.place = str(self.torch_device), options.mode, recipe, options.place
        self.threads = options.threads or cores()
        self._take_threads()
        # TF32 keeps 10 bits of the mantissa: it would hide every difference that alignment looks for
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        if self.torch_device.type == "cpu":
            keep_freed_memory()
        else:  # CPU kernels are deterministic as they are
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # else every new tensor is written twice
        if options.precision not in ("float32", "float64"):
            raise PortdetError(f"precision '{options.precision}' in torch", fix="float32 or float64")
        self.dtype = torch.float64 if options.precision == "float64" else torch.float32
        self.model: Any = getattr(load(source), class_name)().to(self.torch_device, self.dtype)
        self.group = Group(options.place, self.torch_device) if options.place.world > 1 else None
        self.sync_bn = options.sync_bn
        if self.group and self.sync_bn:
            self.model = synchronise_norms(self.model, self.torch_device)
        tensors = self.model.state_dict(keep_vars=True)
        live = {name: tensors[native] for name, native in names.items()}
        self._hold(live, self._build_optimizer(live))
        self.run = self.model
        if options.mode == "compiled":
            torch._dynamo.config.cache_size_limit = 64  # one graph a size in multi-scale training
            self.run = torch.compile(self.model, dynamic=False)
        # the compiled module inside: compiled as a whole, with its exchange, two ranks wait for each other (torch 2.13)
        self.trainer = self.group.wrap(self.run) if self.group else self.run

    def _build_optimizer(self, live: dict[str, Any]) -> dict[str, Any]:
        """Also the momentum of each trained weight, which the optimiser would make at its first step: zeros."""
        recipe = self.recipe
        self.trained = {name: live[name] for group in recipe.groups for name in group.names}
        for name, tensor in live.items():
            tensor.requires_grad_(name in self.trained)
        groups = [
            {"params": [live[n] for n in g.names], "weight_decay": g.weight_decay, "lr_scale": g.lr_scale}
            for g in recipe.groups
        ]
        # fused: one pass over memory, 55 ms for 62 M values on a CPU where foreach takes 130 to 320
        fused = self.torch_device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.SGD(
            groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov, foreach=not fused, fused=fused
        )
        momenta = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in self.trained.items()}
        for name, tensor in self.trained.items():
            self.optimizer.state[tensor]["momentum_buffer"] = momenta[name]
        return momenta

    # ------------------------------------------------------------------ state
    def _array(self, tensor: Any) -> Array:
        return _numpy(tensor)

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))  # a copy: the caller's array stays its own

    def _average(self, start: Arrays) -> Shadow:
        if self.torch_device.type == "cpu" and self.dtype == torch.float32:
            return HostShadow(start, lambda name: self.live[name].detach().numpy(), self.threads)
        return DeviceShadow(self.live, start)

    # ------------------------------------------------------------------ steps
    def _take_threads(self) -> None:
        """torch has one number for the process: another session, opened since, may have set its own, which gives sums
        other last bits."""
        torch.set_num_threads(self.threads)

    def _tensor(self, array: Array) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.torch_device, self.dtype if tensor.is_floating_point() else None, non_blocking=True)

    def _backward(self, batch: Batch, scale: float = 1.0) -> dict[str, Any]:
        """Losses of a batch, tensors; leaves `scale` times the gradients, means over the ranks, on the weights."""
        self._take_threads()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()
        losses: dict[str, Any] = self.trainer(*map(self._tensor, batch.inputs(self.model.forward)))
        (losses["loss"] * scale).backward()
        if self.group and not self.sync_bn:
            self.group.share([t for name, t in self.live.items() if name.endswith(BUFFERS)])
        return losses

    def _floats(self, losses: Mapping[str, Any]) -> dict[str, float]:
        """All losses, means over the ranks, in one transfer from the device."""
        values = torch.stack([v.detach() for v in losses.values()])
        return dict(zip(losses, (self.group.mean(values) if self.group else values).tolist(), strict=True))

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        losses = self._backward(batch, values.loss_scale)
        grads = [t.grad for t in self.trained.values() if t.grad is not None]
        if values.loss_scale != 1:
            torch._foreach_mul_(grads, 1 / values.loss_scale)
        if self.recipe.dynamic_scale and not bool(torch.stack([g.isfinite().all() for g in grads]).all()):
            return StepResult(self._floats(losses), skipped=True)
        for names in self.recipe.clipped:
            torch.nn.utils.clip_grad_norm_([self.trained[n] for n in names], self.recipe.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = values.lr * group["lr_scale"]
        self.optimizer.step()
        if self.shadow is not None:
            self.shadow.update(values.ema_decay)
        return StepResult(self._floats(losses))

    def _gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        losses = self._backward(batch)
        grads = {n: _numpy(torch.zeros_like(t) if t.grad is None else t.grad) for n, t in self.trained.items()}
        return self._floats(losses), grads

    @torch.no_grad()
    def predict(self, images: Array) -> Array:
        self._take_threads()
        self.model.eval()
        return _numpy(self.run(self._tensor(images)))

    @torch.no_grad()
    def activations(self, images: Array) -> Arrays:
        self._take_threads()
        self.model.eval()
        with watched(self.model.named_modules(), "register_forward_hook", torch.Tensor, _numpy) as found:
            self.model(self._tensor(images))
        return found

    def facts(self) -> dict[str, str]:
        facts = {
            "torch": torch.__version__,
            "device": self.device,
            "mode": self.mode,
            "threads": str(self.threads),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        if self.group:
            facts["group"] = self.group.library
        if self.torch_device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(self.torch_device)
        return facts

    def gather(self, value: Any) -> list[Any]:
        return self.group.gather(value) if self.group else [value]

    def close(self) -> None:
        self._release()
        self.trained = {}
        self.model = self.run = self.trainer = self.optimizer = None
        if self.group:
            self.group.leave()
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()


def _numpy(tensor: Any) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array.copy()  # cpu tensors share memory with numpy
