"""What the tables tell: does anything deliver, what waits, what failed, and is every reward somebody's business?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F, Min, QuerySet
from django.utils.translation import gettext as _

from .. import advice, checks
from ..clock import DatabaseNow
from ..conf import ConfigError, Server, conf
from ..delivery.rewards import NO_RECEIVER
from ..models import Heartbeat, OutboundEvent, Referral, Reward, ServerHealth
from ..signals import referral_qualified
from .endpoint import of_remembered_clock
from .finding import Finding, Severity, error, lasting, ok, told, warning
from .installation import of_check

CAP = 10_000
"""Rows that are counted; beyond that the count is "over 10000"."""
PATIENCE = 120.0
"""Seconds of silence, or four sweep intervals if that is longer, after which delivery is taken to be dead."""
PATIENCE_WITH_CRON = 3600.0
"""The same where ``mmolove_deliver --once`` was last: nobody knows how often cron runs it."""

State, Kind = OutboundEvent.State, Heartbeat.Kind


class Signs:
    """The signs of life in the database: how long ago each kind was seen, and where."""

    def __init__(self, using: str) -> None:
        rows = Heartbeat.objects.using(using).annotate(
            age=ExpressionWrapper(DatabaseNow() - F("seen_at"), output_field=DurationField())
        )
        #: Seconds and host, by kind.
        self.seen = {row.kind: (row.age.total_seconds(), row.host) for row in rows}

    def latest(self) -> tuple[str, float, str] | None:
        """Kind, seconds and host of the last one, or ``None`` if nothing ever delivered."""
        return min(((kind, *sign) for kind, sign in self.seen.items()), key=lambda sign: sign[1], default=None)

    def patience(self) -> float:
        """Seconds after which work that is due is late."""
        latest = self.latest()
        usual = max(PATIENCE, 4 * conf.sweep_interval)
        return max(usual, PATIENCE_WITH_CRON) if latest and latest[0] == Kind.ONCE else usual


def of_server(server: Server, using: str, *, sent: bool, passed: bool) -> Iterator[Finding]:
    """How delivery to ``server`` stands. A dry run has just been ``sent``, and ``passed``."""
    health = ServerHealth.objects.using(using).filter(server=server.alias).first()
    if health is not None and (not sent or health.clock_host != socket.gethostname()):
        yield from of_remembered_clock(server, health)
    paused = health is not None and health.state != ServerHealth.State.OPEN
    advised = advice.of_server(server, health)
    if paused and passed:
        cure = _("Nothing is to be done: the dry run has just passed, and the next delivery run opens it.")
        yield warning("server.paused", advised.cause, cure, server=server.alias)
    elif paused:
        yield told("server.paused", Severity.ERROR, advised, server=server.alias)
    elif passed or not sent:  # else the dry run has said how it stands
        yield told("server.open", Severity.OK, advised, server=server.alias)
    events = OutboundEvent.objects.using(using).filter(server=server.alias)
    yield _of_backlog(server, events.filter(state=State.PENDING), Signs(using).patience(), paused=paused)
    yield from _of_failures(server, events)


def _of_backlog(server: Server, pending: QuerySet[OutboundEvent], patience: float, *, paused: bool) -> Finding:
    age = oldest(pending.filter(due_at__lte=DatabaseNow()), "due_at")
    if age is None:
        waiting = _counted(pending)
        seen = _("No event is due; %s wait for their next try.") % waiting if waiting != "0" else _("No event is due.")
        return ok("backlog.ok", seen, server=server.alias)
    seen = _("%(count)s events are to be sent, the first of them due for %(age)s.")
    seen %= {"count": _counted(pending), "age": lasting(age)}
    if age <= patience:
        return ok("backlog.ok", seen, server=server.alias)
    if paused:
        cure = _("Do what is said of the paused server; then all of them leave at once.")
        return warning("backlog.old", seen, cure, server=server.alias)
    cure = _(
        "Do what is said of what delivers (dispatcher.…); or send them now: python manage.py mmolove_deliver --once"
    )
    return error("backlog.old", seen, cure, server=server.alias)


def _of_failures(server: Server, events: QuerySet[OutboundEvent]) -> Iterator[Finding]:
    for state, seen in (
        (State.REJECTED, _("%s events were rejected by MMOLove.")),
        (State.EXHAUSTED, _("%s events were tried for the whole retry schedule, in vain.")),
    ):
        count = _counted(events.filter(state=state))
        if count != "0":
            cure = _(
                "Open one in the admin (Outbound events, state “%(state)s”) and do what its page says; then python "
                "manage.py mmolove_redeliver --state %(value)s --server %(server)s. What is not worth it goes with "
                "python manage.py mmolove_prune --days 90 --failed-days 90"
            ) % {"state": state.label, "value": state.value, "server": server.alias}
            yield warning(f"events.{state.value}", seen % count, cure, server=server.alias)


def of_strangers(using: str) -> Iterator[Finding]:
    """Open events of servers that the settings do not have."""
    known = list(conf.servers)
    rows = OutboundEvent.objects.using(using).filter(state__in=(State.PENDING, State.WAITING)).exclude(server__in=known)
    for alias in rows.order_by("server").values_list("server", flat=True).distinct():
        yield error(
            "server.unknown",
            _("%(count)s events wait for the server '%(alias)s', which the settings do not have.")
            % {"count": _counted(rows.filter(server=alias)), "alias": alias},
            _("Put MMOLOVE_REFERRAL['SERVERS']['%s'] back, or cancel them in the admin (Outbound events).") % alias,
            server=alias,
        )


def of_dispatcher(using: str) -> Iterator[Finding]:
    """Is anything alive that delivers, and with Celery, does beat sweep?"""
    try:
        dispatch = conf.dispatch
    except ConfigError:
        return  # named among the settings
    signs = Signs(using)
    late = (overdue(using) or 0.0) > signs.patience()
    yield _of_signs(signs, dispatch, late=late)
    if dispatch != "celery":
        return
    age, host = signs.seen.get(Kind.BEAT.value, (None, ""))
    if age is not None and age <= signs.patience():
        yield ok(
            "sweep.alive", _("Beat's sweep ran %(age)s ago, on host %(host)s.") % {"age": lasting(age), "host": host}
        )
        return
    yield from map(of_check, checks.check_sweep(None))
    seen = _("Beat's sweep has never run.") if age is None else _("Beat's sweep last ran %s ago.") % lasting(age)
    cure = _(
        'Run celery -A <project> beat, with {"task": "mmolove_referral.sweep", "schedule": 30.0} in '
        "CELERY_BEAT_SCHEDULE: without it no retry ever leaves."
    )
    yield (error if late else warning)("sweep.silent", seen, cure)


def _of_signs(signs: Signs, dispatch: str, *, late: bool) -> Finding:
    latest = signs.latest()
    if latest is None:
        seen = _("Nothing has ever delivered here (DISPATCH = '%s').") % dispatch
    else:
        kind, age, host = latest
        seen = _("The last to deliver was %(who)s, %(age)s ago, on host %(host)s (DISPATCH = '%(dispatch)s').")
        seen %= {"who": Kind(kind).label, "age": lasting(age), "host": host, "dispatch": dispatch}
        if age <= signs.patience():
            return ok("dispatcher.alive", seen)
    cures = {
        "thread": _(
            "Open a page of the portal: the thread starts with the first request of each process. If it stays silent, "
            "look in the log for “Delivery stopped” (logger mmolove_referral.delivery); uWSGI needs enable-threads = "
            "true."
        ),
        "celery": _(
            "Start a worker for the tasks mmolove_referral.*: celery -A <project> worker --queues <their queue>"
        ),
        "manual": _(
            "Start python manage.py mmolove_deliver --loop, or have cron run python manage.py mmolove_deliver --once, "
            "or set MMOLOVE_REFERRAL['DISPATCH'] to 'thread'."
        ),
    }
    return (error if late else warning)("dispatcher.silent", seen, cures[dispatch])


def of_rewards(using: str) -> Iterator[Finding]:
    due = Reward.objects.using(using).filter(state=Reward.State.DUE)
    if not referral_qualified.has_listeners(Referral):
        count = _counted(due)
        seen = (
            NO_RECEIVER
            if count == "0"
            else _("%(count)s rewards are due. %(why)s") % {"count": count, "why": NO_RECEIVER}
        )
        cure = _(
            "Connect a receiver to django_mmolove_referral.signals.referral_qualified in your AppConfig.ready(), as "
            "the README shows (step 8)."
        )
        yield (warning if count == "0" else error)("rewards.no_receiver", seen, cure)
        return
    failing = due.filter(attempts__gt=0)
    count = _counted(failing)
    if count != "0":
        last = failing.order_by("due_at").values_list("last_error", flat=True).first() or ""
        yield error(
            "rewards.failing",
            _("%(count)s rewards could not be granted, one of them because of %(error)s.")
            % {"count": count, "error": last.rstrip(".")},
            _("Mend the receiver of referral_qualified; they are tried again by themselves, or with “Retry reward”."),
        )
        return
    count = _counted(due)
    seen = (
        _("A receiver grants the rewards; none is due.")
        if count == "0"
        else _("A receiver grants the rewards; %s due.")
    )
    yield ok("rewards.ok", seen if count == "0" else seen % count)


def overdue(using: str) -> float | None:
    """Seconds for which something has been due that could have been done: an event of an open server, a reward."""
    closed = ServerHealth.objects.using(using).exclude(state=ServerHealth.State.OPEN).values_list("server", flat=True)
    servers = [server.alias for server in conf.servers.values() if _usable(server)]
    events = OutboundEvent.objects.using(using).filter(server__in=servers, state=State.PENDING)
    ages = (
        oldest(events.exclude(server__in=list(closed)), "due_at"),
        oldest(Reward.objects.using(using).filter(state=Reward.State.DUE), "due_at"),
    )
    return max((age for age in ages if age is not None), default=None)


def oldest(rows: QuerySet[Any], field: str) -> float | None:
    """Seconds since the smallest ``field``, by the database's clock; ``None`` without rows."""
    age = rows.aggregate(age=ExpressionWrapper(DatabaseNow() - Min(field), output_field=DurationField()))["age"]
    return None if age is None else float(age.total_seconds())


def _counted(rows: QuerySet[Any]) -> str:
    count = rows.order_by()[: CAP + 1].count()
    return _("over %d") % CAP if count > CAP else str(count)


def _usable(server: Server) -> bool:
    try:
        server.credentials()
    except ConfigError:
        return False
    return True
