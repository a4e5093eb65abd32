"""Where other programs' results are, if they are here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def oracles() -> Path:
    """The folder of oracle bundles, or a skip with the reason."""
    shared = Path(os.environ.get("PORTDET_SHARED") or Path(__file__).parents[2].parent / "shared")
    folder = shared / "oracles"
    if not folder.is_dir():
        pytest.skip(f"no oracle bundles in {folder} (set PORTDET_SHARED)")
    return folder
