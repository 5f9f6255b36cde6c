"""Blanking a referral: what names its account, or could be used in its name, goes.

What stays is a record that names accounts by their keys alone: who referred whom, how far it got and when, and what
MMOLove answered, in the contract's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Case, CharField, F, Q, Value, When
from django.db.models.functions import Cast, Concat

from ..models import DeliveryAttempt, OutboundEvent, Referral, Reward
from . import order
from .update import update

#: The fields of an answer that the contract names. Any other might repeat what was sent.
ANSWERED = ("ok", "referral_id", "state", "duplicate", "ignored")

_EVENT_FIELDS = ("state", "reason", "claim", "frozen", "settled_at", "body", "response", "last_error")


def blank(locked: Mapping[int, tuple[Referral, order.Events]], *, using: str) -> None:
    """Cancel what is open of these locked referrals, and blank their tokens and all that was sent and answered."""
    events = [event for _, own in locked.values() for event in own.values()]
    for event in events:
        if event.open:
            order.cancel(event, OutboundEvent.Reason.DELETED)
        event.body = b""
        event.response = named_fields(event.response)
        event.last_error = gist(event.last_error, event.last_status or 0)
    update(OutboundEvent.objects.using(using), events, _EVENT_FIELDS)
    attempts = DeliveryAttempt.objects.using(using).filter(event__in=[event.pk for event in events])
    attempts.exclude(answer="", error="").update(answer="", error=_GIST)
    for reward in Reward.objects.using(using).filter(referral__in=list(locked)).exclude(last_error=""):
        # In a receiver's own words, of which the first is the exception's type.
        reward.last_error = reward.last_error.partition(":")[0]
        reward.save(using=using, update_fields=["last_error"])
    Referral.objects.using(using).filter(pk__in=list(locked)).update(token="")


def named_fields(response: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a stored answer."""
    return {key: response[key] for key in ANSWERED if key in response}


def gist(error: str, status: int) -> str:
    """What is kept of an error: MMOLove's words go; what failed on the way to it is in words of ours."""
    return f"HTTP {status}" if error and status else error


_GIST = Case(
    When(Q(error="") | Q(status=0), then=F("error")),
    default=Concat(Value("HTTP "), Cast("status", CharField(max_length=5))),
)
