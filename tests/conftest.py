"""Where other programs' results are, if they are here, and how their weights come into ours."""

from __future__ import annotations

import os
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The folder of oracle bundles, or a skip with the reason."""
    shared = Path(os.environ.get("PORTDET_SHARED") or Path(__file__).parents[1].parent / "shared")
    folder = shared / "oracles"
    if not folder.is_dir():
        pytest.skip(f"no oracle bundles in {folder} (set PORTDET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def mindspore_weights(oracles: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The weights of bundle msmodels_yolov3 under our names."""
    names = {
        ".0.weight": ".conv.weight", ".1.gamma": ".norm.weight", ".1.beta": ".norm.bias",
        ".1.moving_mean": ".norm.running_mean", ".1.moving_variance": ".norm.running_var",
    }  # fmt: skip

    def canonical(name: str) -> str:
        name = name.removeprefix("yolo_network.feature_map.")
        for ending, ours in names.items():
            if name.endswith(ending):
                return name.removesuffix(ending) + ours
        return name

    spec = util.spec_from_file_location("orc", oracles / "orc.py")
    assert spec is not None
    assert spec.loader is not None
    reader = util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(reader)
    sys.dont_write_bytecode = writes
    return {canonical(name): array for name, array in reader.load_weights(str(oracles / "msmodels_yolov3")).items()}
