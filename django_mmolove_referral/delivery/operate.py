"""What an operator may do to an event. Nothing here touches an event that a worker has in hand."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils import timezone

from ..clock import DatabaseNow
from ..models import OutboundEvent, Referral, Reward
from . import dispatch, order

State, Reason = OutboundEvent.State, OutboundEvent.Reason


def redeliver(event: OutboundEvent, *, force: bool = False) -> bool:
    """Send a rejected, exhausted or operator-cancelled event again, its schedule from the start.

    ``force`` also sends an accepted one again; that never makes a second reward. Returns whether it will be sent.
    """
    using = _database(event)
    with transaction.atomic(using=using):
        referral, events = order.lock_one(event.referral_id, using=using)
        row = events.get(event.kind)  # which may have been pruned since it was read
        if row is None or not _may_redeliver(row, referral, force=force):
            return False
        row.attempts, row.claim = 0, None
        order.make_due(row)
        if not order.may_leave(row.kind, referral, events):
            row.state = State.WAITING
        row.save(using=using)
        transaction.on_commit(dispatch.wake, using=using, robust=True)
    return True


def hurry(event: OutboundEvent) -> bool:
    """Send a pending event now that would be tried again later. Returns whether it will be.

    The attempt counts: its schedule goes on where it was.
    """
    using = _database(event)
    # One statement: nothing else of the event changes, and the conditions keep off what a worker has in hand.
    later = OutboundEvent.objects.using(using).filter(
        pk=event.pk, state=State.PENDING, claim__isnull=True, due_at__gt=DatabaseNow()
    )
    if not later.update(due_at=DatabaseNow()):
        return False
    transaction.on_commit(dispatch.wake, using=using, robust=True)
    return True


def cancel(event: OutboundEvent) -> bool:
    """Take an event that no worker has in hand out of delivery, or give up one that failed. Returns whether it was."""
    using = _database(event)
    with transaction.atomic(using=using):
        referral, events = order.lock_one(event.referral_id, using=using)
        row = events.get(event.kind)
        if row is None or not _may_cancel(row) or _in_hand(row, using):
            return False
        order.cancel(row, Reason.OPERATOR)
        row.save(using=using)
        for freed in order.promote(referral, events):
            freed.save(using=using)
    return True


def retry_reward(reward: Reward) -> bool:
    """Have a due reward tried at once. Returns whether it is due."""
    using = reward._state.db or DEFAULT_DB_ALIAS
    due = Reward.objects.using(using).filter(pk=reward.pk, state=Reward.State.DUE)
    if not due.update(due_at=DatabaseNow()):
        return False
    transaction.on_commit(dispatch.wake, using=using, robust=True)
    return True


def may_redeliver(event: OutboundEvent) -> bool:
    """Whether :func:`redeliver` or :func:`hurry` would do something: for showing a button, not for deciding."""
    if event.state == State.PENDING:
        return event.claim is None and event.attempts > 0 and event.due_at > timezone.now()
    return _may_redeliver(event, event.referral, force=False)


def may_cancel(event: OutboundEvent) -> bool:
    """The same for :func:`cancel`."""
    return _may_cancel(event) and not _in_hand(event, _database(event))


def _may_cancel(row: OutboundEvent) -> bool:
    return row.open or row.state in (State.REJECTED, State.EXHAUSTED)


def _may_redeliver(row: OutboundEvent, referral: Referral, *, force: bool) -> bool:
    if not row.body:  # blanked: there is nothing that could be sent
        return False
    if row.kind != "reversed" and referral.ended and not (force and row.state == State.ACCEPTED):
        return False
    if row.state == State.CANCELLED:
        return row.reason == Reason.OPERATOR
    return row.state in (State.REJECTED, State.EXHAUSTED) or (force and row.state == State.ACCEPTED)


def _in_hand(row: OutboundEvent, using: str) -> bool:
    """Whether the row's claim is alive, by the database's clock."""
    if row.claim is None:
        return False
    return OutboundEvent.objects.using(using).filter(pk=row.pk, due_at__gt=DatabaseNow()).exists()


def _database(event: OutboundEvent) -> str:
    return event._state.db or DEFAULT_DB_ALIAS
