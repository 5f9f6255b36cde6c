"""The shipped factories: rows as delivery would have left them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_mmolove_referral import attach_referral, mark_qualified, mark_reversed
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.testing import MMOLove
from django_mmolove_referral.testing.factories import OutboundEventFactory, ReferralFactory, RewardFactory, UserFactory
from tests.conftest import Granted
from tests.portal import create

pytestmark = pytest.mark.django_db


def row(instance: Any, *leaving_out: str) -> dict[str, Any]:
    """What is stored, but for what differs between any two referrals."""
    instance.refresh_from_db()
    own = {"id", "user_id", "referral_id", "token", "server_event_id", "body", *leaving_out}
    return {
        field.attname: value is not None if field.attname.endswith("_at") else value
        for field in instance._meta.concrete_fields
        if field.attname not in own
        for value in [getattr(instance, field.attname)]
    }


def body_of(event: OutboundEvent) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bytes(event.body))
    return body


def rows(referral: Referral) -> list[dict[str, Any]]:
    events = [
        {**row(event), "response": {**event.response, "referral_id": bool(event.response.get("referral_id"))}}
        for event in referral.events.order_by("pk")
    ]
    rewards = [row(reward) for reward in Reward.objects.filter(referral=referral)]
    return [row(referral), *events, *rewards]


@pytest.mark.parametrize("state", ["captured", "registered", "qualified", "rewarded", "conflict", "reversed"])
def test_they_are_what_delivery_leaves(mmolove: MMOLove, request: pytest.FixtureRequest, state: str) -> None:
    bob = create("bob@example.com")
    attach_referral(bob, mmolove.mint())
    if state == "conflict":
        mmolove.already_referred(bob)
    if state == "rewarded":
        request.getfixturevalue("granted")
    if state != "captured":
        mmolove.deliver()
    if state in ("qualified", "rewarded"):
        mark_qualified(bob)
        mmolove.deliver()
    if state == "reversed":
        mark_reversed(bob)
        mmolove.deliver()
    Reward.objects.filter(state="due").update(last_error="")  # of the missing receiver

    made, real = (
        ReferralFactory.create(**({} if state == "captured" else {state: True})),
        Referral.objects.get(user=bob),
    )
    assert rows(made) == rows(real)
    for ours, theirs in zip(made.events.order_by("pk"), real.events.order_by("pk"), strict=True):
        body = body_of(ours)
        assert list(body) == list(body_of(theirs))
        key = f"{body['server_event_id'].split('-')[0]}-{made.user_id}"
        assert (body["server_id"], body["token"], body["server_event_id"]) == ("test-default", made.token, key)
        assert ours.server_event_id == key
        assert body.get("referee_identity", str(made.user_id)) == str(made.user_id)


def test_a_referral_that_expired_never_sent_anything() -> None:
    referral = ReferralFactory.create(expired=True)
    assert [(event.kind, event.state, event.reason) for event in referral.events.all()] == [
        ("qualified", "cancelled", "expired")
    ]
    assert referral.closed_at


def test_what_hangs_on_it_can_be_left_out() -> None:
    referral = ReferralFactory.create(qualified=True, events=False)
    assert not referral.events.exists()
    assert referral.reward.state == "due"
    assert not Reward.objects.filter(referral=ReferralFactory.create(qualified=True, reward=False)).exists()


def test_the_account_and_the_referrer_can_be_the_portals_own() -> None:
    alice, bob = create("alice@example.com"), create("bob@example.com")
    referral = ReferralFactory.create(user=bob, referrer=alice, rewarded=True)
    assert (referral.user, referral.referrer, get_user_model()._default_manager.count()) == (bob, alice, 2)


def test_an_account_is_made_by_the_user_models_own_manager() -> None:
    user = UserFactory.create()
    assert user.get_username().startswith("player")
    assert not user.has_usable_password()


def test_a_user_model_that_wants_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_user(**fields: Any) -> None:
        raise TypeError("create_user() missing 1 required argument: 'birthday'")

    model = get_user_model()
    monkeypatch.setattr(type(model._default_manager), "create_user", lambda self, **fields: create_user(**fields))
    said = (
        rf"'birthday'\. Accounts of this portal need more than a {model.USERNAME_FIELD}: "
        r"pass one of your own, ReferralFactory\(user=…\)\.$"
    )
    with pytest.raises(TypeError, match=said):
        ReferralFactory.create()


def test_nothing_is_stored_by_building() -> None:
    referral = ReferralFactory.build(rewarded=True, user=None)
    assert referral.state == "qualified"
    assert not Referral.objects.exists()


def test_the_server_is_the_portals_first(settings: Any) -> None:
    settings.MMOLOVE_REFERRAL = {"SERVERS": {"eu": {"SERVER_ID": "srv_eu", "SECRET": "x"}}}
    referral = ReferralFactory.create()
    assert referral.server == referral.events.get().server == "eu"
    assert body_of(referral.events.get())["server_id"] == "srv_eu"


@pytest.mark.parametrize(
    ("how", "state", "status", "attempts"),
    [
        ({}, "pending", None, 0),
        ({"accepted": True}, "accepted", 200, 1),
        ({"rejected": True}, "rejected", 422, 1),
        ({"exhausted": True}, "exhausted", 503, 11),
        ({"cancelled": True}, "cancelled", None, 0),
    ],
)
def test_an_event_by_itself(how: dict[str, bool], state: str, status: int | None, attempts: int) -> None:
    event = OutboundEventFactory.create(kind="qualified", **how)
    assert (event.state, event.last_status, event.attempts) == (state, status, attempts)
    assert (event.attempted_at is not None, event.settled_at is not None) == (attempts > 0, state != "pending")
    assert OutboundEvent.objects.get() == event


def test_a_reward_by_itself_can_be_granted(mmolove: MMOLove, granted: Granted) -> None:
    reward = RewardFactory.create()
    assert reward.referral.state == "qualified"
    assert mmolove.deliver().granted == 1
    assert granted == [reward.referral]
    assert RewardFactory.create(state="granted").granted_at


def test_without_factory_boy_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['factory'] = None; import django; django.setup();"
        "import django_mmolove_referral.testing.factories"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    said = "ImportError: django_mmolove_referral.testing.factories needs factory-boy: python -m pip install factory-boy"
    assert done.stderr.splitlines()[-1] == said
