"""Letting time pass: due times are the database's, so the rows are moved into the past instead of the clock ahead."""

from __future__ import annotations

from datetime import timedelta

from django.db import router
from django.db.models import F

from ..models import Heartbeat, OutboundEvent, Referral, Reward, ServerHealth


def let_pass(seconds: float) -> None:
    """As if everything that is stored had been written ``seconds`` earlier."""
    ago, using = timedelta(seconds=seconds), router.db_for_write(OutboundEvent)
    OutboundEvent.objects.using(using).update(
        due_at=F("due_at") - ago, created_at=F("created_at") - ago, settled_at=F("settled_at") - ago
    )
    Referral.objects.using(using).update(
        **{name: F(name) - ago for name in ("created_at", "registered_at", "qualified_at", "closed_at")}
    )
    Reward.objects.using(using).update(due_at=F("due_at") - ago, granted_at=F("granted_at") - ago)
    ServerHealth.objects.using(using).update(probe_at=F("probe_at") - ago)
    Heartbeat.objects.using(using).update(seen_at=F("seen_at") - ago)
