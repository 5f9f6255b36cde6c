"""What the tables tell: does anything deliver, what waits, what failed, and is every reward somebody's business?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import advice, checks
from ..clock import DatabaseNow
from ..conf import ConfigError, Server, conf
from ..delivery.failing import failing
from ..delivery.rewards import NO_RECEIVER
from ..models import Heartbeat, OutboundEvent, Referral, Reward, ServerHealth
from ..signals import referral_qualified
from .broker import queue_of_ours
from .endpoint import of_remembered_clock
from .finding import Finding, Severity, error, lasting, ok, told, warning
from .installation import of_check
from .signs import Signs, oldest, overdue

CAP = 10_000
"""Rows that are counted; beyond that the count is "over 10000"."""
STRANGERS = 20
"""Servers that the settings do not have, of which at most is told."""

State, Kind = OutboundEvent.State, Heartbeat.Kind


def of_server(server: Server, signs: Signs, *, sent: bool, passed: bool) -> Iterator[Finding]:
    """How delivery to ``server`` stands. A dry run has just been ``sent``, and ``passed``."""
    health = ServerHealth.objects.using(signs.using).filter(server=server.alias).first()
    if health is not None and (not sent or health.clock_host != socket.gethostname()):
        yield from of_remembered_clock(server, health)
    paused = health is not None and health.state != ServerHealth.State.OPEN
    failed = failing(server.alias, health, using=signs.using)
    advised = advice.of_server(server, health, failed)
    if paused and passed:
        cure = _("Nothing is to be done: the dry run has just passed, and the next delivery run opens it.")
        yield warning("server.paused", advised.cause, cure, server=server.alias)
    elif paused:
        yield told("server.paused", Severity.ERROR, advised, server=server.alias)
    elif failed and passed:
        cure = _(
            "Nothing is to be done: the dry run has just passed, and they are tried again by themselves; “Redeliver "
            "now” on an event's page does so at once."
        )
        yield warning("delivery.failing", advised.cause, cure, server=server.alias)
    elif failed and not sent:
        yield told("delivery.failing", Severity.WARNING, advised, server=server.alias)
    elif passed or not sent:  # else the dry run has said how it stands
        yield told("server.open", Severity.OK, advised, server=server.alias)
    events = OutboundEvent.objects.using(signs.using).filter(server=server.alias)
    yield _of_backlog(server, events.filter(state=State.PENDING), signs, paused=paused)
    yield from _of_failures(server, events)


def _of_backlog(server: Server, pending: QuerySet[OutboundEvent], signs: Signs, *, paused: bool) -> Finding:
    age, count = oldest(pending.filter(due_at__lte=DatabaseNow()), "due_at"), _count(pending)
    if age is None:
        seen = ngettext(
            "No event is due; %s waits for its next try.", "No event is due; %s wait for their next try.", count
        )
        return ok("backlog.ok", seen % _amount(count) if count else _("No event is due."), server=server.alias)
    seen = ngettext(
        "%(count)s event is to be sent, due for %(age)s.",
        "%(count)s events are to be sent, the first of them due for %(age)s.",
        count,
    ) % {"count": _amount(count), "age": lasting(age)}
    if age <= signs.patience():
        return ok("backlog.ok", seen, server=server.alias)
    if paused:
        cure = _("Do what is said of the paused server; then all of them leave at once.")
        return warning("backlog.old", seen, cure, server=server.alias)
    cure = _(
        "Do what is said of what delivers (dispatcher.…); or send them now: python manage.py mmolove_deliver --once"
    )
    return error("backlog.old", seen, cure, server=server.alias)


def _of_failures(server: Server, events: QuerySet[OutboundEvent]) -> Iterator[Finding]:
    rejected, exhausted = (_count(events.filter(state=state)) for state in (State.REJECTED, State.EXHAUSTED))
    for state, count, seen in (
        (
            State.REJECTED,
            rejected,
            ngettext("%s event was rejected by MMOLove.", "%s events were rejected by MMOLove.", rejected),
        ),
        (
            State.EXHAUSTED,
            exhausted,
            ngettext(
                "%s event was tried for the whole retry schedule, in vain.",
                "%s events were tried for the whole retry schedule, in vain.",
                exhausted,
            ),
        ),
    ):
        if count:
            cure = _(
                "Open one in the admin (Outbound events, state “%(state)s”) and do what its page says, then choose "
                "“Redeliver now”. For all of them: python manage.py mmolove_redeliver --state %(value)s --server "
                "%(server)s. What nothing can be made of goes from here with “Cancel”."
            ) % {"state": state.label, "value": state.value, "server": server.alias}
            yield warning(f"events.{state.value}", seen % _amount(count), cure, server=server.alias)


def of_strangers(using: str) -> Iterator[Finding]:
    """Open events of servers that the settings do not have."""
    events = OutboundEvent.objects.using(using)
    for alias in islice(_strangers(using), STRANGERS):
        rows = events.filter(server=alias)
        count = sum(_count(rows.filter(state=state)) for state in (State.PENDING, State.WAITING))
        if count:
            seen = ngettext(
                "%(count)s event waits for the server '%(alias)s', which the settings do not have.",
                "%(count)s events wait for the server '%(alias)s', which the settings do not have.",
                count,
            )
            yield error(
                "server.unknown",
                seen % {"count": _amount(count), "alias": alias},
                _("Put MMOLOVE_REFERRAL['SERVERS']['%s'] back, or cancel them in the admin (Outbound events).") % alias,
                server=alias,
            )


def _strangers(using: str) -> Iterator[str]:
    """From one server to the next in the index: with DISTINCT the database would read every event."""
    known = set(conf.servers)
    servers = OutboundEvent.objects.using(using).order_by("server").values_list("server", flat=True)
    alias = servers.first()
    while alias is not None:
        if alias not in known:
            yield alias
        alias = servers.filter(server__gt=alias).first()


def of_dispatcher(signs: Signs) -> Iterator[Finding]:
    """Is anything alive that delivers, and with Celery, does beat sweep?"""
    try:
        dispatch = conf.dispatch
    except ConfigError:
        return  # named among the settings
    late = (overdue(signs.using) or 0.0) > signs.patience()
    yield _of_signs(signs, dispatch, late=late)
    if dispatch != "celery":
        return
    yield from map(of_check, checks.check_celery(None))
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
        "CELERY_BEAT_SCHEDULE, and a worker that takes it: without both no retry ever leaves."
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
            "Start a worker for the tasks mmolove_referral.*: celery -A <project> worker --queues %s. If it runs, look "
            "in its log for “Nothing is delivered”: does it have the web process's environment?"
        )
        % (queue_of_ours() or _("<their queue>")),
        "manual": _(
            "Start python manage.py mmolove_deliver --loop, or have cron run python manage.py mmolove_deliver --once, "
            "or set MMOLOVE_REFERRAL['DISPATCH'] to 'thread'. If it runs, look in its log for “Nothing is delivered”: "
            "does it have the web process's environment?"
        ),
    }
    return (error if late else warning)("dispatcher.silent", seen, cures[dispatch])


def of_rewards(using: str) -> Iterator[Finding]:
    due = Reward.objects.using(using).filter(state=Reward.State.DUE).order_by("-due_at")
    # Those that failed are due later than the others, so they are the first that are counted.
    counts = due[: CAP + 1].aggregate(
        due=Count("pk"),
        failing=Count("pk", filter=Q(attempts__gt=0) & ~Q(last_error=NO_RECEIVER)),
        unheard=Count("pk", filter=Q(last_error=NO_RECEIVER)),
    )
    count, failing, unheard = counts["due"], counts["failing"], counts["unheard"]
    if not referral_qualified.has_listeners(Referral):
        message = checks.no_receiver()
        seen = ngettext("%(count)s reward is due. %(why)s", "%(count)s rewards are due. %(why)s", count)
        why, cure = message.msg, message.hint or ""
        yield (
            error("rewards.no_receiver", seen % {"count": _amount(count), "why": why}, cure)
            if count
            else warning("rewards.no_receiver", why, cure)
        )
    elif failing:
        seen = ngettext(
            "%(count)s reward could not be granted, because of %(error)s.",
            "%(count)s rewards could not be granted, one of them because of %(error)s.",
            failing,
        )
        last = due.filter(attempts__gt=0).exclude(last_error=NO_RECEIVER).values_list("last_error", flat=True).first()
        yield error(
            "rewards.failing",
            seen % {"count": _amount(failing), "error": (last or "").rstrip(".")},
            _("Mend the receiver of referral_qualified; they are tried again by themselves, or with “Retry reward”."),
        )
    elif unheard:
        seen = ngettext(
            "%s reward is due, and what delivers had no receiver of referral_qualified when it last looked. This "
            "process has one.",
            "%s rewards are due, and what delivers had no receiver of referral_qualified when it last looked. This "
            "process has one.",
            unheard,
        )
        cure = _(
            "Connect it in your AppConfig.ready(), not in a module that only views import, and restart what delivers: "
            "its next run grants what is due, as python manage.py mmolove_deliver --once does now."
        )
        yield warning("rewards.no_receiver", seen % _amount(unheard), cure)
    elif count:
        yield ok("rewards.ok", _("A receiver grants the rewards; %s due, for the next delivery run.") % _amount(count))
    else:
        yield ok("rewards.ok", _("A receiver grants the rewards; none is due."))


def _count(rows: QuerySet[Any]) -> int:
    """How many there are; ``CAP + 1`` stands for more than ``CAP``."""
    return rows.order_by()[: CAP + 1].count()


def _amount(count: int) -> str:
    return _("over %d") % CAP if count > CAP else str(count)
