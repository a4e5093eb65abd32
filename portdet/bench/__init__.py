"""What portdet costs: its training step against the bare generated module in a minimal loop of the framework.

A backend's package has a module `bench` with the functions of `BareBackend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from portdet.session import Array, Batch, Options, Source


class BareBackend(Protocol):
    """The framework without portdet. The three run in the process of an open session of that backend."""

    def bare_step(
        self, source: Source, class_name: str, weights: Mapping[str, Array], batch: Batch, options: Options
    ) -> Callable[[], float]:
        """One step as the framework's manual writes it: forward with loss, backward, momentum SGD; returns the loss.

        weights: by the module's own names, buffers included. The batch is on the device before the first step. The
        step returns when the device has done all of it.
        """

    def peak_device_bytes(self) -> int:
        """Most memory that tensors took on the device so far; 0 on a CPU."""

    def convolution_seconds(self, options: Options) -> float:
        """The forward pass of the 3x3 convolution of CONVOLUTION without bias, the best of five after a first."""


# batch, input channels, output channels, side: the size that YOLOv3 is full of at 416 px
CONVOLUTION = (2, 256, 512, 26)
CONVOLUTION_FLOPS = 2 * 9 * CONVOLUTION[0] * CONVOLUTION[1] * CONVOLUTION[2] * CONVOLUTION[3] ** 2
