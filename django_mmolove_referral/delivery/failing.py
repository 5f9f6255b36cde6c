"""Open events whose last try failed while MMOLove has accepted nothing since: how an outage begins.

A server pauses after several faults in a row. On a quiet portal those may be far apart, and until then it is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Q

from ..models import OutboundEvent, ServerHealth

LOOKED_AT = 1000
"""Pending events of a server that are looked at, those due last: what failed waits, and the others are due at once."""


@dataclass(frozen=True)
class Failing:
    """What failed at one server since its last success."""

    #: Of those that were looked at.
    count: int
    #: What its last try came to: a status (0 for none), and the error as it was stored.
    status: int
    error: str
    #: When the first of them is tried again, unless a worker has all of them in hand.
    next_at: datetime | None


def failing(server: str, health: ServerHealth | None, *, using: str | None = None) -> Failing | None:
    """What fails at ``server``; ``None`` if nothing does, or while it is paused, as then the pause says it all."""
    if health is not None and health.state != ServerHealth.State.OPEN:
        return None
    since = health.last_success_at if health is not None else None
    failed = Q(attempted_at__isnull=False) if since is None else Q(attempted_at__gt=since)
    pending = OutboundEvent.objects.using(using).filter(server=server, state=OutboundEvent.State.PENDING)
    found = pending.order_by("-due_at", "-id")[:LOOKED_AT].aggregate(
        count=Count("pk", filter=failed), next_at=Min("due_at", filter=failed & Q(claim__isnull=True))
    )
    if not found["count"]:
        return None
    last = pending.filter(failed).order_by("-due_at", "-id").values_list("last_status", "last_error").first()
    if last is None:  # settled in between
        return None
    return Failing(found["count"], last[0] or 0, last[1], found["next_at"])
