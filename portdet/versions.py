"""The versions that portdet is tested with, and what is installed beside them. Imports nothing that it asks about."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from portdet.session import Check

# Distributions that bring a backend's framework; the first is the one in constraints.txt.
FRAMEWORKS = {
    "torch": ("torch",),
    "mindspore": ("mindspore",),
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
}
LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyyaml",
    "pydantic",
    "click",
    "rich",
    "safetensors",
    "scipy",
    "pycocotools",
    "matplotlib",
    "psutil",
)


def constraints_file() -> Path:
    """`constraints.txt` of the checkout, or the copy in the installed package."""
    checkout = Path(__file__).parent.parent / "constraints.txt"
    return checkout if checkout.is_file() else Path(__file__).parent / "constraints.txt"


def known_good() -> dict[str, str]:
    """Tested versions by distribution, as pip reads them from constraints.txt."""
    lines = (line.partition("#")[0].strip() for line in constraints_file().read_text(encoding="utf-8").splitlines())
    return {name: text for name, _, text in (line.partition("==") for line in lines if line)}


def installed(name: str) -> str | None:
    """The installed version of a distribution, without a local part such as +cpu."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def framework(backend: str) -> tuple[str, str] | None:
    """(distribution, version) of a backend's framework, if one is installed."""
    found = ((name, installed(name)) for name in FRAMEWORKS.get(backend, ()))
    return next(((name, text) for name, text in found if text), None)


def compare(names: Iterable[str]) -> list[Check]:
    """One check a distribution: installed, and the version that is tested. Another version is a warning."""
    tested = known_good()
    return [_compare(name, installed(name), tested.get(name)) for name in names]


def _compare(name: str, found: str | None, tested: str | None) -> Check:
    if found is None:
        return Check("fail", f"{name} is not installed", f"pip install {name}=={tested}" if tested else "")
    if name == "numpy" and int(found.partition(".")[0]) >= 2:
        advice = "MindSpore is built against NumPy 1: its first op with a number fails; pip install 'numpy<2'"
        return Check("fail", f"numpy {found}", advice)
    if tested and found != tested:
        return Check("warn", f"{name} {found}; tested with {tested}", f"pip install {name}=={tested} if numbers differ")
    return Check("ok", f"{name} {found}")
