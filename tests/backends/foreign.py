"""What a run folder of somebody else's may hold: modules under the names that a process of ours imports, in each of the
forms that Python takes. Whatever of it runs leaves a file behind."""

from __future__ import annotations

import py_compile
from collections.abc import Sequence
from pathlib import Path

NAMES = ("numpy", "torch", "mindspore", "paddle", "yaml", "click", "cv2", "multiprocessing", "tempfile", "json",
         "sitecustomize", "usercustomize", "portdet_torch", "portdet_mindspore", "portdet_paddle")  # fmt: skip


def plant(folder: Path, marker: Path, sources: Sequence[str]) -> None:
    """NAMES as files and, compiled, as files without a source; `sources`, generated ones, as a package and compiled in
    `__pycache__`, with the header that tells Python to look at no source's date."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(_leaves(marker, f"{name}.py"))
    for name in sources:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(_leaves(marker, f"{name}/__init__.py"))
        compiled(folder / "__pycache__" / f"{name}.cpython-311.pyc", marker)
        compiled(folder / f"{name}.pyc", marker)


def compiled(path: Path, marker: Path) -> None:
    """A compiled module whose header says that no source need be looked at."""
    path.parent.mkdir(exist_ok=True)
    text = path.with_suffix(".txt")
    text.write_text(_leaves(marker, str(path)))
    py_compile.compile(str(text), str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    text.unlink()


def _leaves(marker: Path, what: str) -> str:
    return f"with open({str(marker)!r}, 'a') as file:\n    file.write({what!r} + '\\n')\nraise ImportError({what!r})\n"
