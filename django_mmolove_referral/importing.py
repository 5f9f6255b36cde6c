"""Taking over what something else has reported: referrals that begin where MMOLove's own kits left them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import IntegrityError, router, transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from .conf import DEFAULT_SERVER, conf
from .delivery import order
from .lifecycle import check, find_referrer
from .models import Referral, Reward
from .protocol import Kind

QUALIFIED = Kind.QUALIFIED.value


@sensitive_variables("token")
def import_referral(
    user: Any,
    token: str,
    *,
    registered_at: datetime,
    qualified_at: datetime | None = None,
    server: str = DEFAULT_SERVER,
    code: str = "",
) -> Referral:
    """Take over a referral of which MMOLove has accepted ``registered``, and ``qualified`` if there is a time for it.

    What was accepted is not sent again: no event is written, and no verb will write one of these kinds. With
    ``qualified_at`` the reward counts as granted, so it is not granted a second time; without it
    :func:`~django_mmolove_referral.mark_qualified` reports the milestone at once, as after any accepted ``registered``.
    No signal is sent. ``code`` is the referrer's share code, if known.

    Import as often as you like: an account that has a referral on that server keeps it. All that changes is that one
    whose milestone nobody has marked here becomes qualified if ``qualified_at`` says so.

    Raises ``ValueError`` for a token or code that can be none and for times that cannot be, and
    :class:`~django_mmolove_referral.conf.ConfigError` for an unknown server.
    """
    check(user, token, code)
    registered_at = _moment("registered_at", registered_at)
    if qualified_at is not None:
        qualified_at = _moment("qualified_at", qualified_at)
        if qualified_at < registered_at:
            raise ValueError(f"qualified_at, {qualified_at}, cannot be before registered_at, {registered_at}.")
    alias = conf.server(server).alias
    using = router.db_for_write(Referral, instance=user)
    known = Referral.objects.using(using).filter(user=user, server=alias)
    pk = known.values_list("pk", flat=True).first()
    if pk is None:
        referral = Referral(
            user=user,
            server=alias,
            token=token,
            referrer_code=code,
            referrer=find_referrer(code, user, using),
            state=Referral.State.REGISTERED,
            registered_at=registered_at,
            pruned=Kind.REGISTERED.value,
        )
        try:
            with transaction.atomic(using=using):
                return _insert(referral, qualified_at, using)
        except IntegrityError:
            # Somebody else attached one between our look and our insert.
            pk = known.values_list("pk", flat=True).first()
            if pk is None:
                raise
    with transaction.atomic(using=using):
        return _follow(pk, qualified_at, using)


aimport_referral = sync_to_async(import_referral)


def _insert(referral: Referral, qualified_at: datetime | None, using: str) -> Referral:
    referral.save(using=using, force_insert=True)
    # It did not come today: the funnel and the days of the overview count by this time.
    referral.created_at = referral.registered_at  # type: ignore[assignment]  # set by import_referral
    if qualified_at is not None:
        _qualify(referral, qualified_at, using)
    referral.save(using=using, update_fields=["created_at"])
    return referral


def _follow(pk: int, qualified_at: datetime | None, using: str) -> Referral:
    """The referral that there is. The kit may have gone on reporting milestones since it was first imported."""
    referral, events = order.lock_one(pk, using=using)
    if qualified_at is not None and not (
        referral.ended or QUALIFIED in events or QUALIFIED in referral.pruned.split() or referral.qualified_at
    ):
        referral.registered_at = referral.registered_at or qualified_at
        _qualify(referral, qualified_at, using)
    return referral


def _qualify(referral: Referral, qualified_at: datetime, using: str) -> None:
    referral.state, referral.qualified_at = Referral.State.QUALIFIED, qualified_at
    referral.pruned = " ".join(sorted({*referral.pruned.split(), QUALIFIED}))
    referral.save(using=using, update_fields=["state", "registered_at", "qualified_at", "pruned"])
    reward = Reward.objects.using(using).create(
        referral=referral, state=Reward.State.GRANTED, due_at=qualified_at, granted_at=qualified_at
    )
    reward.created_at = qualified_at
    reward.save(using=using, update_fields=["created_at"])


def _moment(name: str, value: datetime) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError(f"{name} is a datetime, not {value!r}.")
    if settings.USE_TZ and timezone.is_naive(value):
        raise ValueError(f"{name}, {value}, needs a time zone: django.utils.timezone.make_aware(…) gives it one.")
    if not settings.USE_TZ and timezone.is_aware(value):
        value = timezone.make_naive(value)
    if value > timezone.now():
        raise ValueError(f"{name}, {value}, has not come yet.")
    return value
