"""`portdet train --devices N`: the backend's launcher around the same command, and what its ranks report.

The launchers differ in where the ranks' output goes and in what they make of a failure, so ranks that were started
here leave their process numbers and errors in files of the run's folder `ranks`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click
import psutil

from portdet.backends import OWN, load_backend
from portdet.console import say
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.processes import guard
from portdet.processes.alone import alone_in
from portdet.processes.child import environment
from portdet.processes.watch import Silence, state
from portdet.ranks import ALONE, Launcher, Place, RankError, is_shared
from portdet.train.folder import made
from portdet.train.interrupt import Interrupted, StopRequest

REPORTS, STARTER = "PORTDET_RANKS", "PORTDET_RANKS_STARTER"  # environment: folder of reports, who reads them
PATIENCE = 20.0  # seconds that a launcher gets to end its ranks
LOOK = 1.0  # seconds between two looks at the processes
LINES = 12  # of a log, in an error


def find_place(backend: str) -> Place:
    """Where this process stands among those that a launcher started, the backend's own; `ALONE` without one."""
    place = load_backend(backend).launcher.place()
    if place is ALONE:
        for name in OWN:
            other = load_backend(name).launcher
            if name != backend and other.place() is not ALONE:
                raise PortdetError(
                    f"this process was started by {other.name}, and backend {backend} does not know it",
                    fix=f"use {load_backend(backend).launcher.name}, or `portdet train --devices N`",
                )
        if REPORTS in os.environ:
            raise PortdetError(f"the launcher of backend {backend} gave this process no rank", fix="report this fault")
    return place


# ---------------------------------------------------------------------------- the one who starts
def launch(launcher: Launcher, devices: int, folder: Path, words: Sequence[str]) -> None:
    """Run `portdet *words` as `devices` ranks; rank 0 prints, the launcher's own words go to folder/ranks.

    Ctrl-C, SIGTERM or SIGHUP: all ranks stop after the same step, and `Interrupted` is raised; a second one ends them
    at once. A process of a rank that somebody stopped (SIGSTOP) is named, and continued where the training is to end,
    as the others wait for it: after a signal, or when it has been stopped for `watch.STOPPED` seconds.
    Raises the error of the rank that failed first.
    """
    with alone_in(made(folder / "ranks")):
        _launch(launcher, devices, folder / "ranks", words)


def _launch(launcher: Launcher, devices: int, logs: Path, words: Sequence[str]) -> None:
    for old in [*logs.glob("rank*.json"), *logs.glob("rank*.pid")]:
        old.unlink()
    command = launcher.command(devices, logs, [str(Path(__file__).with_name("rank.py")), *words])
    env = {**environment(), REPORTS: str(logs.resolve()), STARTER: str(os.getpid())}
    said = logs / "launcher.log"
    sys.stdout.flush()
    with (
        said.open("wb") as stream,
        StopRequest() as stop,
        # a session of its own: Ctrl-C is ours to pass on
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stream, env=env, start_new_session=True) as process,
    ):
        try:
            fault = _watch(process, launcher, logs, stop)
        finally:
            _end(process, logs)
        guard.check(logs)
        for file in logs.glob("rank*.pid"):
            file.unlink()
    _raise_report(launcher, devices, logs, process.returncode, fault)
    if stop:
        raise Interrupted(f"stopped by {stop.signal_name} before the first step", fix="start again")


def _watch(process: subprocess.Popen[bytes], launcher: Launcher, logs: Path, stop: StopRequest) -> str:
    """Wait for the launcher; pass a signal on to all ranks. Returns what ended them, if it was a stopped process."""
    silences: dict[int, Silence] = {}
    fault, told = "", False
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK)
        if (stop or fault) and not told:
            if not (logs / "rank0.pid").exists():
                return fault  # no rank has begun
            told = True
            silences.clear()
            for pid in ranks_of(logs).values():
                with suppress(OSError):
                    os.kill(pid, signal.SIGINT)
        stopped = _stopped(process, launcher, logs)
        for pid in silences.keys() - stopped.keys():
            del silences[pid]
        for pid, what in stopped.items():
            silence = silences.setdefault(pid, Silence(what, pid, _say))
            try:
                silence.tick()
            except PortdetError as error:
                fault = fault or error.what
            if told and silence.stopped > PATIENCE:
                return fault or f"{what} (process {pid}) is stopped and cannot be continued"
            if told:
                with suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
    return fault


def ranks_of(logs: Path) -> dict[int, int]:
    """The ranks that have begun, and their processes."""
    found = {}
    for path in logs.glob("rank*.pid"):
        with suppress(OSError, ValueError):
            found[int(path.stem.removeprefix("rank"))] = int(path.read_text())
    return found


def _stopped(process: subprocess.Popen[bytes], launcher: Launcher, logs: Path) -> dict[int, str]:
    """The processes of this training that somebody has stopped: number, and what it is."""
    found = {process.pid: launcher.name} if state(process.pid) == "stopped" else {}
    for rank, pid in ranks_of(logs).items():
        with suppress(psutil.Error):
            one = psutil.Process(pid)
            for each in [one, *one.children(recursive=True)]:
                if state(each.pid) == "stopped":
                    found[each.pid] = f"rank {rank}" if each.pid == pid else f"a process of rank {rank}"
    return found


def _say(line: str) -> None:
    say(line, err=True)


def _end(process: subprocess.Popen[bytes], logs: Path) -> None:
    """End what is left: the launcher, which ends its ranks, and a rank that is stopped and heeds nobody."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    for pid in ranks_of(logs).values():
        with suppress(psutil.Error):
            left = psutil.Process(pid)
            if any(word.endswith("rank.py") for word in left.cmdline()):  # the number may be another's by now
                left.kill()


def _raise_report(launcher: Launcher, devices: int, logs: Path, code: int, fault: str = "") -> None:
    """Raise what the ranks told, the first that failed by itself before those that failed because of it.

    fault: why they were ended here.
    """
    found: list[dict[str, Any]] = [json.loads(path.read_text(encoding="utf-8")) for path in logs.glob("rank*.json")]
    stopped = [report for report in found if report["kind"] == "Interrupted"]
    if fault:
        how = stopped[0]["what"] if stopped else "the ranks were ended; what they saved before is kept"
        resume = f"portdet train --resume {shlex.quote(str(logs.parent))}"
        raise PortdetError(f"{fault}; {how}", fix=stopped[0]["fix"] if stopped else resume)
    if stopped:
        raise Interrupted(stopped[0]["what"], fix=stopped[0]["fix"])
    order = {"PortdetError": 0, "fault": 1, "RankError": 2}
    found.sort(key=lambda report: (order[report["kind"]], report["time"]))
    if not found and not code:
        return
    if not found or found[0]["kind"] != "PortdetError":
        silent = sorted({*range(devices)} - {report["rank"] for report in found})
        heard = f"rank {found[0]['rank']}: {found[0]['what']}\n" if found else ""
        gone = f"ranks without a word: {', '.join(map(str, silent))}; " if silent else ""
        raise PortdetError(f"{heard}{gone}{launcher.name} ended with code {code}{_tails(logs)}")
    first = found[0]
    everywhere = [report["what"] for report in found] == [first["what"]] * devices
    what = first["what"] if everywhere else f"rank {first['rank']}: {first['what']}"
    raise PortdetError(what, fix=first["fix"], where=first["where"])


def _tails(logs: Path) -> str:
    """The last lines of each log."""
    text = ""
    for path in sorted(logs.rglob("*log*")):
        if path.is_file():
            lines = [s for s in path.read_text(encoding="utf-8", errors="replace").splitlines() if s.strip()]
            text += "".join(f"\n    {line}" for line in [f"{path}:", *lines[-LINES:]]) if lines else ""
    return text


# ---------------------------------------------------------------------------- a rank
@contextmanager
def as_rank(place: Place) -> Iterator[None]:
    """Around a rank's work: only rank 0 prints; an error is reported, and one that this rank has alone ends it.

    It cannot leave its group in order, as the others wait for it elsewhere: the launcher sees its end and ends them.
    """
    if place.world == 1:
        yield
        return
    reports = Path(os.environ[REPORTS]) if REPORTS in os.environ else None
    if reports:
        write_text(reports / f"rank{place.rank}.pid", str(os.getpid()))
        threading.Thread(target=_end_with, args=(os.getppid(), int(os.environ[STARTER])), daemon=True).start()
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if place.first else nowhere):
            yield
    except (Exception, KeyboardInterrupt) as error:
        if reports:
            _report(reports, place, error)
            if isinstance(error, Interrupted):
                raise click.exceptions.Exit(0) from None  # another code, and the launcher would end the others
        if not is_shared(error):
            if not reports:
                say(f"error on rank {place.rank}: {_text(error)}", err=True)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise


def _report(folder: Path, place: Place, error: BaseException) -> None:
    if not folder.is_dir():  # the run's folder is gone, and is not made anew
        return
    kind = next((c.__name__ for c in (Interrupted, RankError, PortdetError) if isinstance(error, c)), "fault")
    about = {"rank": place.rank, "kind": kind, "time": time.time(), "what": _text(error), "fix": "", "where": ""}
    if isinstance(error, PortdetError):
        about |= {"what": error.what, "fix": error.fix, "where": error.where}
    write_text(folder / f"rank{place.rank}.json", json.dumps(about))


def _text(error: BaseException) -> str:
    """A message for a person, or a fault with all that is known of it."""
    return str(error) if isinstance(error, PortdetError) else "".join(traceback.format_exception(error)).rstrip()


def _end_with(launcher: int, starter: int) -> None:
    """A thread: end this process when its launcher or the one who started that is gone."""
    while os.getppid() == launcher and state(starter) != "dead":
        time.sleep(1)
    os._exit(1)
