"""Sending one claimed event: no database, no transaction, no lock. Runs in the drain's threads.

A refusal that may be the server's fault is put to a signed dry run before it is believed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import Enum

from .. import protocol
from ..client import Attempt, exchange
from ..masking import Blot
from ..protocol import Credentials, Kind, Verdict
from ..transport import Transport
from .claim import Claimed, Subject

CLOCKS_AGREE = 60.0
"""Seconds by which two clocks may differ and still be taken to agree."""


class Ruling(str, Enum):
    """What became of a claimed event, after any dry run."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAULT = "fault"  # on the event's own schedule
    SERVER_FAULT = "server_fault"  # the server pauses, the event is not to blame
    UNDECIDED = "undecided"  # a fault on the event's own schedule that says nothing about the server


@dataclass(frozen=True)
class Sent:
    """A claimed event after its attempts."""

    event: Claimed
    ruling: Ruling
    attempts: tuple[Attempt, ...]
    #: Why the server pauses (``SERVER_FAULT`` only).
    reason: str = ""
    canary: bool = False

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]


class Probe(str, Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"  # 404 with a token that was never accepted


@dataclass(frozen=True)
class Probed:
    """A dry run's result."""

    result: Probe
    begun: float
    credentials: Credentials
    body: bytes = field(repr=False)
    attempt: Attempt = field(repr=False)

    @property
    def reason(self) -> str:
        return self.attempt.answer.error


class Clock:
    """By how much this process's clock has to be corrected when signing, learnt from MMOLove's answers."""

    def __init__(self) -> None:
        #: Whether anything was sent at all. Until then a wrong clock would have a whole batch refused.
        self.compared = False
        self._learnt: tuple[float, float] | None = None

    @property
    def offset(self) -> float:
        """Seconds to add to this process's clock: what was learnt, less what the clock was set by since."""
        if self._learnt is None:
            return 0.0
        offset, set_to = self._learnt
        moved = _clock_setting() - set_to
        return offset - moved if abs(moved) > CLOCKS_AGREE else offset

    def learn(self, offset: float, set_to: float) -> None:
        """``set_to``: the clock's setting when the request left, as it may have been set since."""
        self._learnt = offset, set_to


def _clock_setting() -> float:
    """What changes when somebody sets this machine's clock, and only then."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # goes on while the machine sleeps; Linux has it
    return time.time() - (time.monotonic() if boot is None else time.clock_gettime(boot))


class Channel:
    """One MMOLove server as this process knows it: its clock and what the last dry run said. Thread-safe."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.clock = Clock()
        self._probing = threading.Lock()
        self._probed: Probed | None = None

    def carry(
        self,
        transport: Transport,
        credentials: Credentials,
        event: Claimed,
        subject: Subject | None,
        remember: float,
        *,
        canary: bool = False,
    ) -> Sent:
        """Send ``event`` and come to a ruling. A failed dry run is believed for ``remember`` seconds."""
        attempts = self._request(transport, credentials, event.kind, event.body, Blot(event.token))
        ruling, reason = _ruling(attempts[-1]), ""
        if ruling is None:
            probed = self._ask(transport, credentials, subject or Subject(event.token, proven=False), remember)
            if probed.result is Probe.PASSED:
                attempts += self._request(transport, credentials, event.kind, event.body, Blot(event.token))
                ruling = _ruling(attempts[-1]) or Ruling.REFUSED
            elif probed.result is Probe.FAILED:
                ruling, reason = Ruling.SERVER_FAULT, probed.reason
            else:
                ruling = Ruling.UNDECIDED
        return Sent(event, ruling, tuple(attempts), reason, canary)

    def probe(self, transport: Transport, credentials: Credentials, subject: Subject) -> Probed:
        """Send a dry run: everything about the server is checked, nothing is written there."""
        begun = time.monotonic()
        body = protocol.encode(
            Kind.REGISTERED,
            token=subject.token,
            server_id=credentials.server_id,
            server_event_id="probe",
            ts=int(time.time() + self.clock.offset),
            referee_identity="probe",
            test=True,
        )
        attempt = self._request(transport, credentials, Kind.REGISTERED, body, Blot(subject.token), test=True)[-1]
        if attempt.answer.verdict is Verdict.ACCEPTED:
            result = Probe.PASSED
        elif attempt.status == 404 and not subject.proven:
            result = Probe.UNDECIDED
        else:
            result = Probe.FAILED
        self._probed = Probed(result, begun, credentials, body, attempt)
        return self._probed

    def _ask(self, transport: Transport, credentials: Credentials, subject: Subject, remember: float) -> Probed:
        """A dry run begun after this moment; one serves all who asked before it began."""
        refused = time.monotonic()
        with self._probing:
            last = self._probed
            if last is not None and last.credentials == credentials:
                failed_lately = last.result is Probe.FAILED and refused - last.begun < remember
                if failed_lately or last.begun >= refused:
                    return last
            return self.probe(transport, credentials, subject)

    def _request(
        self, transport: Transport, credentials: Credentials, kind: Kind, body: bytes, blot: Blot, *, test: bool = False
    ) -> list[Attempt]:
        """One attempt; a second one at once if the first was refused and MMOLove's clock is another than ours."""
        set_to, offset = _clock_setting(), self.clock.offset
        attempt = exchange(transport, credentials, kind, body, test=test, offset=offset, blot=blot)
        skew, attempts = attempt.skew, [attempt]
        if skew is not None and attempt.status == 401 and abs(skew - offset) > CLOCKS_AGREE:
            attempts.append(exchange(transport, credentials, kind, body, test=test, offset=skew, blot=blot))
            if attempts[-1].status != 401:
                self.clock.learn(skew, set_to)
        elif skew is not None and attempt.status != 401:
            self.clock.learn(0.0 if abs(skew) <= CLOCKS_AGREE else offset, set_to)
        self.clock.compared = True
        return attempts


def _ruling(attempt: Attempt) -> Ruling | None:
    """``None`` for an answer that only a dry run explains."""
    verdict = attempt.answer.verdict
    return None if verdict is Verdict.SUSPECT else Ruling(verdict.value)
