"""Where the fault tests' portal books its rewards: a table without any constraint that could hide a second one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib.admin.models import ADDITION, LogEntry


def pay(referral: Any) -> None:
    LogEntry.objects.create(user_id=referral.user_id, object_id=str(referral.pk), action_flag=ADDITION)


def paid() -> Counter[int]:
    """How often each referral has been paid for."""
    return Counter(int(pk or 0) for pk in LogEntry.objects.values_list("object_id", flat=True))
