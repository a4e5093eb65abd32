"""The console that tables are printed on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """rich's console; into files and pipes 160 columns wide instead of 80, so that no name is cut there."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)
