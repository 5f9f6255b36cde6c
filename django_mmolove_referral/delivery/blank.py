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

LOCKED_AT_ONCE = 1000
"""Referrals of one referrer that are locked with one statement."""

#: The fields of an answer that the contract names. Any other might repeat what was sent.
ANSWERED = ("ok", "referral_id", "state", "duplicate", "ignored")

_EVENT_FIELDS = ("state", "reason", "claim", "frozen", "settled_at", "body", "response", "last_error")


def forget(user: Any, *, using: str) -> int:
    """Close what is open for an account that is going, and blank what names it, as referred and as referrer.

    In the caller's transaction. Returns how many referrals it had on MMOLove's servers.
    """
    referrals = Referral.objects.using(using)
    rows = dict(referrals.filter(Q(user=user) | Q(referrer=user)).values_list("pk", "user_id"))
    own = [pk for pk, user_id in rows.items() if user_id == user.pk]
    if len(own) < len(rows):
        # In everybody's order, before the foreign key's own UPDATE locks them in another.
        pks = sorted(rows)
        for at in range(0, len(pks), LOCKED_AT_ONCE):
            referrals.lock(pks[at : at + LOCKED_AT_ONCE])
        referrals.filter(referrer=user).exclude(referrer_code="").update(referrer_code="")
    if own:
        blank(order.lock(own, using=using), using=using)
    return len(own)


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
