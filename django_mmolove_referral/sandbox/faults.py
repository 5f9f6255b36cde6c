"""Faults to order: what goes wrong between MMOLove and the sender, scripted by tests and demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Fields = Mapping[str, Any]
"""The parsed body of a request; empty if it was no JSON object."""


def any_event(fields: Fields) -> bool:
    """Every request."""
    return True


def only_real(fields: Fields) -> bool:
    """Requests that are no dry runs."""
    return fields.get("test") is not True


def only_dry_runs(fields: Fields) -> bool:
    """Dry runs."""
    return fields.get("test") is True


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with an answer. The parts combine.

    Without ``status`` and ``drop`` the event is processed and the genuine answer sent, only in a bad way.
    ``drop``, ``truncate``, ``delay`` and ``drip`` are carried out by the threaded server; the Django face
    answers 503 for the first two and ignores the others.
    """

    #: Answer with this HTTP status instead of the genuine one.
    status: int | None = None
    #: The body sent with ``status``: bytes (a proxy's HTML page, garbage, nothing) or a mapping sent as JSON.
    body: bytes | Mapping[str, Any] = b""
    #: Set or replaced in whichever answer is sent: ``Retry-After``, ``Location``, a ``Date`` that is off.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The event takes effect before its answer is lost: the next attempt is a ``duplicate``.
    processed: bool = False
    #: Close the connection without a byte of an answer.
    drop: bool = False
    #: Close the connection in the middle of the body.
    truncate: bool = False
    #: Seconds of silence before the answer.
    delay: float = 0.0
    #: Seconds between any two bytes of the answer.
    drip: float = 0.0
    #: Which requests it hits, judged by their parsed fields.
    when: Callable[[Fields], bool] = any_event

    @property
    def replaces_answer(self) -> bool:
        """Whether the genuine answer is not sent."""
        return self.status is not None or self.drop

    def __str__(self) -> str:
        parts = [
            self.replaces_answer and self.processed and "answer lost",
            self.status is not None and f"HTTP {self.status}",
            self.drop and "connection dropped",
            self.truncate and "body cut",
            self.delay and f"after {self.delay:g} s",
            self.drip and "byte by byte",
            self.headers and ", ".join(self.headers),
        ]
        return ", ".join(part for part in parts if part)


class FaultScript:
    """The faults to come: the counted ones first, in their order; then the standing ones, newest first."""

    def __init__(self) -> None:
        self._counted: list[tuple[Fault, int]] = []
        self._standing: list[Fault] = []

    def add(self, fault: Fault, times: int | None) -> None:
        """``times`` requests will meet ``fault``; every one until :meth:`clear` if ``None``."""
        if times is None:
            self._standing.insert(0, fault)
        elif times > 0:
            self._counted.append((fault, times))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._counted.clear()
        self._standing.clear()

    def take(self, fields: Fields) -> Fault | None:
        """The fault that hits a request with these fields, used up by one."""
        for position, (fault, left) in enumerate(self._counted):
            if fault.when(fields):
                self._counted[position : position + 1] = [(fault, left - 1)] if left > 1 else []
                return fault
        return next((fault for fault in self._standing if fault.when(fields)), None)
