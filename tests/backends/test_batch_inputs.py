"""What a session feeds follows from the generated `forward` alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.session import Batch


def test_a_forward_gets_what_it_names_in_its_order() -> None:
    parts = [np.full(1, i) for i in range(7)]
    batch = Batch(*parts)

    def forward(images: Any, noise: Any = None, valid: Any = None) -> None: ...

    assert [int(array[0]) for array in batch.inputs(forward)] == [0, 6, 3]
    with pytest.raises(PortdetError, match="lacks"):
        Batch(*parts[:5]).inputs(forward)
