"""Celery tasks: thin shells over delivery. No results; duplicates and losses do no harm."""

from __future__ import annotations

from celery import shared_task
from django.db import router

from .delivery.dispatch import DELIVER_TASK, PRUNE_TASK, SWEEP_TASK
from .delivery.drain import Drain
from .delivery.life import beat
from .delivery.prune import prune as prune_events
from .models import Heartbeat, OutboundEvent

BUDGET = 50.0
"""Seconds that one task drains at most: what is left over is the next one's."""


@shared_task(name=DELIVER_TASK, ignore_result=True)
def deliver() -> None:
    """Deliver what is due: the wake-up of a commit."""
    _drain(Heartbeat.Kind.WORKER)


@shared_task(name=SWEEP_TASK, ignore_result=True)
def sweep() -> None:
    """The same, for beat: picks up what no wake-up announced."""
    _drain(Heartbeat.Kind.BEAT)


@shared_task(name=PRUNE_TASK, ignore_result=True)
def prune(days: int, failed_days: int | None = None) -> None:
    """Delete the events and attempts of what ended that many days ago, as ``mmolove_prune`` does."""
    prune_events(days, failed_days, using=router.db_for_write(OutboundEvent))


def _drain(kind: Heartbeat.Kind) -> None:
    drain = Drain()
    drain.run(seconds=BUDGET)
    beat(kind, using=drain.using)
