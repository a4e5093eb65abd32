"""One rank of the checklist's section `ranks`; launchers start a file by its path: `python rank.py FOLDER BACKEND MODE
DEVICE`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the script's folder in front, where `ops.py` and `table.py` would hide modules of these names
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != own]
    from portdet.conformance.ranks import serve

    serve(*sys.argv[1:])
