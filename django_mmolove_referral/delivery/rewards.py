"""Granting what is due: the mark and the portal's own writes in one transaction, tried again until it succeeds."""

from __future__ import annotations

import logging
import time

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import signals
from ..clock import DatabaseNow
from ..conf import conf
from ..logs import over, trouble
from ..masking import printable
from ..models import OutboundEvent, Referral, Reward
from ..protocol import Kind
from .retry import retried, retrying
from .schedule import after_reward_failure

logger = logging.getLogger("mmolove_referral.rewards")

NO_RECEIVER = gettext_noop(
    "No receiver is connected to django_mmolove_referral.signals.referral_qualified: connect one in ready()."
)
BATCH = 100


def grant_due(*, using: str, seconds: float | None = None) -> int:
    """Grant due rewards, for ``seconds`` at most; returns how many were granted.

    Without a receiver none is, and none is put off: whichever process has one grants them with its next run.
    """
    until = None if seconds is None else time.monotonic() + seconds
    due = Reward.objects.using(using).filter(state=Reward.State.DUE, due_at__lte=DatabaseNow())
    granted = 0
    chosen = retrying(lambda: list(due.order_by("due_at").values_list("pk", "referral_id")[:BATCH]))
    if chosen and not signals.referral_qualified.has_listeners(Referral):
        # They stay due, for a process that has one: this one after its restart, or another.
        retrying(lambda: due.exclude(last_error=NO_RECEIVER).update(last_error=NO_RECEIVER))
        trouble(logger, "rewards", NO_RECEIVER, "Rewards are due. %s", NO_RECEIVER, level=logging.WARNING)
        return 0
    for pk, referral in chosen:
        if until is not None and time.monotonic() > until:
            break
        try:
            # A deadlock is nobody's fault and leaves nothing behind.
            granted += retrying(lambda pk=pk, referral=referral: _grant(pk, referral, using))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001  # whatever the portal's receiver raises
            _failed(pk, error, using)
    return granted


def _grant(pk: int, referral_id: int, using: str) -> bool:
    rewards = Reward.objects.using(using).filter(pk=pk, state=Reward.State.DUE, due_at__lte=DatabaseNow())
    with transaction.atomic(using=using):
        referral = Referral.objects.using(using).lock([referral_id])[referral_id]
        if not rewards.update(state=Reward.State.GRANTED, granted_at=timezone.now(), last_error=""):
            return False  # another worker's, or cancelled
        event = OutboundEvent.objects.using(using).get(referral=referral, kind=Kind.QUALIFIED.value)
        _find_referrer(referral, event, using)
        signals.referral_qualified.send(sender=Referral, referral=referral, event=event, response=event.response)
    extra = {"server": referral.server, "referral": referral_id}
    over(logger, "rewards", "Rewards can be granted again.", **extra)
    logger.info("The reward of referral %s was granted.", referral_id, extra=extra)
    return True


def _find_referrer(referral: Referral, event: OutboundEvent, using: str) -> None:
    if referral.referrer_id is not None or conf.resolve_referrer is None:
        return
    referrer = conf.resolve_referrer(referral, event.response)
    if referrer is not None and referrer.pk != referral.user_id:
        referral.referrer = referrer
        referral.save(using=using, update_fields=["referrer"])


@retried
def _failed(pk: int, error: Exception, using: str) -> None:
    with transaction.atomic(using=using):
        reward = Reward.objects.using(using).filter(pk=pk, state=Reward.State.DUE).first()
        if reward is None:
            return
        if reward.attempts == 0:  # once; the row counts the rest
            text = "A receiver of referral_qualified raised; the reward stays due."
            trouble(logger, "rewards", error, text, referral=reward.referral_id)
        Reward.objects.using(using).filter(pk=pk, state=Reward.State.DUE).update(
            attempts=reward.attempts + 1,
            last_error=printable(f"{type(error).__name__}: {error}"),
            due_at=DatabaseNow() + after_reward_failure(reward.attempts + 1),
        )
