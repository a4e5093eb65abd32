"""Loss scale for half precision: a constant, or the dynamic rule that MindSpore and PyTorch share.

Dynamic: a step with a non-finite gradient changes nothing and halves the scale (not below 1); `window` good steps in a
row double it. A static scale only shifts the range of fp16 gradients; overflow is not checked (as in the originals).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from portdet.errors import PortdetError

INITIAL_DYNAMIC_SCALE = 65536.0  # PyTorch's GradScaler; MindSpore starts at 2**24 and loses its first steps


@dataclass
class LossScale:
    """The scale of the next step, how many good steps led to it, and how many steps were skipped in all."""

    scale: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1.0
    dynamic: Annotated[bool, Field(strict=True)] = False
    window: Annotated[int, Field(strict=True, ge=1)] = 2000
    good_steps: Annotated[int, Field(strict=True, ge=0)] = 0
    skipped_steps: Annotated[int, Field(strict=True, ge=0)] = 0

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # what a checkpoint says is checked by these fields

    def update(self, *, skipped: bool, step: int) -> None:
        """Account for one step. Raises where gradients are not finite although nothing is left to scale down."""
        if not self.dynamic:
            return
        if not skipped:
            self.good_steps += 1
            if self.good_steps == self.window:
                self.scale, self.good_steps = self.scale * 2, 0
            return
        self.skipped_steps += 1
        self.good_steps = 0
        if self.scale <= 1:
            raise PortdetError(
                f"step {step}: gradients are not finite at loss scale 1 ({self.skipped_steps} steps skipped so far)",
                fix="the training diverges: lower optim.lr0, raise optim.warmup_epochs or set optim.clip_norm",
            )
        self.scale = max(self.scale / 2, 1.0)

    def state(self) -> dict[str, Any]:
        """All of it as JSON values, for the checkpoint; `LossScale(**state)` continues from there."""
        return asdict(self)


def loss_scale(setting: float | Literal["dynamic"]) -> LossScale:
    """The scale that `optim.loss_scale` describes."""
    if setting == "dynamic":
        return LossScale(INITIAL_DYNAMIC_SCALE, dynamic=True)
    if setting <= 0:
        raise PortdetError(f"optim.loss_scale = {setting} is not positive", fix="write 1, 1024 or dynamic")
    return LossScale(float(setting))
