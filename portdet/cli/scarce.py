"""What the system refuses, in words: memory, libraries that find no room, files."""

from __future__ import annotations

import resource

NEEDED = 1.5  # GB of address space: a small training on PyTorch runs with it, at 0.7 the framework aborts
_MEMORY = ("failed to map", "cannot allocate memory", "unable to allocate", "std::bad_alloc", "out of memory")


def note() -> str:
    """A line for a process that may have too little room for a framework, which then aborts without one."""
    limit = _limit()
    return (
        f"the address space is limited to {limit:.2g} GB (ulimit -v); a framework needs about {NEEDED} GB"
        if limit < NEEDED
        else ""
    )


def refusal(error: BaseException) -> tuple[str, str]:
    """What and what to do for an error of the system; empty for a fault of a program, which keeps its traceback."""
    text = str(error)
    short = isinstance(error, MemoryError) or any(word in text.lower() for word in _MEMORY)
    # under a limit, numpy says of a library that finds no room that it is imported from the wrong folder
    if short or (isinstance(error, ImportError) and _limit() < NEEDED):
        last = [line for line in text.splitlines() if line.strip()][:1]
        what = f"there is not enough memory: {(last or [type(error).__name__])[0][:300]}"
        return what, note() or "close other programs, or lower data.batch, data.imgsz or data.workers"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", "check the path, its rights and the space on its disk"
    return "", ""


def _limit() -> float:
    """GB of address space that this process may take."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return float("inf") if soft == resource.RLIM_INFINITY else soft / 1e9
