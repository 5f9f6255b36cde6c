"""Rows that tests start from. What a test is about goes through the portal or the verbs instead."""

from __future__ import annotations

from django_mmolove_referral.models import Referral
from django_mmolove_referral.testing import factories
from django_mmolove_referral.testing.factories import factory

nothing = factory.PostGeneration(lambda *args, **fields: None)


class UserFactory(factories.UserFactory):
    """With a password, to log in by."""

    password = "pw"


class ReferralFactory(factories.ReferralFactory):
    """The row by itself, whatever its state: what hangs on it is the tests' own."""

    user = factory.SubFactory(UserFactory)
    server = "default"
    events = nothing
    reward = nothing


class EventFactory(factories.OutboundEventFactory):
    referral = factory.SubFactory(ReferralFactory)


class RewardFactory(factories.RewardFactory):
    referral = factory.SubFactory(ReferralFactory, state=Referral.State.QUALIFIED)
