"""What work costs, counted: the same on every machine, however busy it is."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Any


class Calls:
    """`number`: the functions of Python and of C that were called in this thread while it was open. Operators on arrays
    are no calls, so that work on whole arrays counts little and a loop over their elements much."""

    number = 0

    def _count(self, frame: FrameType, event: str, arg: Any) -> None:
        self.number += event in ("call", "c_call")

    def __enter__(self) -> Calls:
        self.before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.setprofile(self.before)
