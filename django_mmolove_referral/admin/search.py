"""Exact searches, resolved to keys by one indexed look-up each: joined by OR the database would read whole tables."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from ..models import OutboundEvent, Referral

LIMIT = 1000
"""Friends of one referrer that are found: the newest."""


def referrals(term: str, *, using: str, friends: bool = True) -> set[int]:
    """The referrals of the account called ``term``, and those that MMOLove calls so, or one of whose events is.

    With ``friends`` also those that the account brought.
    """
    rows = Referral.objects.using(using).order_by("-pk").values_list("pk", flat=True)
    events = OutboundEvent.objects.using(using).filter(server_event_id=term)
    found: set[int] = set(rows.filter(referral_id=term)[:LIMIT])
    found.update(events.values_list("referral_id", flat=True)[:LIMIT])
    account = _account(term)
    if account is not None:
        found.update(rows.filter(user=account))
        if friends:
            found.update(rows.filter(referrer=account)[:LIMIT])
    return found


def _account(term: str) -> Any:
    model = get_user_model()
    try:
        return model._default_manager.filter(**{model.USERNAME_FIELD: term}).values_list("pk", flat=True).first()
    except (ValueError, TypeError, ValidationError):  # where the login field is no text
        return None
