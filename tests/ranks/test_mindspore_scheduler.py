"""The watch over MindSpore's scheduler: it ends what waits for dead ranks, and slowness is no error."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from portdet_mindspore import scheduler


class Process:
    """A scheduler that ends by itself at a time of the fake clock, or never."""

    def __init__(self, clock: list[float], ends: float, code: int) -> None:
        self.clock, self.ends, self.code, self.killed = clock, ends, code, False

    @property
    def returncode(self) -> int:
        return -9 if self.killed else self.code

    def poll(self) -> int | None:
        return self.returncode if self.killed or self.clock[0] >= self.ends else None

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> int:
        return self.returncode


def watched(
    monkeypatch: pytest.MonkeyPatch, alive: Callable[[float], int] | None, ends: float, code: int = 0
) -> tuple[int, bool, float]:
    """Exit code, whether it was killed, and when the watch ended. alive(time): ranks that there are."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    process: Any = Process(clock, ends, code)
    found = scheduler.watch(process, None if alive is None else lambda: alive(clock[0]))
    return found, process.killed, clock[0]


def test_ranks_that_appear_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    code, killed, end = watched(monkeypatch, lambda now: 2 if 300 < now < 400 else 0, ends=401)
    assert (code, killed) == (0, False)
    assert end == pytest.approx(401, abs=0.5)


def test_a_scheduler_that_is_slow_to_notice_is_ended_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    code, killed, end = watched(monkeypatch, lambda now: 2 if now < 100 else 0, ends=1e9)
    assert (code, killed) == (0, True)
    assert end == pytest.approx(100 + scheduler.LEAVE, abs=0.5)


def test_ranks_that_never_appear_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, lambda now: 0, ends=1e9)[:2] == (1, True)


@pytest.mark.parametrize("code", [0, 3, -11])
def test_its_own_end_is_told(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert watched(monkeypatch, lambda now: 2, ends=50, code=code)[:2] == (abs(code), False)
    assert watched(monkeypatch, None, ends=5000, code=code)[:2] == (abs(code), False)
