"""The process of one backend's doctor: `python -m portdet.cli.probe REQUEST ANSWER`, see `run_child`."""

from __future__ import annotations

from dataclasses import asdict

from portdet.backends import load_backend
from portdet.cli.child import child_answer, child_request

if __name__ == "__main__":
    child_answer([asdict(check) for check in load_backend(child_request()["backend"]).doctor()])
