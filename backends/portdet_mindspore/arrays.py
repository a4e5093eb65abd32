"""Between numpy and MindSpore, by copy: on CPU `asnumpy` shares the memory of a tensor that later steps change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ops

from portdet.session import Array


def to_tensor(array: Array) -> Any:
    """On the device; float64 becomes float32."""
    array = np.ascontiguousarray(array)
    return ms.Tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def to_numpy(tensor: Any) -> Array:
    """A copy on the host."""
    array: Array = tensor.asnumpy()
    return array.copy()


def copy_in(parameters: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write arrays into parameters of the same names.

    Not with `set_data`: it gives a parameter other memory, and what `ms.jit` compiled before goes on with the old one
    (MindSpore 2.10 on CPU).
    """
    for name, parameter in parameters.items():
        ops.assign(parameter, ms.Tensor(np.array(arrays[name], np.float32)))
