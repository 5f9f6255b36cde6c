"""The window that the statistics look at: the newest rows of the last days, counted by day and by referrer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Case, Count, FilteredRelation, IntegerField, Max, Model, Q, QuerySet, Value, When
from django.utils import timezone

from .models import Reward

DAYS = 30
WINDOW_ROWS = 100_000
REFERRERS = 10

_ACCEPTED = Q(status=200, error="")
_REFUSED = Q(status__gte=300, status__lt=500) & ~Q(status__in=(408, 425, 429))

STEPS = ("captured", "registered", "qualified", "rewarded")
ANSWERS = ("accepted", "refused", "failed")


@dataclass(frozen=True)
class Referrer:
    """Whom a player brought since the window's start."""

    user: Any
    name: str
    captured: int
    qualified: int
    rewarded: int


@dataclass(frozen=True)
class Newest:
    """The newest rows of a table. By key: that is a range of the table itself, and needs no other index."""

    rows: QuerySet[Any]
    field: str
    #: The key of no older row is greater.
    floor: int
    #: When the last row was written that is not among them, if there is one.
    left_out: list[datetime]

    @classmethod
    def of(cls, model: type[Model], field: str) -> Newest:
        rows = model._default_manager.all()
        floor = (rows.aggregate(last=Max("pk"))["last"] or 0) - WINDOW_ROWS
        older = rows.filter(pk__lte=floor).order_by("-pk").values_list(field, flat=True)
        return cls(rows.filter(pk__gt=floor), field, floor, list(older[:1]))

    def by_day(self, since: datetime, starts: Sequence[datetime], **counts: Count) -> list[Counter[str]]:
        found: list[Counter[str]] = [Counter() for _start in starts]
        rows = self.rows.filter(**{f"{self.field}__gte": since}).order_by()
        for row in rows.values(number=self._number(starts)).annotate(**counts):
            found[row.pop("number")].update(row)
        return found

    def _number(self, starts: Sequence[datetime]) -> Case:
        """Which of the days a row is of."""
        days = [When(**{f"{self.field}__gte": start}, then=Value(number)) for number, start in enumerate(starts)]
        return Case(*reversed(days[1:]), default=Value(0), output_field=IntegerField())


def midnights(now: datetime) -> list[datetime]:
    """Where the last days begin in the current time zone. Here and not by the database, which may know no zones."""
    today = local(now)
    midnights = [datetime.combine(today - timedelta(days=ago), time.min) for ago in reversed(range(DAYS))]
    return [timezone.make_aware(midnight) for midnight in midnights] if settings.USE_TZ else midnights


def local(moment: datetime) -> date:
    return timezone.localtime(moment).date() if timezone.is_aware(moment) else moment.date()


def captured_by_day(referrals: Newest, since: datetime, starts: Sequence[datetime]) -> list[Counter[str]]:
    return _granted(referrals).by_day(
        since,
        starts,
        captured=Count("pk"),
        registered=Count("registered_at"),
        qualified=Count("qualified_at"),
        rewarded=Count("granted"),
    )


def requests_by_day(attempts: Newest, since: datetime, starts: Sequence[datetime]) -> list[Counter[str]]:
    found = attempts.by_day(
        since,
        starts,
        accepted=Count("pk", filter=_ACCEPTED),
        refused=Count("pk", filter=_REFUSED),
        requests=Count("pk"),
    )
    for day in found:
        day["failed"] = day["requests"] - day["accepted"] - day["refused"]
    return found


def _granted(referrals: Newest) -> Newest:
    """With the granted rewards as ``granted``: those of these referrals, said so that no other is looked at."""
    condition = Q(reward__state=Reward.State.GRANTED, reward__referral_id__gt=referrals.floor)
    return replace(referrals, rows=referrals.rows.annotate(granted=FilteredRelation("reward", condition=condition)))


def best_referrers(referrals: Newest, since: datetime) -> list[Referrer]:
    best = (
        _granted(referrals)
        .rows.filter(created_at__gte=since, referrer__isnull=False)
        .order_by()
        .values("referrer")
        .annotate(captured=Count("pk"), qualified=Count("qualified_at"), rewarded=Count("granted"))
        .order_by("-qualified", "-captured", "referrer")[:REFERRERS]
    )
    rows = list(best)
    users = get_user_model()._default_manager.in_bulk([row["referrer"] for row in rows])
    return [
        Referrer(row["referrer"], str(users[row["referrer"]]), row["captured"], row["qualified"], row["rewarded"])
        for row in rows
        if row["referrer"] in users
    ]
