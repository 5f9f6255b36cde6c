"""The portal's answer to a referral: gold."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from django_mmolove_referral.models import Referral
from django_mmolove_referral.signals import referral_qualified

from .models import Character

GOLD = 500


@receiver(referral_qualified)
def thank_the_referrer(sender: type[Referral], referral: Referral, **kwargs: Any) -> None:
    """Sent once per referral, inside the transaction that marks the reward as granted.

    So the gold and the mark are written together or not at all; if this raises, the reward stays due and is tried
    again. Nothing that cannot be rolled back (mail, another server) belongs here.
    """
    if referral.referrer is None:
        return  # the friend came by a link that did not lead through /join/, or the referrer's account is gone
    Character.of(referral.referrer).earn(GOLD, friend=referral.user)
