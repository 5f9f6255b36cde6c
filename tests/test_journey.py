"""The main job over real sockets: visit, sign-up, outbox, delivery, milestone, reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from django_mmolove_referral import mark_qualified, share_link
from django_mmolove_referral.models import Referral
from django_mmolove_referral.sandbox.core import Sandbox

from .conftest import Granted, Table
from .portal import create


@pytest.mark.django_db(transaction=True)
def test_a_referred_player_registers_qualifies_and_the_referrer_is_rewarded_once(
    client: Client, sandbox: Sandbox, drain: Callable[..., Any], granted: Granted, table: Table
) -> None:
    alice = create("alice@example.com")
    join = client.get(share_link(alice))
    back = sandbox.click("srv_test", join["Location"].split("ref=")[1])
    client.get(back)
    client.post("/register/", {"name": "bob@example.com", "login": "1"})

    referral = table.referral
    assert (referral.state, referral.referrer) == (Referral.State.CAPTURED, alice)
    assert table.states() == {"registered": "pending"}

    assert client.post("/milestone/").content == b"waiting"
    assert drain().accepted == 2
    referral = table.referral
    assert referral.user is not None
    assert referral.state == Referral.State.QUALIFIED
    assert referral.referral_id
    assert table.states() == {"registered": "accepted", "qualified": "accepted"}
    assert granted == [referral]

    bob = get_user_model()._default_manager.get(pk=referral.user.pk)
    again = mark_qualified(bob)
    assert again is not None
    assert again.state == "accepted"
    drain()
    assert len(granted) == 1
    assert table.reward.state == "granted"
