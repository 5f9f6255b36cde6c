from django.db.models import F
from django.dispatch import receiver

from django_mmolove_referral.signals import referral_qualified

from .models import Purse


@receiver(referral_qualified)
def give_gold(referral, **kwargs):
    if referral.referrer is not None:
        Purse.objects.get_or_create(owner=referral.referrer)
        Purse.objects.filter(owner=referral.referrer).update(gold=F("gold") + 500)
