"""What the app holds about one account, to be handed out or to be erased. See docs/privacy.md for all of it.

Deleting an account erases it, too; :func:`erase` is for portals that keep the row and make it anonymous.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import router, transaction
from django.utils import timezone

from .delivery.blank import forget
from .models import DeliveryAttempt, OutboundEvent, Referral, Reward
from .protocol import parse_object

CHUNK = 1000
"""Rows that are in memory at a time."""


def export(user: Any) -> dict[str, Any]:
    """All that is stored about ``user``, for a page that hands people their data. Only what JSON knows.

    ``referrals``: how the account itself was referred, with its token, what was sent to MMOLove and what came back.
    ``invited``: its part in the referrals of those who came by its link; nothing of these people. Costs a few queries,
    and memory for a small dict per invited account; :func:`invited` gives these one by one. Raises ``ValueError`` for
    a visitor without an account.
    """
    # No variable holds it: an error's report would show it, and with it the token.
    return {**about(user), "referrals": list(referrals(user)), "invited": list(invited(user))}


def erase(user: Any) -> int:
    """Do what deleting ``user`` does to the app's data, for an account that stays as an anonymous row.

    Cancels what is open, blanks its tokens, the bodies with its identity and MMOLove's own words, and the codes that
    name it as a referrer; runs in the caller's transaction, if there is one. Doing it twice does no harm. Returns how
    many referrals the account itself had. Raises ``ValueError`` for a visitor without an account.
    """
    using = _database(user)
    with transaction.atomic(using=using):
        return forget(user, using=using)


def about(user: Any) -> dict[str, Any]:
    """Whose data this is, and of when."""
    _must_be_account(user)
    return {
        "account": {"model": user._meta.label_lower, "primary_key": str(user.pk)},
        "exported_at": timezone.now().isoformat(),
    }


def referrals(user: Any) -> Iterator[dict[str, Any]]:
    """The account's own referrals: one on each MMOLove server at most."""
    rows = Referral.objects.using(_database(user)).filter(user=user).order_by("pk")
    for referral in rows.prefetch_related("events__delivery_attempts"):
        yield {
            "referral": referral.pk,
            "server": referral.server,
            "state": referral.state,
            "token": referral.token or None,
            "blanked": referral.blanked,
            "referral_id_at_mmolove": referral.referral_id or None,
            "attached_at": _iso(referral.created_at),
            "registered_at": _iso(referral.registered_at),
            "qualified_at": _iso(referral.qualified_at),
            "closed_at": _iso(referral.closed_at),
            "pruned_events": referral.pruned.split(),
            "events": [_event(event) for event in sorted(referral.events.all(), key=lambda event: event.pk)],
        }


def invited(user: Any) -> Iterator[dict[str, Any]]:
    """The account's part in the referrals of those who came by its link, one by one."""
    rows = Referral.objects.using(_database(user))
    # All keys at once, as a cursor has PostgreSQL walk the whole table in the order of the primary key.
    pks = list(rows.filter(referrer=user).order_by("pk").values_list("pk", flat=True))
    fields = ("server", "created_at", "referrer_code", *(f"reward__{name}" for name in _REWARD))
    for at in range(0, len(pks), CHUNK):
        chunk = rows.filter(pk__in=pks[at : at + CHUNK]).order_by("pk").select_related("reward").only(*fields)
        for referral in chunk:
            reward = getattr(referral, "reward", None)
            yield {
                "referral": referral.pk,
                "server": referral.server,
                "code": referral.referrer_code or None,
                "attached_at": _iso(referral.created_at),
                "reward": reward and _reward(reward),
            }


_REWARD = ("state", "created_at", "due_at", "attempts", "granted_at")


def _event(event: OutboundEvent) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "idempotency_key": event.server_event_id,
        "state": event.state,
        "outcome": event.outcome or None,
        "reason": event.reason or None,
        "sent_to_mmolove": parse_object(bytes(event.body)),
        "answer": event.response,
        "last_status": event.last_status,
        "last_error": event.last_error or None,
        "created_at": _iso(event.created_at),
        "last_attempt_at": _iso(event.attempted_at),
        "settled_at": _iso(event.settled_at),
        "attempts": [_attempt(row) for row in sorted(event.delivery_attempts.all(), key=lambda row: row.pk)],
    }


def _attempt(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "started_at": _iso(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "signed_at": attempt.signed_at,
        "status": attempt.status,
        "answer": attempt.answer or None,
        "error": attempt.error or None,
        "late": attempt.late,
    }


def _reward(reward: Reward) -> dict[str, Any]:
    return {
        "state": reward.state,
        "created_at": _iso(reward.created_at),
        "due_at": _iso(reward.due_at) if reward.state == reward.State.DUE else None,
        "failed_attempts": reward.attempts,
        "granted_at": _iso(reward.granted_at),
    }


def _iso(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()


def _must_be_account(user: Any) -> None:
    if user.pk is None:
        raise ValueError("Only an account has data here, and this is none, or one that has been deleted.")


def _database(user: Any) -> str:
    _must_be_account(user)
    return router.db_for_write(Referral, instance=user)
