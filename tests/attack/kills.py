"""Trainings that are killed, doubled, stopped and robbed of their folder; what is left must be the one uninterrupted.

All moments are drawn from a fixed seed, as steps; within a step it is the machine's speed that decides.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests.attack.outcome import Row
from tests.attack.runs import BACKENDS, EPOCHS, KINDS, STEPS, Run, Setting, differs, end_of, gone, new_run, whole
from tests.patience import running, until

WRITING = "SIGKILL while a checkpoint is written"
WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", WRITING)
TRIES = 5  # of catching a checkpoint while it is written
Attempt = Callable[[], str]


def attack(count: int) -> list[Row]:
    """`count` kills over backends, averages and ways, and a fixed number of everything else."""
    draw = random.Random(11)
    cells = [(way, backend) for way in WAYS for backend in BACKENDS]
    attempts: dict[tuple[str, str], list[Attempt]] = {}
    for number in range(count):
        way, backend = cells[number % len(cells)]
        kind = KINDS[(number + number // len(cells)) % len(KINDS)]
        setting = Setting(backend, kind, dynamic=draw.random() < 0.5, workers=draw.randrange(2))
        moment = draw.randrange(EPOCHS * STEPS), draw.random()
        attempts.setdefault((way, backend), []).append(partial(killed, way, setting, *moment))
    rows = [row(f"{way}, {backend}", found) for (way, backend), found in attempts.items()]
    for backend in BACKENDS:
        rows.append(row(f"two --resume at once, {backend}", [partial(doubled, Setting(backend, "exponential"))]))
    rows.append(row("folder gone while training, torch", [partial(robbed, how) for how in GONE]))
    rows.append(row("data worker stopped, torch", [partial(worker_stopped, step) for step in (2, 4)]))
    rows.append(row("rank stopped, torch", [partial(rank_stopped, rank) for rank in (0, 1)]))
    return rows


def row(name: str, attempts: list[Attempt]) -> Row:
    """One line of the table; an attempt returns '' or how it failed."""
    failures = []
    for attempt in attempts:
        try:
            failures.append(attempt())
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
    found = [failure for failure in failures if failure]
    return Row(name, len(attempts), len(attempts) - len(found), found[0] if found else "")


def killed(way: str, setting: Setting, step: int, share: float) -> str:
    """Ended after `step` steps and a share of a second, then resumed to the end."""
    whole(setting)
    asked = way.split()[0]
    with new_run() as run:
        process = run.new(setting)
        number = signal.Signals[asked]
        for _ in range(TRIES):
            caught = _in_write(run, process, step) if way == WRITING else _at(run, process, step, share)
            with suppress(ProcessLookupError):
                process.send_signal(number)
            code = end_of(process)
            if caught or way != WRITING:
                break
            shutil.rmtree(run.folder)
            process = run.new(setting)
        else:
            return f"{setting}: no checkpoint was caught while it was written"
        if code == 0:  # it was faster
            return differs(run, setting)
        wanted = -signal.SIGKILL if number == signal.SIGKILL else 130
        if code != wanted and not (step == 0 and number != signal.SIGKILL):  # before the first step it just ends
            return f"{setting}, step {step}: code {code}, not {wanted}: {run.said()}"
        if code := end_of(run.resume()):
            return f"{setting}, step {step}: the resumed run ends with code {code}: {run.said()}"
        word = differs(run, setting)
        return f"{setting}, step {step}: {word}" if word else ""


def _at(run: Run, process: subprocess.Popen[bytes], step: int, share: float) -> bool:
    run.reach(process, step)
    time.sleep(0.3 * share)
    return True


def _in_write(run: Run, process: subprocess.Popen[bytes], step: int) -> bool:
    """Wait for a temporary file beside the checkpoints; whether there was one."""
    run.reach(process, step)
    weights = run.folder / "weights"

    def writes() -> bool:
        with suppress(OSError):
            return any(path.name.startswith(".") for path in weights.iterdir())
        return False

    until(lambda: writes() or process.poll() is not None, "a checkpoint", 0.0005)
    return process.poll() is None


def doubled(setting: Setting) -> str:
    """Killed, then resumed twice at the same time: one is refused by name, the other ends as if nothing had been."""
    whole(setting)
    with new_run() as run, new_run() as second:
        process = run.new(setting)
        run.reach(process, STEPS + 1)
        process.kill()
        end_of(process)
        second.folder = run.folder
        both = (run, run.resume()), (second, second.resume())
        codes = [end_of(each) for _, each in both]
        if sorted(codes) != [0, 1]:
            return f"{setting}: codes {codes}: {run.said()} {second.said()}"
        refused, (_, winner) = both[codes.index(1)][0], both[codes.index(0)]
        if f"is in use by process {winner.pid} on" not in refused.said():
            return f"{setting}: {refused.said()}"
        return differs(run, setting)


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _replaced(folder: Path) -> None:
    _moved(folder)
    folder.mkdir()


GONE: dict[str, Callable[[Path], object]] = {"deleted": shutil.rmtree, "moved": _moved, "replaced": _replaced}


def robbed(how: str) -> str:
    """The folder goes while it is trained in: an error, and nothing is made anew."""
    with new_run() as run:
        process = run.new(Setting("torch", "exponential"))
        run.reach(process, STEPS)
        GONE[how](run.folder)
        code = end_of(process)
        if code != 1 or "deleted, moved or replaced" not in run.said():
            return f"{how}: code {code}: {run.said()}"
        there = list(run.folder.rglob("*")) if run.folder.exists() else []
        return f"{how}: {there[0].name} was made anew" if there or run.folder.exists() != (how == "replaced") else ""


def worker_stopped(step: int) -> str:
    """A stopped data worker and SIGTERM: all is saved, and the run goes on to the same end."""
    setting = Setting("torch", "exponential", workers=1)
    whole(setting)
    with new_run() as run:
        process = run.new(setting)
        run.reach(process, step)
        workers = [one for one in psutil.Process(process.pid).children(recursive=True) if _is_worker(one)]
        for worker in workers:
            worker.suspend()
        process.send_signal(signal.SIGTERM)
        return _saved(run, process, setting, [worker.pid for worker in workers])


def rank_stopped(rank: int) -> str:
    """The same with one of two ranks."""
    setting = Setting("torch", "exponential", devices=2)
    whole(setting)
    with new_run() as run:
        process = run.new(setting)
        run.reach(process, 2)
        ranks = [int((run.folder / "ranks" / f"rank{number}.pid").read_text()) for number in (0, 1)]
        psutil.Process(ranks[rank]).suspend()
        process.send_signal(signal.SIGTERM)
        return _saved(run, process, setting, ranks)


def _saved(run: Run, process: subprocess.Popen[bytes], setting: Setting, others: list[int]) -> str:
    """It ends as asked, leaves no process, and goes on to the end that it would have had."""
    code = end_of(process)
    if code != 130:
        return f"{setting}: code {code}: {run.said()}"
    gone(others)
    assert not any(map(running, others))
    if code := end_of(run.resume()):
        return f"{setting}: the resumed run ends with code {code}: {run.said()}"
    return differs(run, setting)


def _is_worker(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline())
