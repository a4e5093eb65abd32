"""Worker processes that fill batches, in the order of their tasks whatever their number.

Images come back through shared memory (two slots a worker: one is filled while the other is waited for), the small
arrays through a pipe. A worker's error is raised in the caller; a killed worker is noticed; workers end with the
caller, even a killed one, since their pipe closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError

Float = NDArray[np.float32]
Extras = tuple[NDArray[Any], ...]
SLOTS = 2


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


class Workers:
    """`count` processes that run `prepare(task, images)`, which fills `images` and returns the other arrays.

    `prepare` is pickled once, when the first task comes. `largest` is the most values that a task's images have. With
    count 0 everything happens in the calling process.
    """

    def __init__(self, prepare: Prepare, count: int, largest: int) -> None:
        self._prepare, self._count, self._largest = prepare, count, largest
        self._workers: list[_Worker] = []
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
        try:
            wait([worker.pipe, worker.process.sentinel])
            reply = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            reply = None
        if reply is None:
            self._died(worker)
        if isinstance(reply, Exception):
            self.close()
            raise reply
        return task, worker.slots[slot, : math.prod(task.shape)].reshape(task.shape).copy(), reply

    def _died(self, worker: _Worker) -> NoReturn:
        worker.process.join(1)
        code = worker.process.exitcode
        self.close()
        raise PortdetError(
            f"a data worker ended without a word (exit code {code})",
            fix="-9 is usually lack of memory: lower data.workers or data.batch; data.workers=0 shows the error",
        )

    def close(self) -> None:
        """End the processes. A later `run` starts new ones."""
        workers, self._workers = self._workers, []
        self._pending.clear()
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(2)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()


def _serve(pipe: Connection, memory: Any, prepare: Prepare) -> None:
    """The worker's life: until the pipe closes. Ctrl-C goes to the whole group and is the main process's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    slots = np.frombuffer(memoryview(memory), np.float32).reshape(SLOTS, -1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            slot, task = pipe.recv()
            pipe.send(_answer(prepare, task, slots[slot, : math.prod(task.shape)].reshape(task.shape)))


def _answer(prepare: Prepare, task: Any, images: Float) -> Extras | PortdetError:
    try:
        return prepare(task, images)
    except PortdetError as error:
        return error
    except Exception as error:
        return PortdetError(
            f"data worker: {error!r}\n{traceback.format_exc()}", fix="this is a fault of portdet or its data"
        )
