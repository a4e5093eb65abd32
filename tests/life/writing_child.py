"""A child that writes into its parent's folder, after deleting it if it is told to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from portdet.files import write_text
from portdet.processes.child import serve


def work(request: dict[str, Any]) -> str:
    folder = Path(request["folder"])
    if request["gone"]:
        shutil.rmtree(folder)
    write_text(folder / "levels" / "ops.json", "{}")
    return "written"


if __name__ == "__main__":
    serve(work)
