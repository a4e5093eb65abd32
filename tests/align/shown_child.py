"""A child that tells lines, and what of its environment a framework of its parent has changed."""

from __future__ import annotations

import os
from typing import Any

from portdet.align.ladder.shown import tell
from portdet.errors import PortdetError
from portdet.processes.child import serve


def work(request: Any) -> Any:
    tell("half")
    print("a framework's warning")
    if request == "fail":
        raise PortdetError("no such thing")
    tell("whole")
    return os.environ.get("PORTDET_TEST_CHANGED", "")


if __name__ == "__main__":
    serve(work)
