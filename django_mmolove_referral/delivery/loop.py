"""Draining for as long as a process lives: sleeps until something is due, survives a database that comes and goes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections, router

from ..conf import conf
from ..models import OutboundEvent
from .drain import Drain, Tally
from .schedule import seconds_until_due

logger = logging.getLogger("mmolove_referral.delivery")

SHORTEST_SLEEP = 0.05


class Loop:
    """``run`` drains until ``stop``; ``wake`` ends its sleep. Nothing due means no open database connection."""

    def __init__(self, *, concurrency: int | None = None, watch: Callable[[Tally], None] | None = None) -> None:
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._drain = Drain(concurrency=concurrency, stop=self._stop, watch=watch)
        self._complaint = ""

    @property
    def tally(self) -> Tally:
        return self._drain.tally

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """Nothing new is claimed; ``run`` returns when what is in flight is settled. Safe in a signal handler."""
        self._stop.set()
        self._woken.set()

    def run(self) -> None:
        while not self._stop.is_set():
            self._woken.clear()
            self._woken.wait(self._once())

    def _once(self) -> float:
        """Drain once; returns the seconds to sleep."""
        longest = conf.sweep_interval
        try:
            self._drain.run()
            due = seconds_until_due(router.db_for_read(OutboundEvent))
            self._complain(None)
            return longest if due is None else min(max(due, SHORTEST_SLEEP), longest)
        except Exception as error:  # noqa: BLE001  # said by _complain, once
            self._complain(error)
            return longest
        finally:
            # Of this thread: an idle portal must not hold a connection open, nor keep one that has died.
            connections.close_all()

    def _complain(self, error: Exception | None) -> None:
        complaint = "" if error is None else f"{type(error).__name__}: {error}"
        if error is not None and complaint != self._complaint:
            logger.error("Delivery stopped and is tried again in a while: %s", complaint, exc_info=error)
        elif self._complaint and not complaint:
            logger.warning("Delivery works again.")
        self._complaint = complaint
