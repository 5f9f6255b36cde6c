"""Letting time pass: due times are the database's, so the rows are moved into the past instead of the clock ahead."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F

from django_mmolove_referral.models import Heartbeat, OutboundEvent, Referral, Reward, ServerHealth


def let_pass(seconds: float) -> None:
    """As if everything that is stored had been written ``seconds`` earlier."""
    ago = timedelta(seconds=seconds)
    OutboundEvent.objects.update(
        due_at=F("due_at") - ago, created_at=F("created_at") - ago, settled_at=F("settled_at") - ago
    )
    Referral.objects.update(
        **{name: F(name) - ago for name in ("created_at", "registered_at", "qualified_at", "closed_at")}
    )
    Reward.objects.update(due_at=F("due_at") - ago, granted_at=F("granted_at") - ago)
    ServerHealth.objects.update(probe_at=F("probe_at") - ago)
    Heartbeat.objects.update(seen_at=F("seen_at") - ago)
