"""One rank of `portdet train --devices N`: launchers start a file by its path, `python rank.py train CONFIG ...`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the script's folder in front, where `help.py` and `data.py` would hide modules of these names
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != own]
    from portdet.cli.__main__ import main

    main()
