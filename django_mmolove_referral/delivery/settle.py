"""Writing down what came of claimed events: one short transaction a batch, referrals locked first.

Settling matches on the claim. Whoever lost its claim only appends its attempts, marked late; with one exception:
a late ``ignored`` overrides a ``duplicate``, accepted or yet to come, while the reward is not granted, as the
``duplicate`` hides that very answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from datetime import timezone as tz
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone

from .. import signals
from ..client import Attempt
from ..clock import DatabaseNow
from ..logs import over, trouble
from ..masking import masked
from ..models import DeliveryAttempt, OutboundEvent, Referral, Reward
from ..protocol import Kind, Outcome, Verdict
from . import order, schedule
from .blank import gist, named_fields
from .retry import retrying
from .send import Ruling, Sent
from .update import update

logger = logging.getLogger("mmolove_referral.delivery")

ANSWER_KEPT = 4096
"""Characters of an answer that are kept."""

State, Reason = OutboundEvent.State, OutboundEvent.Reason
_EVENT_FIELDS = (
    "state", "outcome", "reason", "due_at", "claim", "attempts", "frozen",
    "last_status", "last_error", "response", "attempted_at", "settled_at",
)  # fmt: skip
_REFERRAL_FIELDS = ("state", "referral_id", "registered_at", "qualified_at", "closed_at")


def settle(results: Sequence[Sent], *, using: str) -> None:
    """Settle a batch; if that fails, each by itself, so that one bad row never holds the others back.

    What cannot be settled is logged and keeps its claim: it is sent again, with the same body, after the lease.
    """
    try:
        retrying(lambda: _Batch(results, using).settle())
        over(logger, "settle", "Events can be settled again.")
    except Exception as error:  # noqa: BLE001  # a database that fails, a row that cannot be written
        if len(results) == 1:
            event, text = results[0].event, "Event %s could not be settled; it is sent again after its lease."
            trouble(
                logger, "settle", error, text, event.pk, server=event.server, kind=event.kind.value, event_id=event.pk
            )
            return
        for result in results:
            settle([result], using=using)


class _Batch:
    """One settling transaction."""

    def __init__(self, results: Sequence[Sent], using: str) -> None:
        self.results, self.using = results, using
        # One moment for all: a value that all rows share costs nothing more than one row's.
        self.now = timezone.now()
        self.events: dict[int, OutboundEvent] = {}
        self.referrals: dict[int, Referral] = {}
        self.attempts: list[DeliveryAttempt] = []
        self.applied: list[tuple[OutboundEvent, Attempt]] = []

    def settle(self) -> None:
        with transaction.atomic(using=self.using):
            locked = order.lock({result.event.referral_id for result in self.results}, using=self.using)
            for result in self.results:
                referral, events = locked[result.event.referral_id]
                event = events.get(result.event.kind.value)
                if event is None:  # pruned, while a worker that everybody took for dead had it in hand
                    continue
                late = event.claim != result.event.claim
                self._record(event, result, late=late, blanked=referral.blanked)
                if late:
                    self._override(result, event, referral, events)
                else:
                    self._apply(result, event, referral, events)
                self._touch(referral, event, *order.promote(referral, events))
            self._save()
        for event, last in self.applied:  # when it is true: a transaction may be tried again
            _log(event, last)

    def _touch(self, referral: Referral, *events: OutboundEvent) -> None:
        self.referrals[referral.pk] = referral
        self.events.update((event.pk, event) for event in events)

    def _save(self) -> None:
        update(OutboundEvent.objects.using(self.using), self.events.values(), _EVENT_FIELDS)
        update(Referral.objects.using(self.using), self.referrals.values(), _REFERRAL_FIELDS)
        DeliveryAttempt.objects.using(self.using).bulk_create(self.attempts)

    def _record(self, event: OutboundEvent, result: Sent, *, late: bool, blanked: bool) -> None:
        self.attempts += [
            DeliveryAttempt(
                event=event,
                started_at=_moment(attempt.started_at),
                duration_ms=round(attempt.duration * 1000),
                signed_at=attempt.signed_at,
                status=attempt.status,
                answer="" if blanked else _kept(attempt.body, result.event.token),
                error=gist(error, attempt.status) if blanked else error,
                late=late,
            )
            for attempt in result.attempts
            for error in [masked(attempt.answer.error, result.event.token)[:500]]
        ]

    def _apply(self, result: Sent, event: OutboundEvent, referral: Referral, events: order.Events) -> None:
        last = result.last
        self.applied.append((event, last))
        event.claim = None
        event.due_at = DatabaseNow()
        event.last_status = last.status
        event.last_error = masked(last.answer.error, result.event.token)[:500]
        event.attempted_at = _moment(last.started_at)
        event.frozen = event.frozen or any(map(_may_have_counted, result.attempts))
        if last.answer.fields:
            event.response = _masked_fields(last, result.event.token)
        if result.ruling is Ruling.ACCEPTED:
            self._accept(last, event, referral, events)
        elif result.ruling is Ruling.REFUSED:
            self._end(event, State.REJECTED, signals.event_rejected)
        elif result.ruling is Ruling.SERVER_FAULT:
            event.attempts = max(event.attempts - 1, 0)  # and due as soon as the server opens
        else:
            wait = schedule.after_fault(event.attempts)
            if wait is None:
                self._end(event, State.EXHAUSTED, signals.event_exhausted)
            else:
                event.due_at = DatabaseNow() + wait

    def _accept(self, last: Attempt, event: OutboundEvent, referral: Referral, events: order.Events) -> None:
        answer = last.answer
        outcome = answer.outcome
        if outcome is Outcome.DUPLICATE and event.outcome == Outcome.IGNORED.value:
            outcome = Outcome.IGNORED  # this is what it hides
        event.state, event.settled_at = State.ACCEPTED, self.now
        event.outcome = outcome.value if outcome else ""
        referral.referral_id = answer.referral_id[:255] or referral.referral_id
        if outcome is Outcome.IGNORED:
            self._conflict(event, referral, events)
        elif event.kind == Kind.REGISTERED.value and referral.registered_at is None:
            referral.registered_at = self.now
            if referral.state == Referral.State.CAPTURED:
                referral.state = Referral.State.REGISTERED
            self._news(signals.referral_registered, referral=referral, event=event, response=event.response)
        elif event.kind == Kind.QUALIFIED.value and answer.pays and not referral.ended:
            referral.state = Referral.State.QUALIFIED
            referral.qualified_at = referral.qualified_at or self.now
            Reward.objects.using(self.using).get_or_create(referral=referral, defaults={"due_at": DatabaseNow()})

    def _override(self, result: Sent, event: OutboundEvent, referral: Referral, events: order.Events) -> None:
        if result.last.answer.outcome is not Outcome.IGNORED:
            return
        if event.state != State.ACCEPTED:
            event.outcome = Outcome.IGNORED.value  # remembered for the duplicate that may yet come
        elif event.outcome == Outcome.DUPLICATE.value:
            granted = Reward.objects.using(self.using).filter(referral=referral, state=Reward.State.GRANTED)
            if not granted.exists():
                event.outcome = Outcome.IGNORED.value
                fields = _masked_fields(result.last, result.event.token)
                event.response = named_fields(fields) if referral.blanked else fields
                self._conflict(event, referral, events)

    def _conflict(self, event: OutboundEvent, referral: Referral, events: order.Events) -> None:
        self._touch(referral, *order.cancel_waiting(events, Reason.CONFLICT))
        Reward.objects.using(self.using).filter(referral=referral, state=Reward.State.DUE).update(
            state=Reward.State.CANCELLED
        )
        if not referral.ended:
            referral.state, referral.closed_at = Referral.State.CONFLICT, self.now
            self._news(signals.referral_conflict, referral=referral, event=event, response=event.response)

    def _end(self, event: OutboundEvent, state: OutboundEvent.State, signal: Signal) -> None:
        event.state, event.settled_at = state, self.now
        self._news(signal, event=event, attempt=self.attempts[-1])

    def _news(self, signal: Signal, **news: Any) -> None:
        sender = type(next(iter(news.values())))
        transaction.on_commit(partial(signal.send_robust, sender=sender, **news), using=self.using, robust=True)


def _log(event: OutboundEvent, last: Attempt) -> None:
    failed = event.state in (State.REJECTED, State.EXHAUSTED)
    level = logging.WARNING if failed else logging.INFO if event.state == State.ACCEPTED else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    extra = {
        "server": event.server,
        "event": event.server_event_id,
        "event_id": event.pk,
        "kind": event.kind,
        "state": str(event.state),
        "outcome": event.outcome,
        "status": last.status,
        "duration_ms": round(last.duration * 1000),
        "attempts": event.attempts,
    }
    told = event.last_error or event.outcome
    logger.log(level, "%s %s is %s: %s", event.kind, event.server_event_id, event.state, told, extra=extra)


def _may_have_counted(attempt: Attempt) -> bool:
    return attempt.answer.verdict in (Verdict.ACCEPTED, Verdict.FAULT)


def _kept(body: bytes, token: str) -> str:
    return masked(body.decode("utf-8", "replace"), token)[:ANSWER_KEPT].replace("\0", "�")


def _masked_fields(attempt: Attempt, token: str) -> dict[str, Any]:
    return {
        key: masked(value, token) if isinstance(value, str) else value for key, value in attempt.answer.fields.items()
    }


def _moment(seconds: float) -> datetime:
    moment = datetime.fromtimestamp(seconds, tz=tz.utc)
    return moment if settings.USE_TZ else timezone.make_naive(moment)
