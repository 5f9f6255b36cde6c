"""Signs of life: that something delivers, where and when. Written seldom, and never in the way of delivery."""

from __future__ import annotations

import logging
import socket
import time

from django.db import Error, IntegrityError

from ..clock import DatabaseNow
from ..conf import conf
from ..logs import over, trouble
from ..models import Heartbeat

logger = logging.getLogger("mmolove_referral.delivery")

#: When this process last gave a sign of each kind (monotonic seconds).
_given: dict[str, float] = {}


def beat(kind: Heartbeat.Kind, *, using: str) -> None:
    """Something of ``kind`` has just drained: write it down, once per ``SWEEP_INTERVAL`` and process.

    Costs one UPDATE then (and one INSERT in the life of the table), nothing otherwise. A process that has no server's
    credentials gives none. A database that does not take it is logged and otherwise ignored.
    """
    now = time.monotonic()
    last = _given.get(kind.value)
    if last is not None and now - last < conf.sweep_interval:
        return
    _given[kind.value] = now  # whatever comes of it: a table that is missing is not asked for with every batch
    if not any(server.usable for server in conf.servers.values()):
        return  # it runs, and without credentials delivers nothing
    sign = {"host": socket.gethostname()[:255], "seen_at": DatabaseNow()}
    rows = Heartbeat.objects.using(using)
    try:
        if not rows.filter(kind=kind.value).update(**sign):
            rows.create(kind=kind.value, **sign)
    except IntegrityError:
        pass  # another process wrote the first one in between
    except Error as error:
        trouble(
            logger,
            "life",
            error,
            "Delivery goes on, but its signs of life cannot be written (manage.py migrate mmolove_referral?): %s",
            error,
            level=logging.WARNING,
            trace=False,
        )
    else:
        over(logger, "life", "Signs of life are written again.")


def forget() -> None:
    """Forget when signs were given (for tests)."""
    _given.clear()
