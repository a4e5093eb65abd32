"""Progress lines: figures by a clock that the test turns, silence where there should be."""

from __future__ import annotations

import io
import re

import pytest

from portdet.report.progress import Progress, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LOSSES = {"xy": 1.5, "loss": 12345.678}


def test_plain_lines_with_speed_and_time_left() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress(3, 20, batch=8, log_every=10, stream=out, clock=clock) as progress:
        for step in range(1, 21):
            clock.now += 2.0
            progress.step(1, step, LOSSES)
        with progress.validation():
            clock.now += 20.0
        progress.note("epoch 1: AP50 0.5")
        assert progress.images_per_s == 4.0  # 160 images in 40 s; the validation does not count
        assert progress.left() == 120.0  # 60 s for one epoch with its validation, two to go
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    memory = re.sub(r"\d+\.\d GB", "M GB", lines[0])
    assert memory == "epoch 1/3  step 10/20  loss 1.235e+04  xy 1.5  4.0 images/s  M GB  ETA 1 min 40 s"
    assert lines[2] == "epoch 1: AP50 0.5"


def test_resume_counts_only_what_this_process_did() -> None:
    clock = Clock()
    with Progress(4, 10, batch=2, start_epoch=2, stream=io.StringIO(), clock=clock) as progress:
        clock.now += 5.0
        progress.step(3, 5, LOSSES)
        assert (progress.images_per_s, progress.left()) == (2.0, 15.0)


def test_other_ranks_are_silent() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(1, 1, batch=1, log_every=1, rank=1, stream=stream) as progress:
            progress.step(1, 1, LOSSES)
            progress.note("x")
        assert stream.getvalue() == ""


def test_terminal_gets_a_live_line_and_notes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress(1, 3, batch=1, log_every=100, stream=out) as progress:
        for step in (1, 2, 3):
            progress.step(1, step, LOSSES)
        progress.note("[kept] AP 0.5")  # brackets are no markup
    assert "epoch 1/1  step 3/3" in out.getvalue()
    assert "[kept] AP 0.5" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
