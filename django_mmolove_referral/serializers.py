"""The token as a field of a sign-up serializer. Needs Django REST framework, which this app does not bring."""

from __future__ import annotations

from typing import Any, NoReturn

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from .capture import offer_token
from .models import TOKEN_LENGTH


class ReferralTokenField(serializers.CharField):
    """A field whose token goes to the account that the serializer creates.

    It is optional and valid whatever is sent, and never among the validated data: neither ``create()`` nor a
    ``User(**attrs)`` sees it. Its name is up to the serializer.
    """

    def __init__(self, **kwargs: Any) -> None:
        defaults = {
            "required": False,
            "allow_blank": True,
            "allow_null": True,
            "max_length": TOKEN_LENGTH,
            "help_text": _("The referral token from MMOLove's link, if the player came by one (mmref)."),
        }
        super().__init__(**{**defaults, **kwargs, "write_only": True})

    def run_validation(self, data: Any = serializers.empty) -> NoReturn:
        offer_token(data)
        raise serializers.SkipField
