"""The portal's reward."""

from typing import Any

from django.dispatch import receiver

from django_mmolove_referral.models import Referral
from django_mmolove_referral.signals import referral_qualified


@receiver(referral_qualified)
def give_gold(referral: Referral, **kwargs: Any) -> None:
    if referral.referrer is not None:
        referral.referrer.get_username()
