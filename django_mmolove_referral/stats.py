"""How referrals and deliveries stand, in numbers: what the admin's overview and ``mmolove_stats`` show.

However many rows there are, the work is bounded: days and funnel look at the newest rows of the last days
(:mod:`~django_mmolove_referral.window`), states are counted up to :data:`COUNTED`, latency is that of the last
:data:`RECENT` attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from . import signals
from .conf import ConfigError, conf
from .models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from .window import ANSWERS, STEPS, Newest, Referrer, best_referrers, captured_by_day, local, midnights, requests_by_day

COUNTED = 10_000
RECENT = 1_000

State = OutboundEvent.State


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
    starts = midnights(now)
    referrals, attempts = Newest.of(Referral, "created_at"), Newest.of(DeliveryAttempt, "started_at")
    since = max([starts[0], *referrals.left_out, *attempts.left_out])
    while starts[1:] and starts[1] <= since:
        del starts[0]
    captured, requests = captured_by_day(referrals, since, starts), requests_by_day(attempts, since, starts)
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
            Day(local(start), captured[number]["captured"], *(requests[number][key] for key in ANSWERS))
            for number, start in enumerate(starts)
        ],
        funnel=Funnel(**{key: sum(row[key] for row in captured) for key in STEPS}),
        referrers=best_referrers(referrals, since),
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
