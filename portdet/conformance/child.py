"""One section of the checklist in a process of its own: `python -m portdet.conformance.child REQUEST ANSWER`."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import Any

from portdet.processes.child import serve
from portdet.processes.scratch import scratch
from portdet.session import Options


def check(request: Any) -> list[dict[str, Any]]:
    """The rows of `section` for `backend`, in `mode` on `device`; of the ops or layers in `only` alone, if given."""
    module = importlib.import_module(f"portdet.conformance.{request['section']}")
    options = Options(device=request["device"], mode=request["mode"], threads=request["threads"])
    chosen = {"only": request["only"]} if "only" in request else {}
    with scratch() as folder:
        return [asdict(row) for row in module.check(request["backend"], options, folder, **chosen)]


if __name__ == "__main__":
    serve(check)
