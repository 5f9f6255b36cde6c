"""What this process remembers of one MMOLove server between two events. The database holds what all must know."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterable

from ..client import Attempt
from ..conf import ConfigError, Server, conf
from ..logs import over, trouble
from ..protocol import Credentials
from ..transport import Transport
from . import health
from .send import Channel, Ruling, Sent

logger = logging.getLogger("mmolove_referral.delivery")

SUCCESS_INTERVAL = 60.0
"""Seconds between two notes of a success: the table is written on change, not per event."""
SKEW_STEP = 30.0
"""Seconds by which the clocks' difference has to change to be noted."""


class Lane:
    """One server's channel, its run of consecutive faults, and what was last written about it."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.channel = Channel(server)
        #: Consecutive faults seen by this process.
        self.streak = 0
        #: Set by the first sign that the server should pause: what has been claimed and not begun goes back unsent.
        self.halted = False
        self._listening = threading.Lock()
        self._success_noted: float | None = None
        self._skew_noted: float | None = None  # what the table says may be an earlier process's

    def credentials(self, server: Server) -> Credentials | None:
        """The credentials, read afresh; ``None``, said once, while the settings have none: the events stay."""
        try:
            credentials = server.credentials()
        except ConfigError as error:
            topic, text = f"credentials of {self.server}", "Nothing is delivered to %r: %s"
            trouble(logger, topic, str(error), text, self.server, error, server=self.server)
            return None
        over(
            logger, f"credentials of {self.server}", "Server %r has credentials again.", self.server, server=self.server
        )
        return credentials

    def hear(self, sent: Sent) -> None:
        """Of each event, in the thread that sent it, as the drain's own may be busy with the database."""
        with self._listening:
            if sent.ruling is Ruling.FAULT:
                self.streak += 1
                self._success_noted = None  # the next success is news: it ends what was failing
            elif sent.ruling in (Ruling.ACCEPTED, Ruling.REFUSED):
                self.streak = 0
            if sent.ruling is Ruling.SERVER_FAULT or sent.last.answer.retry_after or self.streak >= conf.pause_after:
                self.halted = True

    def note(self, attempts: Iterable[Attempt], *, success: bool, using: str) -> None:
        """Write down when MMOLove last accepted something, and how far its clock is off."""
        now = time.monotonic()
        if success and (self._success_noted is None or now - self._success_noted >= SUCCESS_INTERVAL):
            self._success_noted = now
            health.note_success(self.server, using=using)
        skews = [attempt.skew for attempt in attempts if attempt.skew is not None]
        if skews and (self._skew_noted is None or abs(skews[-1] - self._skew_noted) >= SKEW_STEP):
            self._skew_noted = skews[-1]
            health.note_clock(self.server, skews[-1], socket.gethostname()[:255], using=using)


_lanes: dict[str, Lane] = {}
_transports: dict[tuple[object, ...], Transport] = {}


def lane(server: str) -> Lane:
    """This process's lane of ``server``."""
    return _lanes.setdefault(server, Lane(server))


def transport(connections: int) -> Transport:
    """This process's kept connections, for that many threads at a time."""
    options = (conf.deadline, conf.response_limit, connections, conf.verify, conf.trust_env)
    if options not in _transports:
        _transports[options] = Transport(
            deadline=conf.deadline,
            limit=conf.response_limit,
            connections=connections,
            verify=conf.verify,
            trust_env=conf.trust_env,
        )
    return _transports[options]


def forget() -> None:
    """Close the connections and forget what was remembered (for tests)."""
    for old in _transports.values():
        old.close()
    _transports.clear()
    _lanes.clear()


if hasattr(os, "register_at_fork"):  # a lock of a lane may be held by a thread that does not exist in the child
    os.register_at_fork(after_in_child=_lanes.clear)
