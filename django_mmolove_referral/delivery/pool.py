"""The drain's threads: daemons, so that a portal that stops never waits for MMOLove."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Pool(Generic[Result]):
    """Runs jobs in up to ``size`` threads, started as they are needed, and hands their results back together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: SimpleQueue[Callable[[], Result] | None] = SimpleQueue()
        self._done: SimpleQueue[Result | BaseException] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.in_flight = 0

    @property
    def free(self) -> int:
        return self.size - self.in_flight

    def submit(self, job: Callable[[], Result]) -> None:
        self.in_flight += 1
        if len(self._threads) < min(self.in_flight, self.size):
            thread = threading.Thread(target=self._work, name="mmolove-send", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def results(self) -> list[Result]:
        """Wait for a result and return all that are there. What a job raised is raised here."""
        found = [self._done.get()]
        while True:
            try:
                found.append(self._done.get_nowait())
            except Empty:
                break
        self.in_flight -= len(found)
        for item in found:
            if isinstance(item, BaseException):
                raise item
        return [item for item in found if not isinstance(item, BaseException)]

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
