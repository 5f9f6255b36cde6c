"""What happened to an event, step by step: written, each attempt and its answer, how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from .. import advice
from ..models import DeliveryAttempt, OutboundEvent
from .base import TONES

SHOWN = 100
"""Attempts at most, the newest."""


@dataclass(frozen=True)
class Step:
    when: str
    title: str
    words: str
    """What it means."""
    tone: str = "over"
    duration: str = ""
    answer: str = ""
    late: bool = False


def timeline(event: OutboundEvent) -> list[Step]:
    """The steps, the first one first. What has not happened yet is the last."""
    attempts = list(event.delivery_attempts.order_by("-pk")[: SHOWN + 1])
    words = _("The portal wrote it down, to be sent.")
    if len(attempts) > SHOWN:
        words += " " + _("Of its attempts, these are the last %d.") % SHOWN
    steps = [Step(advice.exactly(event.created_at), _("written"), words)]
    steps += [_attempt(event, attempt) for attempt in reversed(attempts[:SHOWN])]
    return [*steps, _end(event)]


def _attempt(event: OutboundEvent, attempt: DeliveryAttempt) -> Step:
    told = advice.of_attempt(event, attempt)
    good = attempt.status == 200 and not attempt.error
    return Step(
        when=advice.exactly(attempt.started_at),
        title=_("HTTP %d") % attempt.status if attempt.status else _("no answer"),
        words=told,
        tone="good" if good else "bad",
        duration=_("%d ms") % attempt.duration_ms,
        answer=attempt.answer,
        late=attempt.late,
    )


def _end(event: OutboundEvent) -> Step:
    words = {
        event.State.WAITING: _("It waits for the event that has to be accepted before it."),
        event.State.PENDING: _("It is on its way."),
    }.get(event.State(event.state), "")
    if event.state == event.State.PENDING and event.claim is None:
        words = _("Its next try is due: %s") % advice.exactly(event.due_at)
    if event.state == event.State.CANCELLED:
        words = event.get_reason_display()
    if event.state == event.State.ACCEPTED:
        words = event.get_outcome_display()
    when = _("now") if event.open else advice.exactly(event.settled_at)
    return Step(when, str(event.get_state_display()), str(words), TONES.get(event.state, "over"))
