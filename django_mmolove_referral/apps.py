"""The app's entry into Django's registry."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MMOLoveReferralConfig(AppConfig):
    name = "django_mmolove_referral"
    label = "mmolove_referral"
    verbose_name = _("MMOLove referrals")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, receivers
        from .delivery import dispatch

        checks.register()
        receivers.connect()
        dispatch.connect()
