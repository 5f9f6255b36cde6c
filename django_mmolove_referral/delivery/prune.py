"""Deleting the log of what has long been over: events and attempts go, referrals and rewards stay.

Two things keep every promise afterwards. A referral of which anything is still open, or whose reward is due, keeps all
of its events: ``qualified`` needs to know what became of ``registered``, and granting shows the receiver the answer.
And the referral remembers which kinds were pruned, so that no verb writes one a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from ..clock import DatabaseNow
from ..models import DeliveryAttempt, OutboundEvent, Referral, Reward
from .retry import retrying

logger = logging.getLogger("mmolove_referral.delivery")

BATCH = 200
"""Events of one transaction."""

State = OutboundEvent.State
DONE = (State.ACCEPTED, State.CANCELLED)
FAILED = (State.REJECTED, State.EXHAUSTED)
OPEN = (State.PENDING, State.WAITING)


@dataclass
class Pruned:
    """What has been deleted so far."""

    events: int = 0
    attempts: int = 0


def prunable(days: int, failed_days: int | None = None, *, using: str) -> QuerySet[OutboundEvent]:
    """Accepted and cancelled events that ended over ``days`` ago, rejected and exhausted ones over ``failed_days``."""
    events = OutboundEvent.objects.using(using)
    old = Q(state__in=DONE, settled_at__lt=_ago(days))
    if failed_days is not None:
        old |= Q(state__in=FAILED, settled_at__lt=_ago(failed_days))
    still_open = events.filter(referral=OuterRef("referral"), state__in=OPEN)
    still_due = Reward.objects.using(using).filter(referral=OuterRef("referral"), state=Reward.State.DUE)
    return events.filter(old, ~Exists(still_open), ~Exists(still_due))


def prune(
    days: int,
    failed_days: int | None = None,
    *,
    using: str,
    watch: Callable[[Pruned], None] | None = None,
) -> Pruned:
    """Delete the :func:`prunable` events and their attempts, in short transactions; returns how many.

    Without ``failed_days`` what failed is kept. ``watch`` is called after each batch. Any number of these may run at
    once, and beside delivery. Raises ``ValueError`` for less than a day.
    """
    if min(days, days if failed_days is None else failed_days) < 1:
        raise ValueError("Events are pruned when they ended at least one day ago.")
    rows, done, last = prunable(days, failed_days, using=using), Pruned(), 0
    while batch := retrying(lambda last=last: _next(rows, last)):  # type: ignore[misc]  # bound at once
        attempts, events = retrying(lambda batch=batch: _delete(rows, batch, using))  # type: ignore[misc]
        done.attempts += attempts
        done.events += events
        last = max(batch)
        if watch:
            watch(done)
    extra = {"events": done.events, "attempts": done.attempts}
    logger.info("%d events and %d attempts were pruned.", done.events, done.attempts, extra=extra)
    return done


def _next(rows: QuerySet[OutboundEvent], last: int) -> dict[int, int]:
    """The next events by primary key, each with its referral's: every row is looked at once, whatever is skipped."""
    return dict(rows.filter(pk__gt=last).order_by("pk").values_list("pk", "referral_id")[:BATCH])


def _delete(rows: QuerySet[OutboundEvent], batch: dict[int, int], using: str) -> tuple[int, int]:
    with transaction.atomic(using=using):
        referrals = Referral.objects.using(using).lock(batch.values())
        # Again, now that nobody else can change them: an event may have been sent once more since.
        pruned = list(rows.filter(pk__in=list(batch)).values_list("pk", "kind", "referral_id"))
        for _pk, kind, referral in pruned:
            referrals[referral].pruned = " ".join(sorted({*referrals[referral].pruned.split(), kind}))
        noted: dict[str, set[int]] = {}
        for _pk, _kind, referral in pruned:
            noted.setdefault(referrals[referral].pruned, set()).add(referral)
        for kinds, those in noted.items():
            Referral.objects.using(using).filter(pk__in=those).update(pruned=kinds)
        pks = [row[0] for row in pruned]
        attempts, _by_model = DeliveryAttempt.objects.using(using).filter(event__in=pks).delete()
        OutboundEvent.objects.using(using).filter(pk__in=pks).delete()
    return attempts, len(pks)


def _ago(days: int) -> object:
    return DatabaseNow() - timedelta(days=days)
