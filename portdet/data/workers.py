"""Worker processes that fill batches, in the order of their tasks whatever their number.

Images come back through shared memory (two slots a worker: one is filled while the other is waited for), the small
arrays through a pipe. A worker's error is raised in the caller; a killed worker is noticed, a stopped one is named and
not waited for without end (see `processes.watch`); workers end with the caller, even a killed one, since their pipe
closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NoReturn, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from portdet.console import say
from portdet.errors import PortdetError
from portdet.processes.watch import TICK, Silence

Float = NDArray[np.float32]
Extras = tuple[NDArray[Any], ...]
SLOTS = 2
GRACE = 2.0  # seconds that the processes get to end by themselves, and again after SIGTERM


class Cancelled(PortdetError):
    """The caller was asked to stop while it waited for a worker."""


class Task(Protocol):
    """A batch to prepare. It must pickle, and be small."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the images: (B, 3, S, S)."""


AnyTask = TypeVar("AnyTask", bound=Task)
Prepare = Callable[[Any, Float], Extras]


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    slots: Float
    heard: bytearray = field(default_factory=bytearray)  # of its answers: 8 bytes of length and a pickle each

    def answer(self) -> Any:
        """Its next answer, or None if it has not come whole."""
        if len(self.heard) < 8 or len(self.heard) < (end := 8 + int.from_bytes(self.heard[:8], "little")):
            return None
        said = pickle.loads(self.heard[8:end])
        del self.heard[:end]
        return said


class Workers:
    """`count` processes that run `prepare(task, images)`, which fills `images` and returns the other arrays.

    `prepare` is pickled once, when the first task comes. `largest` is the most values that a task's images have. With
    count 0 everything happens in the calling process. `cancelled` is asked while a worker is waited for: where it is
    true the wait ends with `Cancelled`. `say` is told of a worker that gives no sign of life.
    """

    cancelled: Callable[[], bool] = staticmethod(lambda: False)
    say: Callable[[str], None] = staticmethod(lambda line: say(line, err=True))

    def __init__(self, prepare: Prepare, count: int, largest: int) -> None:
        self._prepare, self._count, self._largest = prepare, count, largest
        self._workers: list[_Worker] = []
        self._processes: list[BaseProcess] = []
        # multiprocessing waits for its processes when the interpreter ends, for a stopped one without end
        self._at_end = Finalize(self, _kill, (self._processes,), exitpriority=1)
        self._pending: deque[tuple[int, int, Any]] = deque()
        self._run = 0

    def run(self, tasks: Iterable[AnyTask]) -> Iterator[tuple[AnyTask, Float, Extras]]:
        """Each task with its images and other arrays, which are the caller's own. A new run ends the one before."""
        self._run += 1
        if not self._count:
            return self._run_here(tasks)
        return self._run_in_workers(tasks, self._run)

    def _run_here(self, tasks: Iterable[AnyTask]) -> Iterator[tuple[AnyTask, Float, Extras]]:
        for task in tasks:
            images = np.empty(task.shape, np.float32)
            yield task, images, self._prepare(task, images)

    def _run_in_workers(self, tasks: Iterable[AnyTask], run: int) -> Iterator[tuple[AnyTask, Float, Extras]]:
        self._start()
        while self._pending:  # left by a run that was given up
            self._receive()
        for number, task in enumerate(tasks):
            done = self._receive() if len(self._pending) == SLOTS * self._count else None
            worker, slot = number % self._count, number // self._count % SLOTS
            self._send(worker, slot, task)
            if done:
                yield done
                self._check(run)
        while self._pending:
            yield self._receive()
            self._check(run)

    def _check(self, run: int) -> None:
        if run != self._run:
            raise PortdetError("this pass over the data ended when another one began", fix="use one at a time")

    def _start(self) -> None:
        """Spawned, not forked: a forked copy of a process that runs OpenMP or CUDA threads may hang."""
        context = multiprocessing.get_context("spawn")
        for _ in range(self._count - len(self._workers)):
            # An anonymous file: unlike named shared memory it cannot be left behind, and needs no room in /dev/shm.
            memory = context.RawArray(ctypes.c_float, SLOTS * self._largest)
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, memory, self._prepare), daemon=True)
            process.start()
            self._processes.append(process)
            theirs.close()
            slots = np.frombuffer(memoryview(memory), np.float32).reshape(SLOTS, self._largest)
            self._workers.append(_Worker(process, ours, slots))

    def _send(self, worker: int, slot: int, task: Any) -> None:
        try:
            self._workers[worker].pipe.send((slot, task))
        except OSError:
            self._died(self._workers[worker])
        self._pending.append((worker, slot, task))

    def _receive(self) -> tuple[Any, Float, Extras]:
        index, slot, task = self._pending.popleft()
        worker = self._workers[index]
        reply = self._wait(index)
        if isinstance(reply, Exception):
            self.close()
            raise reply
        return task, worker.slots[slot, : math.prod(task.shape)].reshape(task.shape).copy(), reply

    def _wait(self, index: int) -> Any:
        """The worker's next answer. It is read as it comes, since a worker may be stopped in the middle of one."""
        worker = self._workers[index]
        silence = Silence(f"data worker {index + 1} of {self._count}", worker.process.pid or 0, self.say)
        while (reply := worker.answer()) is None:
            ready = wait([worker.pipe, worker.process.sentinel], TICK)
            if worker.pipe in ready:
                try:
                    came = os.read(worker.pipe.fileno(), 1 << 20)
                except OSError:
                    came = b""
                if not came:
                    self._died(worker)
                worker.heard += came
                silence.heard()
            elif ready:
                self._died(worker)
            elif self.cancelled():
                raise Cancelled("stopped while a data worker was waited for")
            else:
                silence.tick()
        return reply

    def _died(self, worker: _Worker) -> NoReturn:
        worker.process.join(1)
        if self.cancelled():  # whoever asked us to stop has told the whole group
            raise Cancelled("stopped with a data worker")
        code = worker.process.exitcode
        self.close()
        raise PortdetError(
            f"a data worker ended without a word (exit code {code})",
            fix="-9 is usually lack of memory: lower data.workers or data.batch; data.workers=0 shows the error",
        )

    def close(self) -> None:
        """End the processes, also one that is stopped and heeds no SIGTERM. A later `run` starts new ones."""
        workers, self._workers = self._workers, []
        self._pending.clear()
        for worker in workers:
            worker.pipe.close()
        for end in (BaseProcess.terminate, BaseProcess.kill):
            deadline = time.monotonic() + GRACE
            for process in self._processes:
                process.join(max(deadline - time.monotonic(), 0))
            for process in self._processes:
                if process.is_alive():
                    end(process)
        for process in self._processes:
            process.join()
        self._processes.clear()


def _kill(processes: list[BaseProcess]) -> None:
    """Without a word; they hold nothing."""
    for process in processes:
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, memory: Any, prepare: Prepare) -> None:
    """The worker's life: until the pipe closes. What a terminal sends to its group is the main process's affair."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    slots = np.frombuffer(memoryview(memory), np.float32).reshape(SLOTS, -1)
    with contextlib.suppress(EOFError, OSError), open(pipe.fileno(), "wb", closefd=False) as out:
        while True:
            slot, task = pipe.recv()
            said = pickle.dumps(_answer(prepare, task, slots[slot, : math.prod(task.shape)].reshape(task.shape)))
            out.write(len(said).to_bytes(8, "little") + said)
            out.flush()


def _answer(prepare: Prepare, task: Any, images: Float) -> Extras | PortdetError:
    try:
        return prepare(task, images)
    except PortdetError as error:
        return error
    except Exception as error:
        return PortdetError(
            f"data worker: {error!r}\n{traceback.format_exc()}", fix="this is a fault of portdet or its data"
        )
