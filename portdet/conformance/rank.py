"""One rank of several, see `ranks.launch`; launchers start a file by its path: `python rank.py FOLDER MODULE`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the script's folder in front, where `ops.py` and `table.py` would hide modules of these names
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != own]
    from portdet.conformance.ranks import run_rank

    run_rank(Path(sys.argv[1]), importlib.import_module(sys.argv[2]))
