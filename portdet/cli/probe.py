"""The process of one backend's doctor: `python -m portdet.cli.probe REQUEST ANSWER`, see `run_child`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from portdet.backends import load_backend
from portdet.processes.child import serve


def examine(request: Any) -> list[dict[str, str]]:
    """The backend's checks."""
    return [asdict(check) for check in load_backend(request["backend"]).doctor()]


if __name__ == "__main__":
    serve(examine)
