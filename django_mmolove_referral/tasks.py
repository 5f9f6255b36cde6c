"""Celery tasks: thin shells over the drain. No arguments, no results; duplicates and losses do no harm."""

from __future__ import annotations

from celery import shared_task

from .delivery.dispatch import DELIVER_TASK, SWEEP_TASK
from .delivery.drain import Drain

BUDGET = 50.0
"""Seconds that one task drains at most: what is left over is the next one's."""


@shared_task(name=DELIVER_TASK, ignore_result=True)
def deliver() -> None:
    """Deliver what is due: the wake-up of a commit."""
    Drain().run(seconds=BUDGET)


@shared_task(name=SWEEP_TASK, ignore_result=True)
def sweep() -> None:
    """The same, for beat: picks up what no wake-up announced."""
    Drain().run(seconds=BUDGET)
