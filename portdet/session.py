"""What the training loop asks of a backend: one detector on one device of one framework, in this process.

Everything crosses this line as numpy arrays under canonical names (a weight's path in the spec), so the loop,
evaluation, checkpoints and alignment are written once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.lower.target import Target
from portdet.ranks import ALONE, Launcher, Place

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Batch:
    """A training batch, padded to static shapes. T is `data.max_boxes`.

    images (B, 3, H, W) float32, normalised; boxes (B, T, 4) float32, x1 y1 x2 y2 in pixels of the input;
    labels (B, T) int32; valid (B, T) bool, False for padding; image_ids (B,) int64.
    For models that ask for them: scores (B, T) float32, a box's weight, 1 where no two images are mixed;
    noise (B, ...) float32, uniform in 0..1, in the shape of the model's `noise_shape`.
    """

    images: Array
    boxes: Array
    labels: Array
    valid: Array
    image_ids: Array
    scores: Array | None = None
    noise: Array | None = None

    def inputs(self, forward: Callable[..., Any]) -> list[Array]:
        """What a generated `forward` takes, by its parameters' names. Raises PortdetError for what is not here."""
        asked = list(inspect.signature(forward).parameters)
        found = [array for name in asked if (array := getattr(self, name, None)) is not None]
        if len(found) < len(asked):
            raise PortdetError(f"the model takes {asked}, of which the batch lacks some", fix="see session.Batch")
        return found


@dataclass(frozen=True)
class EvalBatch:
    """A validation batch: images (B, 3, H, W) float32; image_ids (B,) int64; sizes (B, 2) int64, original (w, h).

    The last batch is filled up by repeating its last image; only the first `count` images count.
    """

    images: Array
    image_ids: Array
    sizes: Array
    count: int


@dataclass(frozen=True)
class Group:
    """Weights that share optimiser settings: their canonical names, L2 decay, factor on the learning rate."""

    names: tuple[str, ...]
    weight_decay: float
    lr_scale: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a backend must know once to build its train step. Weights in no group are frozen."""

    groups: tuple[Group, ...]
    momentum: float = 0.9
    nesterov: bool = False
    clip_norm: float = 0.0  # 0: no clipping; else gradients are scaled to at most this global norm (eps 1e-6)
    clip_groups: bool = False  # True: clip_norm is of each group by itself
    dynamic_scale: bool = False  # True: a non-finite gradient updates no weight, and is reported
    ema: bool = False
    ema_zero_start: bool = False  # PaddleDetection starts its shadow at zero, the others at the weights

    @property
    def clipped(self) -> tuple[tuple[str, ...], ...]:
        """Names of the weights whose gradients have one norm, in the order of the groups; () without clipping."""
        names = tuple(group.names for group in self.groups)
        return () if not self.clip_norm else names if self.clip_groups else (sum(names, ()),)


@dataclass(frozen=True)
class StepValues:
    """What the host decides for one step, as closed forms of the step number."""

    lr: float
    loss_scale: float = 1.0
    ema_decay: float = 0.0  # shadow = decay * shadow + (1 - decay) * weights; unused without EMA


@dataclass(frozen=True)
class StepResult:
    """Losses by name ('loss' is the total, unscaled), and whether the step was skipped for overflow."""

    losses: dict[str, float]
    skipped: bool = False
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Where and how a session runs.

    device: 'cpu', 'cuda', 'cuda:1', 'npu:0', 'Ascend'; one that is absent is an error. mode: 'eager' or 'compiled'.
    threads: of the framework; 0: all cores. precision: 'float32', or one of the backend's `other_precisions`.
    place: with world > 1 the session joins the framework's process group. sync_bn: batch norm's statistics are then
    those of the global batch, otherwise each rank has its own and rank 0's are kept.
    """

    device: str = "cpu"
    mode: str = "eager"
    threads: int = 0
    precision: str = "float32"
    place: Place = ALONE
    sync_bn: bool = True


@dataclass(frozen=True)
class Check:
    """One line of `portdet doctor`: level 'ok', 'warn' or 'fail', what was found, what to do."""

    level: str
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Source:
    """A generated module: its text, which runs, and the file that shows it to people and is never read back.

    Whoever shares a run folder may have changed that file, or put what Python takes for its compiled form beside it.
    """

    text: str
    path: Path


class Session(Protocol):
    """A detector ready to train and predict. Made by a backend's `open_session`."""

    backend: str
    device: str

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Set every weight and buffer; a missing, unexpected or misshapen name raises PortdetError.

        The EMA shadow, if any, restarts from these weights (or from zero), momentum from zero.
        """

    def weights(self) -> Arrays:
        """Copies of all weights and buffers, float32, canonical names."""

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        """Forward in training mode, backward, clip, update, EMA."""

    def losses_and_gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        """Losses and d loss / d weight of every trained weight, in training mode. Nothing changes, the running
        statistics of batch norm included: `state()` is the same before and after."""

    def predict(self, images: Array) -> Array:
        """The spec's `predict` in evaluation mode, for images (B, 3, H, W)."""

    def activations(self, images: Array) -> Arrays:
        """Evaluation-mode output of every module, by path; of one that returns several tensors each, as
        `portdet.outputs.tensors` names them ('neck[1]'). Runs eagerly."""

    def state(self) -> Arrays:
        """All that a later step depends on: 'weights/<name>', 'momentum/<name>', 'ema/<name>'. Copies."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from `state()` bit for bit."""

    def ema_weights(self, correction: float = 1.0) -> AbstractContextManager[None]:
        """Within the context the model holds its EMA divided by `correction`; the raw weights come back after."""

    def facts(self) -> dict[str, str]:
        """Framework version, device really used, mode, kernels: for the log and the exact gates."""

    def gather(self, value: Any) -> list[Any]:
        """`value`, small and picklable, of every rank, in rank order, on every rank; alone: [value].

        Every rank must call it, as often as the others.
        """

    def close(self) -> None:
        """Free device memory; leave process groups."""


class Inexact(NamedTuple):
    """A declared failure of a stated size: how far a kernel is off at most, in the unit of its line, and why."""

    size: float
    reason: str


@dataclass(frozen=True)
class MethodCall:
    """One call of a method of a generated class, in training mode: how single ops and layers are checked.

    inputs: the method's arguments in order. weights: those of the class, by native name. wanted: inputs whose gradient
    is asked for, beside that of all weights. cotangents: the gradient is that of sum(output * cotangent) over the named
    outputs.
    """

    source: Source
    class_name: str
    method: str
    inputs: Arrays
    weights: Arrays
    wanted: tuple[str, ...]
    cotangents: Arrays


class Backend(Protocol):
    """A framework, found by its entry point `portdet.backends`. Importing it must not import the framework."""

    name: str
    target: Target  # of float32
    other_precisions: Mapping[str, Target]  # precision -> its words; what `Options.precision` may be beside float32
    modes: tuple[str, ...]  # of 'eager' and 'compiled'
    default_mode: str  # what "default" means
    known_failures: Mapping[str, str | Inexact]  # pattern of a line of `portdet conformance` ('ops/mish_*') -> reason
    file_format: str  # the framework's own, as `portdet convert --to` names it
    loader: str  # the framework's function behind `load_file`
    launcher: Launcher  # starts N processes of one training

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        """Load generated source (`portdet.source.load`) and build its session. names: canonical -> native, of all
        weights and buffers."""

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        """Outputs of the call by name, and gradients by the names of inputs and (native) weights."""

    def load_file(self, path: Path) -> Arrays:
        """Tensors by name of a file in the framework's own format, read by its own loader.

        For files that portdet wrote: a loader may run code that a file holds.
        """

    def doctor(self) -> list[Check]:
        """What is installed, which device is usable, what is slow and why. Must not raise."""
