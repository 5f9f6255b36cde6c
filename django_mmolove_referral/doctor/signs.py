"""Signs of life, and since when there has been work: with both it is known whether anything delivers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F, QuerySet

from ..clock import DatabaseNow
from ..conf import conf
from ..models import Heartbeat, OutboundEvent, Reward, ServerHealth

PATIENCE = 120.0
"""Seconds of silence, or four sweep intervals if that is longer, after which delivery is taken to be dead."""
PATIENCE_WITH_CRON = 3600.0
"""The same where ``mmolove_deliver --once`` was last: nobody knows how often cron runs it."""


class Signs:
    """The signs of life in the database ``using``: how long ago each kind was seen, and where. Read once."""

    def __init__(self, using: str) -> None:
        self.using = using

    @cached_property
    def seen(self) -> dict[str, tuple[float, str]]:
        """Seconds and host, by kind."""
        rows = aged(Heartbeat.objects.using(self.using), "seen_at")
        return {kind: (age.total_seconds(), host) for kind, age, host in rows.values_list("kind", "age", "host")}

    def latest(self) -> tuple[str, float, str] | None:
        """Kind, seconds and host of the last one, or ``None`` if nothing ever delivered."""
        return min(((kind, *sign) for kind, sign in self.seen.items()), key=lambda sign: sign[1], default=None)

    def patience(self) -> float:
        """Seconds after which work that is due is late."""
        latest = self.latest()
        usual = max(PATIENCE, 4 * conf.sweep_interval)
        return max(usual, PATIENCE_WITH_CRON) if latest and latest[0] == Heartbeat.Kind.ONCE else usual


def overdue(using: str) -> float | None:
    """Seconds for which something has been due that could have been done: an event of an open server, a reward."""
    closed = ServerHealth.objects.using(using).exclude(state=ServerHealth.State.OPEN).values_list("server", flat=True)
    shut = set(closed)
    pending = OutboundEvent.objects.using(using).filter(state=OutboundEvent.State.PENDING)
    usable = [server.alias for server in conf.servers.values() if server.alias not in shut and server.usable]
    ages = [
        oldest(Reward.objects.using(using).filter(state=Reward.State.DUE), "due_at"),
        # One by one: each is the first entry of its part of the index.
        *(oldest(pending.filter(server=alias), "due_at") for alias in usable),
    ]
    return max((age for age in ages if age is not None), default=None)


def oldest(rows: QuerySet[Any], field: str) -> float | None:
    """Seconds since the smallest ``field``, by the database's clock; ``None`` without rows."""
    age = aged(rows, field).order_by(field).values_list("age", flat=True).first()
    return None if age is None else float(age.total_seconds())


def aged(rows: QuerySet[Any], field: str) -> QuerySet[Any]:
    """With the time since ``field`` as ``age``."""
    age = ExpressionWrapper(DatabaseNow() - F(field), output_field=DurationField())
    return rows.annotate(age=age)  # type: ignore[no-any-return]  # the plugin knows no rows of any model
