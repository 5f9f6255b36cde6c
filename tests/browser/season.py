"""A month of a portal, in the tables: written by ``manage.py shell`` of the portal that shows it."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import Permission, User
from django.utils import timezone

from django_mmolove_referral.models import DeliveryAttempt, Heartbeat, OutboundEvent, Referral, Reward, ServerHealth
from tests.browser.portal import PASSWORD

PLAYERS = ("mirelle", "oskar", "tamsin", "nadia", "yun", "ida")
OUTAGE = (11, 12)
"""How many days ago MMOLove was down."""


def fill() -> None:
    """A month in which more and more came, two days of an outage, and one event that was refused."""
    dice = random.Random(7)
    referrers = [User.objects.create_user(name) for name in PLAYERS]
    today = timezone.now().replace(hour=0, minute=0, second=1)
    for days in reversed(range(30)):
        for number in range(max(1, round(dice.gauss(6 + (30 - days) / 3, 3)))):
            friend = User.objects.create(username=f"friend-{days}-{number}")
            referrer = dice.choice([*referrers, *referrers[:2], None])
            qualified = days > 0 and dice.random() < 0.5
            _journey(friend, referrer, today - timedelta(days=days), dice, qualified=qualified, down=days in OUTAGE)
    refused = User.objects.create(username="friend-of-nobody")
    _journey(refused, None, today - timedelta(days=4), dice, qualified=False, down=False, refused=True)
    ServerHealth.objects.create(server="default", since=today, last_success_at=today)
    Heartbeat.objects.create(kind="once", host="portal", seen_at=timezone.now())  # from cron, which may take its time
    clerk = User.objects.create_user("clerk", password=PASSWORD, is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_referral"))


def strain() -> None:
    """Keys of a portal whose primary keys are UUIDs, a first fault, and a receiver that fails at length."""
    now = timezone.now()
    soon = now + timedelta(hours=1)
    for event in OutboundEvent.objects.order_by("-pk")[1:9:3]:
        key = f"reg-{UUID(int=event.pk + 2**120)}"
        OutboundEvent.objects.filter(pk=event.pk).update(
            server_event_id=key, state="pending", attempts=3, attempted_at=now, due_at=soon, last_status=0,
            last_error="could not connect to 127.0.0.1:8780: connection refused",
        )  # fmt: skip
    for reward in Reward.objects.order_by("-pk")[:6:2]:
        Reward.objects.filter(pk=reward.pk).update(
            state="due", attempts=4, granted_at=None, due_at=soon,
            last_error='IntegrityError: insert or update on table "game_goldentry" violates foreign key constraint '
            '"game_goldentry_purse_id_8f1c2d_fk_game_purse_id" DETAIL: Key (purse_id)=(123456) is not present.',
        )  # fmt: skip


def _journey(
    friend: User,
    referrer: User | None,
    at: datetime,
    dice: random.Random,
    *,
    qualified: bool,
    down: bool,
    refused: bool = False,
) -> None:
    referral = Referral.objects.create(
        user=friend,
        server="default",
        token=f"a-token-of-a-season-{friend.pk}",
        referrer=referrer,
        state="captured" if refused else "qualified" if qualified else "registered",
        registered_at=None if refused else at,
        qualified_at=at if qualified else None,
    )
    Referral.objects.filter(pk=referral.pk).update(created_at=at)
    for kind in ["registered", "qualified"][: 2 if qualified else 1]:
        event = OutboundEvent.objects.create(
            referral=referral,
            server="default",
            kind=kind,
            server_event_id=f"{kind[:4].rstrip('i')}-{friend.pk}",
            body=b"{}",
            state="rejected" if refused else "accepted",
            outcome="" if refused else "advanced",
            due_at=at,
            last_status=422 if refused else 200,
            last_error="HTTP 422: illegal transition" if refused else "",
            attempts=1,
            settled_at=at,
        )
        OutboundEvent.objects.filter(pk=event.pk).update(created_at=at)
        answers = [(503, "HTTP 503")] * (dice.randint(1, 3) if down else 0)
        for status, error in (*answers, (422 if refused else 200, event.last_error)):
            DeliveryAttempt.objects.create(
                event=event,
                started_at=at,
                duration_ms=round(abs(dice.gauss(90, 25))),
                signed_at=0,
                status=status,
                error=error,
            )
    if qualified:
        Reward.objects.create(referral=referral, state="granted", due_at=at, granted_at=at)
