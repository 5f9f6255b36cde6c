"""Rows that tests start from. What a test is about goes through the portal or the verbs instead."""

from __future__ import annotations

import time
from typing import Any

import factory as untyped
from django.conf import settings
from django.utils import timezone
from factory.django import DjangoModelFactory

from django_mmolove_referral import protocol
from django_mmolove_referral.lifecycle import PREFIXES
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.protocol import Kind

factory: Any = untyped


class UserFactory(DjangoModelFactory[Any]):
    """An account of whichever user model this process runs with, by its login ``name``."""

    class Meta:
        model = settings.AUTH_USER_MODEL

    name = factory.Sequence(lambda n: f"player{n}@example.com")
    password = "pw"

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **fields: Any) -> Any:
        fields[model_class.USERNAME_FIELD] = fields.pop("name")
        return model_class._default_manager.create_user(**fields)


class ReferralFactory(DjangoModelFactory[Referral]):
    class Meta:
        model = Referral

    user = factory.SubFactory(UserFactory)
    server = "default"
    token = factory.Sequence(lambda n: f"token-{n}")


def _body(event: Any) -> bytes:
    return protocol.encode(
        Kind(event.kind),
        token=event.referral.token,
        server_id="srv_test",
        server_event_id=event.server_event_id,
        ts=int(time.time()),
        referee_identity=str(event.referral.user_id),
    )


class EventFactory(DjangoModelFactory[OutboundEvent]):
    """A ``registered``, due now, with the body that the verb would have written."""

    class Meta:
        model = OutboundEvent

    referral = factory.SubFactory(ReferralFactory)
    server = factory.SelfAttribute("referral.server")
    kind = Kind.REGISTERED.value
    server_event_id = factory.LazyAttribute(lambda event: f"{PREFIXES[Kind(event.kind)]}-{event.referral.user_id}")
    due_at = factory.LazyFunction(timezone.now)
    body = factory.LazyAttribute(_body)


class RewardFactory(DjangoModelFactory[Reward]):
    class Meta:
        model = Reward

    referral = factory.SubFactory(ReferralFactory, state=Referral.State.QUALIFIED)
    due_at = factory.LazyFunction(timezone.now)
