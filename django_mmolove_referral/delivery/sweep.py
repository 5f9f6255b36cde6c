"""What no single event's settling does: free strays, end what outlived its token, blank what has long been over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..clock import DatabaseNow
from ..conf import conf
from ..models import OutboundEvent, Referral
from . import order, retention
from .retry import retrying

BATCH = 200


def sweep(*, using: str) -> None:
    """Look once at the waiting events for which the time alone, or a crash, has changed something."""
    waiting = OutboundEvent.objects.using(using).filter(
        server__in=list(conf.servers), state=OutboundEvent.State.WAITING
    )
    oldest = DatabaseNow() - timedelta(seconds=conf.token_max_age)
    _treat(waiting.filter(referral__registered_at__isnull=False), order.promote, using)
    # What waits although "registered" was accepted is "reversed", and "qualified" lets it go however old the token is.
    unaccepted = waiting.filter(referral__registered_at__isnull=True)
    _treat(unaccepted.filter(referral__created_at__lt=oldest), _expire, using)
    retention.look(using=using)


def _expire(referral: Referral, events: order.Events) -> list[OutboundEvent]:
    if referral.registered_at is not None:  # accepted since we looked
        return []
    if referral.state == Referral.State.CAPTURED:
        referral.state, referral.closed_at = Referral.State.EXPIRED, timezone.now()
        referral.save(update_fields=["state", "closed_at"])
    return order.cancel_waiting(events, OutboundEvent.Reason.EXPIRED)


def _treat(
    strays: QuerySet[OutboundEvent],
    treatment: Callable[[Referral, order.Events], list[OutboundEvent]],
    using: str,
) -> None:
    for pk in retrying(lambda: set(strays.all().values_list("referral_id", flat=True)[:BATCH])):
        retrying(lambda pk=pk: _treat_one(pk, treatment, using))  # type: ignore[misc]  # bound at once


def _treat_one(pk: int, treatment: Callable[[Referral, order.Events], list[OutboundEvent]], using: str) -> None:
    with transaction.atomic(using=using):
        referral, events = order.lock_one(pk, using=using)
        for event in treatment(referral, events):
            event.save(using=using)
