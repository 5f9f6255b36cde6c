"""The types that a portal counts on. Checked, never run."""

from django.contrib.auth.models import User
from django.http import HttpRequest
from typing_extensions import assert_type

from django_mmolove_referral import (
    amark_qualified,
    attach_referral,
    mark_qualified,
    mark_registered,
    mark_reversed,
    share_link,
)
from django_mmolove_referral.client import ReferralClient, SendResult
from django_mmolove_referral.models import OutboundEvent, Referral
from django_mmolove_referral.sandbox import Sandbox
from django_mmolove_referral.sandbox.server import SandboxServer


def verbs(user: User, request: HttpRequest, token: str) -> None:
    assert_type(attach_referral(user, token, server="default", code="alice"), Referral)
    assert_type(mark_registered(user), OutboundEvent | None)
    assert_type(mark_qualified(user, server="default"), OutboundEvent | None)
    assert_type(mark_reversed(user), OutboundEvent | None)
    assert_type(share_link(user, request), str)


async def later(user: User) -> None:
    assert_type(await amark_qualified(user, server="default"), OutboundEvent | None)


def script(token: str) -> None:
    with ReferralClient("srv_realm", "secret") as mmolove:
        assert_type(mmolove.qualified(token, server_event_id="qual-7", test=True), SendResult)


def local() -> None:
    with SandboxServer(Sandbox({"srv_realm": "secret"}, register_url="http://127.0.0.1/")) as server:
        assert_type(server.endpoint, str)
