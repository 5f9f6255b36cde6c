"""Which event follows which: ``qualified`` after ``registered`` was accepted, ``reversed`` after what was sent.

Works on one locked referral and its events in memory; the caller saves what changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connections
from django.utils import timezone

from ..clock import DatabaseNow
from ..models import OutboundEvent, Referral
from ..protocol import Kind

State, Reason = OutboundEvent.State, OutboundEvent.Reason
Events = dict[str, OutboundEvent]
"""A referral's events by kind."""


def lock(pks: Iterable[int], *, using: str) -> dict[int, tuple[Referral, Events]]:
    """Lock these referrals and their events until the transaction ends; whoever changes any of them starts here."""
    locked: dict[int, tuple[Referral, Events]] = {
        pk: (referral, {}) for pk, referral in Referral.objects.using(using).lock(pks).items()
    }
    rows = OutboundEvent.objects.using(using).filter(referral__in=list(locked)).order_by("pk")
    if connections[using].features.has_select_for_update:
        rows = rows.select_for_update()  # the referral's lock does not keep a worker from claiming
    for event in rows:
        locked[event.referral_id][1][event.kind] = event
    return locked


def lock_one(pk: int, *, using: str) -> tuple[Referral, Events]:
    return lock([pk], using=using)[pk]


def may_leave(kind: str, referral: Referral, events: Events) -> bool:
    """Whether an event of ``kind`` may be sent now."""
    if kind == Kind.REGISTERED.value:
        return True
    if referral.registered_at is None:
        return False
    qualified = events.get(Kind.QUALIFIED.value)
    return kind != Kind.REVERSED.value or qualified is None or not qualified.open


def promote(referral: Referral, events: Events) -> list[OutboundEvent]:
    """Set waiting events free whose turn has come."""
    freed = [
        event for event in events.values() if event.state == State.WAITING and may_leave(event.kind, referral, events)
    ]
    for event in freed:
        make_due(event)
    return freed


def make_due(event: OutboundEvent) -> None:
    event.state, event.reason, event.settled_at = State.PENDING, "", None
    event.due_at = DatabaseNow()  # an expression, until it is saved


def cancel(event: OutboundEvent, reason: OutboundEvent.Reason) -> None:
    event.frozen = event.sent  # a claim that nobody settled may have reached MMOLove
    event.state, event.reason, event.claim = State.CANCELLED, reason, None
    event.settled_at = timezone.now()


def cancel_waiting(events: Events, reason: OutboundEvent.Reason) -> list[OutboundEvent]:
    waiting = [event for event in events.values() if event.state == State.WAITING]
    for event in waiting:
        cancel(event, reason)
    return waiting
