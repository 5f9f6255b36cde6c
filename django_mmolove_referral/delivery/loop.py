"""Draining for as long as a process lives: sleeps until something is due, survives a database that comes and goes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections, router

from ..conf import conf
from ..logs import over, trouble
from ..models import Heartbeat, OutboundEvent
from .drain import Drain, Tally
from .life import beat
from .schedule import seconds_until_due

logger = logging.getLogger("mmolove_referral.delivery")

SHORTEST_SLEEP = 0.05


class Loop:
    """``run`` drains until ``stop``; ``wake`` ends its sleep. Nothing due means no open database connection.

    ``kind`` is whose sign of life it gives; ``watch`` is called with the tally after each batch.
    """

    def __init__(
        self,
        kind: Heartbeat.Kind = Heartbeat.Kind.LOOP,
        *,
        concurrency: int | None = None,
        watch: Callable[[Tally], None] | None = None,
    ) -> None:
        self._kind = kind
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._watch = watch or (lambda tally: None)
        self._drain = Drain(concurrency=concurrency, stop=self._stop, watch=self._after_batch)

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
            beat(self._kind, using=self._drain.using)
            due = seconds_until_due(router.db_for_read(OutboundEvent))
            over(logger, "loop", "Delivery works again.")
            return longest if due is None else min(max(due, SHORTEST_SLEEP), longest)
        except Exception as error:  # noqa: BLE001  # whatever a database, or the settings, do
            trouble(logger, "loop", error, "Delivery stopped and is tried again in a while: %s", error)
            return longest
        finally:
            # Of this thread: an idle portal must not hold a connection open, nor keep one that has died.
            connections.close_all()

    def _after_batch(self, tally: Tally) -> None:
        beat(self._kind, using=self._drain.using)  # a backlog may keep one drain busy for hours
        self._watch(tally)
