"""Contestants in processes of their own, run by turns, and what comes of it in medians and ratios."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """``commands``: its processes, started together. Each says ``ready``, waits for a line, works, and says in JSON
    what it took (``cpu``: seconds; ``memory``: MB at its peak, over idle)."""

    name: str
    commands: Sequence[Sequence[str]]
    #: Events that it sends.
    number: int


@dataclass(frozen=True)
class Lap:
    rate: float
    """Events per second."""
    cpu: float
    """CPU seconds per 1,000 events."""
    memory: float
    """MB at the peak, over idle."""


class Sink:
    """A ``benchmarks.sink`` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.endpoint: str = self._read()["endpoint"]

    def count(self) -> dict[str, int]:
        """What has arrived since the last call."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def sink(*, latency: float = 0.0, opening: float = 0.0, tls: str = "") -> Iterator[Sink]:
    options = [f"--latency={latency}", f"--opening={opening}", f"--tls={tls}"]
    with _started([sys.executable, "-m", "benchmarks.sink", *options]) as process:
        try:
            yield Sink(process)
        finally:
            process.kill()  # it has nothing to lose, and may have connections to wait for


def lap(contestant: Contestant, sink: Sink) -> Lap:
    """One run; raises ``AssertionError`` unless the sink has verified each event once."""
    sink.count()
    processes = [_started(command) for command in contestant.commands]
    for process in processes:
        assert process.stdout
        told = process.stdout.readline()
        assert told == "ready\n", f"{contestant.name}: {told}"
    began = time.monotonic()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
    seconds = time.monotonic() - began
    for process in processes:
        process.communicate(timeout=60)
    verified = sink.count().get("verified", 0)
    assert verified == contestant.number, f"{contestant.name}: {verified} of {contestant.number} arrived"
    number = contestant.number
    cpu, memory = (sum(result.get(key, 0.0) for result in results) for key in ("cpu", "memory"))
    return Lap(number / seconds, 1000 * cpu / number, memory)


def race(contestants: Iterable[Contestant], sink: Sink, before: Callable[[], None], laps: int) -> dict[str, Lap]:
    """The medians of ``laps`` runs of each contestant, by turns. ``before`` is called before each run."""
    run: dict[str, list[Lap]] = {}
    for number in range(laps):
        for contestant in contestants:
            before()
            run.setdefault(contestant.name, []).append(lap(contestant, sink))
            last = run[contestant.name][-1]
            say(f"  {number + 1}/{laps}  {contestant.name:36} {last.rate:9.1f}/s  {last.cpu:6.3f} CPU s per 1,000")
    return {
        name: Lap(*(median(getattr(one, field) for one in laps) for field in ("rate", "cpu", "memory")))
        for name, laps in run.items()
    }


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def judge(what: str, value: float, bound: float, *, least: bool = True, unit: str = "x") -> bool:
    """A line of the result: a value and the target that it meets or does not."""
    met = value >= bound if least else value <= bound
    say(f"{'met   ' if met else 'MISSED'}  {what}: {value:.2f}{unit} (target {'≥' if least else '≤'} {bound:g}{unit})")
    return met


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
