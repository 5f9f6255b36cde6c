"""How referrals and deliveries stand, in numbers: what the admin's overview and ``mmolove_stats`` show.

However many rows there are, the work is bounded: days and funnel look at the newest :data:`WINDOW_ROWS` rows of the
last :data:`DAYS` days at most, states are counted up to :data:`COUNTED`, latency is that of the last :data:`RECENT`
attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Case, Count, FilteredRelation, IntegerField, Max, Model, Q, QuerySet, Value, When
from django.utils import timezone

from . import signals
from .conf import ConfigError, conf
from .models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth

DAYS = 30
WINDOW_ROWS = 100_000
COUNTED = 10_000
RECENT = 1_000
REFERRERS = 10

State = OutboundEvent.State
_ACCEPTED = Q(status=200, error="")
_REFUSED = Q(status__gte=300, status__lt=500) & ~Q(status__in=(408, 425, 429))


@dataclass(frozen=True)
class Day:
    """One day of the current time zone: accounts that came with a token, and requests by what came of them."""

    day: date
    captured: int
    accepted: int
    #: Answers that refuse: 3xx, 4xx.
    refused: int
    #: No answer, or one that is no decision (5xx, 429, another's page): such requests are repeated by themselves.
    failed: int


@dataclass(frozen=True)
class Funnel:
    """How far those came who signed up since the window's start."""

    captured: int
    registered: int
    qualified: int
    rewarded: int


@dataclass(frozen=True)
class Latency:
    """Milliseconds from request to answer; ``None`` without an answer."""

    median: int | None
    p95: int | None
    #: How many answers that is of.
    answers: int


@dataclass(frozen=True)
class Referrer:
    """Whom a player brought since the window's start."""

    user: Any
    name: str
    captured: int
    qualified: int
    rewarded: int


@dataclass(frozen=True)
class Events:
    """How many there are in each state that is not a success; ``COUNTED + 1`` stands for more than ``COUNTED``."""

    pending: int
    waiting: int
    rejected: int
    exhausted: int

    @property
    def open(self) -> int:
        return min(self.pending + self.waiting, COUNTED + 1)


@dataclass(frozen=True)
class Oldest:
    """The open event that was written first."""

    pk: int
    server_event_id: str
    created_at: datetime


@dataclass(frozen=True)
class Rewards:
    """Rewards that are due, and of those the ones that could not be granted; counted like :class:`Events`."""

    due: int
    failing: int
    #: Whether ``referral_qualified`` has a receiver in this process.
    receiver: bool


@dataclass(frozen=True)
class Stats:
    """All of it, as it was at ``now``."""

    now: datetime
    since: datetime
    time_zone: str
    days: list[Day]
    funnel: Funnel
    referrers: list[Referrer]
    events: Events
    oldest: Oldest | None
    latency: Latency
    rewards: Rewards
    #: Open events by server, as far as they were counted.
    open_by_server: dict[str, int]
    #: What is written about each server; one that is missing is open.
    health: dict[str, ServerHealth]
    #: Why the servers' settings cannot be read; empty if they can.
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times in ISO 8601, no secret and no token."""
        return {
            "now": self.now.isoformat(),
            "since": self.since.isoformat(),
            "time_zone": self.time_zone,
            "counted_up_to": COUNTED,
            "funnel": asdict(self.funnel),
            "days": [{**asdict(day), "day": day.day.isoformat()} for day in self.days],
            "events": {**asdict(self.events), "open": self.events.open},
            "oldest_open": None
            if self.oldest is None
            else {**asdict(self.oldest), "created_at": self.oldest.created_at.isoformat()},
            "latency_ms": asdict(self.latency),
            "rewards": asdict(self.rewards),
            "referrers": [{**asdict(referrer), "user": str(referrer.user)} for referrer in self.referrers],
            "servers": [self._server(alias) for alias in sorted({*_configured()[0], *self.health})],
            "problem": self.problem,
        }

    def _server(self, alias: str) -> dict[str, Any]:
        health = self.health.get(alias) or ServerHealth(server=alias)
        return {
            "server": alias,
            "state": str(health.state),
            "reason": health.reason,
            "last_success_at": _iso(health.last_success_at),
            "probe_at": _iso(health.probe_at),
            "clock_skew_seconds": health.clock_skew,
            "open": self.open_by_server.get(alias, 0),
            "problem": problem_of(alias),
        }


def collect() -> Stats:
    """The numbers as they are now, in a constant number of queries."""
    now = timezone.now()
    starts = _midnights(now)
    referrals, attempts = _Newest.of(Referral, "created_at"), _Newest.of(DeliveryAttempt, "started_at")
    since = max([starts[0], *referrals.left_out, *attempts.left_out])
    while starts[1:] and starts[1] <= since:
        del starts[0]
    captured, requests = _captured(referrals, since, starts), _requests(attempts, since, starts)
    aliases, problem = _configured()
    health = {row.server: row for row in ServerHealth.objects.all()}
    known = sorted({*aliases, *health})
    pending, waiting = _rows(known, State.PENDING), _rows(known, State.WAITING)
    recent = DeliveryAttempt.objects.order_by("-pk").values_list("duration_ms", "status")[:RECENT]
    return Stats(
        now=now,
        since=since,
        time_zone=timezone.get_current_timezone_name(),
        days=[
            Day(_local(start), captured[number]["captured"], *(requests[number][key] for key in _ANSWERS))
            for number, start in enumerate(starts)
        ],
        funnel=Funnel(**{key: sum(row[key] for row in captured) for key in _STEPS}),
        referrers=_referrers(referrals, since),
        events=Events(len(pending), len(waiting), _count(known, State.REJECTED), _count(known, State.EXHAUSTED)),
        oldest=_oldest([row[1] for row in pending + waiting]),
        latency=_latency([duration for duration, status in recent if status]),
        rewards=_rewards(),
        open_by_server=Counter(row[0] for row in pending + waiting),
        health=health,
        problem=problem,
    )


def problem_of(alias: str) -> str:
    """Why nothing can be sent to this server; empty if its settings are complete."""
    try:
        conf.server(alias).credentials()
    except ConfigError as error:
        return str(error)
    return ""


def _configured() -> tuple[list[str], str]:
    try:
        return list(conf.servers), ""
    except ConfigError as error:
        return [], str(error)


# -- the window, by days


_STEPS = ("captured", "registered", "qualified", "rewarded")
_ANSWERS = ("accepted", "refused", "failed")


@dataclass(frozen=True)
class _Newest:
    """The newest rows of a table. By key: that is a range of the table itself, and needs no other index."""

    rows: QuerySet[Any]
    field: str
    #: The key of no older row is greater.
    floor: int
    #: When the last row was written that is not among them, if there is one.
    left_out: list[datetime]

    @classmethod
    def of(cls, model: type[Model], field: str) -> _Newest:
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


def _midnights(now: datetime) -> list[datetime]:
    """Where the last days begin in the current time zone. Here and not by the database, which may know no zones."""
    today = _local(now)
    midnights = [datetime.combine(today - timedelta(days=ago), time.min) for ago in reversed(range(DAYS))]
    return [timezone.make_aware(midnight) for midnight in midnights] if settings.USE_TZ else midnights


def _local(moment: datetime) -> date:
    return timezone.localtime(moment).date() if timezone.is_aware(moment) else moment.date()


def _captured(referrals: _Newest, since: datetime, starts: Sequence[datetime]) -> list[Counter[str]]:
    return _granted(referrals).by_day(
        since,
        starts,
        captured=Count("pk"),
        registered=Count("registered_at"),
        qualified=Count("qualified_at"),
        rewarded=Count("granted"),
    )


def _requests(attempts: _Newest, since: datetime, starts: Sequence[datetime]) -> list[Counter[str]]:
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


def _granted(referrals: _Newest) -> _Newest:
    """With the granted rewards as ``granted``: those of these referrals, said so that no other is looked at."""
    condition = Q(reward__state=Reward.State.GRANTED, reward__referral_id__gt=referrals.floor)
    return replace(referrals, rows=referrals.rows.annotate(granted=FilteredRelation("reward", condition=condition)))


def _referrers(referrals: _Newest, since: datetime) -> list[Referrer]:
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


# -- now


def _state(servers: Sequence[str], state: OutboundEvent.State) -> QuerySet[OutboundEvent]:
    """With the servers, although they are all there are: the index begins with them."""
    return OutboundEvent.objects.filter(server__in=servers, state=state)


def _rows(servers: Sequence[str], state: OutboundEvent.State) -> list[tuple[str, int]]:
    """In the index's own order: if not all are counted, those are that have been due for longest."""
    rows = _state(servers, state).order_by("server", "due_at", "pk")
    return list(rows.values_list("server", "pk")[: COUNTED + 1])


def _count(servers: Sequence[str], state: OutboundEvent.State) -> int:
    return _state(servers, state).order_by()[: COUNTED + 1].count()


def _oldest(pks: Sequence[int]) -> Oldest | None:
    """Of those that were counted."""
    row = (
        OutboundEvent.objects.filter(pk=min(pks)).values_list("pk", "server_event_id", "created_at").first()
        if pks
        else None
    )
    return None if row is None else Oldest(*row)


def _latency(durations: Sequence[int]) -> Latency:
    ranked = sorted(durations)
    if not ranked:
        return Latency(None, None, 0)
    return Latency(_percentile(ranked, 50), _percentile(ranked, 95), len(ranked))


def _percentile(ranked: Sequence[int], percent: int) -> int:
    """The least value that ``percent`` of all do not exceed."""
    return ranked[-(-len(ranked) * percent // 100) - 1]


def _rewards() -> Rewards:
    # Those that failed are due later than the others, so they are the first that are counted.
    due = Reward.objects.filter(state=Reward.State.DUE).order_by("-due_at")[: COUNTED + 1]
    counts = due.aggregate(
        due=Count("pk"),
        failing=Count("pk", filter=Q(attempts__gt=0)),
    )
    return Rewards(**counts, receiver=signals.referral_qualified.has_listeners(Referral))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
