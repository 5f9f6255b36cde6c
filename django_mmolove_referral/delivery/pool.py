"""The drain's threads: daemons, so that a portal that stops never waits for MMOLove."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Result = TypeVar("Result")

AHEAD = 3
"""Jobs that a pool takes for each of its threads: one in hand and one to begin with at once."""
LINGER = 0.05
"""Seconds that results may wait for more while the threads have work: a batch costs hardly more than a single one."""

Done = SimpleQueue["Result | BaseException"]


class Pool(Generic[Result]):
    """Runs jobs in up to ``size`` threads, started as they are needed; the results go to ``done``."""

    def __init__(self, size: int, done: Done[Result]) -> None:
        self.size = size
        self._jobs: SimpleQueue[Callable[[], Result] | None] = SimpleQueue()
        self._done = done
        self._threads: list[threading.Thread] = []
        self.in_flight = 0

    @property
    def room(self) -> int:
        """How many jobs more it takes."""
        return self.size * AHEAD - self.in_flight

    @property
    def idle_soon(self) -> bool:
        """Whether its threads are about to have nothing to do."""
        return self._jobs.qsize() <= self.size // 2

    def submit(self, job: Callable[[], Result]) -> None:
        self.in_flight += 1
        if len(self._threads) < min(self.in_flight, self.size):
            thread = threading.Thread(target=self._work, name="mmolove-send", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._done.put(job())
            except BaseException as error:  # noqa: BLE001  # raised in the drain's own thread instead
                self._done.put(error)


def collect(done: Done[Result], lingering: Callable[[], bool]) -> list[Result]:
    """Wait for a result and return all that are there, and those that come while ``lingering()``.

    What a job raised is raised here.
    """
    found = [done.get()]
    until = time.monotonic() + LINGER
    while True:
        try:
            left = until - time.monotonic()
            found.append(done.get(timeout=left) if left > 0 and lingering() else done.get_nowait())
        except Empty:
            break
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return [item for item in found if not isinstance(item, BaseException)]
