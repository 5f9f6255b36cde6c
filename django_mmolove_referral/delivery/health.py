"""The circuit breaker of each MMOLove server: open → paused → half-open → open.

An outage pauses the server, not each event. While paused, one process at a time sends a dry run; when it passes,
one real event goes as a canary, and its acceptance lets the whole backlog go.
"""

from __future__ import annotations

import logging
from functools import partial

from django.db import transaction
from django.db.models import Q, QuerySet
from django.dispatch import Signal

from .. import signals
from ..clock import DatabaseNow
from ..conf import conf
from ..masking import printable
from ..models import OutboundEvent, ServerHealth
from .retry import retried
from .schedule import ahead

logger = logging.getLogger("mmolove_referral.delivery")

State = ServerHealth.State


@retried
def state_of(server: str, *, using: str) -> str:
    """The state's value; no row means open."""
    state = ServerHealth.objects.using(using).filter(server=server).values_list("state", flat=True).first()
    return state or State.OPEN.value


@retried
def pause(server: str, reason: str, *, using: str, wait: float | None = None) -> None:
    """Open → paused. ``wait`` seconds (a ``Retry-After``) until the first dry run, else the first probe interval."""
    first, _ = conf.probe_interval
    reason = printable(reason)
    rows = _row(server, using)
    paused = rows.filter(state=State.OPEN).update(
        state=State.PAUSED,
        reason=reason,
        since=DatabaseNow(),
        probe_at=ahead(wait or first),
        probe_interval=first,
    )
    if paused:
        extra = {"server": server, "reason": reason}
        logger.warning("Delivery to MMOLove server %r pauses: %s", server, reason, extra=extra)
        _announce(signals.server_paused, using, server=server, reason=reason)
    elif wait is not None:
        rows.filter(state=State.PAUSED, probe_at__lt=ahead(wait)).update(probe_at=ahead(wait))


@retried
def probe_soon(server: str, *, using: str) -> None:
    """Somebody has reason to believe that a paused server works again: let the next drain find out."""
    ServerHealth.objects.using(using).filter(server=server, state=State.PAUSED).update(probe_at=DatabaseNow())


@retried
def take_probe(server: str, *, using: str) -> bool:
    """Whether this process may probe now. Whoever may has one lease to say what came of it."""
    return bool(
        _row(server, using)
        .filter(~Q(state=State.OPEN), probe_at__lte=DatabaseNow())
        .update(probe_at=ahead(conf.lease), state=State.PAUSED)
    )


@retried
def probe_failed(server: str, reason: str, *, using: str, wait: float | None = None) -> None:
    """Back to paused, the interval doubled up to its longest (or ``wait`` seconds, if that is longer)."""
    first, longest = conf.probe_interval
    health = _row(server, using).get()
    interval = min(max(health.probe_interval * 2, first), longest)
    _row(server, using).exclude(state=State.OPEN).update(
        state=State.PAUSED,
        reason=printable(reason),
        probe_at=ahead(max(interval, wait or 0)),
        probe_interval=interval,
    )
    extra = {"server": server, "reason": printable(reason)}
    logger.info("Delivery to MMOLove server %r stays paused: %s", server, printable(reason), extra=extra)


@retried
def half_open(server: str, *, using: str) -> bool:
    """Paused → half-open, for one lease: long enough for the canary. ``False`` if the server is open by now."""
    return bool(
        _row(server, using).filter(state=State.PAUSED).update(state=State.HALF_OPEN, probe_at=ahead(conf.lease))
    )


@retried
def reopen(server: str, *, using: str) -> None:
    """→ open, and everything that waited is due now: no event waits out a backoff of its own."""
    rows = _row(server, using).exclude(state=State.OPEN)
    with transaction.atomic(using=using):  # whoever dies in between leaves both to the next
        if not rows.update(state=State.OPEN, reason="", since=DatabaseNow(), probe_at=None, probe_interval=0):
            return
        OutboundEvent.objects.using(using).filter(
            server=server, state=OutboundEvent.State.PENDING, claim__isnull=True, due_at__gt=DatabaseNow()
        ).update(due_at=DatabaseNow())
    logger.info("Delivery to MMOLove server %r goes on.", server, extra={"server": server})
    _announce(signals.server_resumed, using, server=server)


@retried
def note_success(server: str, *, using: str) -> None:
    _row(server, using).update(last_success_at=DatabaseNow())


@retried
def note_clock(server: str, skew: float, host: str, *, using: str) -> None:
    """``skew``: seconds by which MMOLove's clock is ahead of this host's."""
    _row(server, using).update(clock_skew=round(skew), clock_host=host)


def _row(server: str, using: str) -> QuerySet[ServerHealth]:
    rows = ServerHealth.objects.using(using).filter(server=server)
    if not rows.exists():
        ServerHealth.objects.using(using).get_or_create(server=server, defaults={"since": DatabaseNow()})
    return rows


def _announce(signal: Signal, using: str, **news: str) -> None:
    transaction.on_commit(partial(signal.send_robust, sender=ServerHealth, **news), using=using, robust=True)
