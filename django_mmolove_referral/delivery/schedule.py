"""When: the retry schedule with its jitter, and how long until something is due."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, Min

from .. import signals
from ..clock import DatabaseNow
from ..conf import conf
from ..models import OutboundEvent, Referral, Reward, ServerHealth
from .retry import retried

JITTER = 0.2


def after_fault(attempts: int) -> timedelta | None:
    """The wait after the ``attempts``-th failed attempt, ±20 %; ``None`` at the end of the schedule."""
    schedule = conf.retry_schedule
    return jittered(schedule[attempts - 1]) if attempts <= len(schedule) else None


def after_reward_failure(attempts: int) -> timedelta:
    """The same schedule for rewards, except that its last step repeats: a reward is never given up."""
    schedule = conf.retry_schedule
    return jittered(schedule[min(attempts, len(schedule)) - 1])


def jittered(seconds: float) -> timedelta:
    return timedelta(seconds=seconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  # spread, not secrecy


def ahead(seconds: float) -> Any:
    """That many seconds from now, by the database's clock."""
    return DatabaseNow() + timedelta(seconds=seconds)


@retried
def seconds_until_due(using: str) -> float | None:
    """Seconds until the earliest event, probe or reward is due (0 if one is); ``None`` if nothing ever will be.

    A reward counts if this process could grant it.
    """
    closed = ServerHealth.objects.using(using).exclude(state=ServerHealth.State.OPEN)
    held = list(closed.filter(server__in=list(conf.servers)).values_list("server", flat=True))
    pending = OutboundEvent.objects.using(using).filter(
        server__in=list(conf.servers), state=OutboundEvent.State.PENDING
    )
    waits = [_left(pending.filter(server__in=[alias for alias in conf.servers if alias not in held]), "due_at")]
    if signals.referral_qualified.has_listeners(Referral):  # else nothing comes of being there in time
        waits.append(_left(Reward.objects.using(using).filter(state=Reward.State.DUE), "due_at"))
    if held and pending.filter(server__in=held).exists():
        waits.append(_left(ServerHealth.objects.using(using).filter(server__in=held), "probe_at"))
    known = [wait for wait in waits if wait is not None]
    return max(min(known), 0.0) if known else None


def _left(rows: Any, field: str) -> float | None:
    """Measured by the database, as this process's clock may differ from the one that set the time."""
    left = rows.aggregate(left=ExpressionWrapper(Min(field) - DatabaseNow(), output_field=DurationField()))["left"]
    return None if left is None else left.total_seconds()
