"""``TOKEN_RETENTION``: that long after the last thing that happened to a final referral, it is blanked.

A referral is final when nothing more comes of it by itself: nothing of it is open, no reward is due, and it has
qualified, has ended, or is older than ``TOKEN_MAX_AGE``, when MMOLove credits nothing for it any more. What was
rejected or exhausted may be redelivered until it is blanked.

Finding these needs no index: each look goes through the next primary keys, and after the last begins again, so that it
costs the same with a thousand referrals and with millions.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from datetime import timedelta

from django.db import OperationalError
from django.db.models import Exists, Max, Min, OuterRef, Q, QuerySet

from ..clock import DatabaseNow
from ..conf import conf
from ..locks import promptly
from ..logs import over, trouble
from ..models import OutboundEvent, Referral, Reward
from . import order
from .blank import blank
from .retry import retrying

logger = logging.getLogger("mmolove_referral.delivery")

WINDOW = 1000
"""Referrals that one look goes through."""
BATCH = 100
"""Referrals of one transaction."""

#: Of this process, by database: up to which primary key it has looked, and when (monotonic seconds).
_looked: dict[str, tuple[int, float]] = {}


def look(*, using: str) -> None:
    """Blank what is over among the next referrals; at most once per ``SWEEP_INTERVAL`` and process.

    Any number of processes may do so at once, and beside everything else. Trouble with it is logged and stops nothing.
    """
    now = time.monotonic()
    after, last = _looked.get(using, (None, None))
    if last is not None and now - last < conf.sweep_interval:
        return
    try:
        start = retrying(lambda: _anywhere(using)) if after is None else after
        window, end = retrying(lambda: _window(start, using))
        _looked[using] = end, now  # whatever comes of it: one row that cannot be blanked must not keep the others
        blanked = blank_over(window, using=using)
    except Exception as error:  # noqa: BLE001  # a database that fails
        _looked[using] = _looked.get(using, (0, 0.0))[0], now
        trouble(logger, "blanking", error, "Referrals that are over could not be blanked; delivery goes on.")
    else:
        over(logger, "blanking", "Referrals can be blanked again.")
        if blanked:
            logger.info("%d referrals were blanked.", blanked, extra={"referrals": blanked})


def blank_over(referrals: QuerySet[Referral], *, using: str) -> int:
    """Blank those of ``referrals`` whose time has come, in short transactions. Returns how many these were.

    Those that somebody keeps locked are left for the next time.
    """
    found = referrals.filter(_orphaned() | _final(using)).order_by("pk").values_list("pk", flat=True)
    pks, blanked = retrying(lambda: list(found.all())), 0
    for at in range(0, len(pks), BATCH):
        with suppress(OperationalError):  # a lock, or a deadlock
            blanked += _blank(pks[at : at + BATCH], using)
    return blanked


def forget() -> None:
    """Forget how far this process has looked (for tests)."""
    _looked.clear()


def _anywhere(using: str) -> int:
    """A key to begin at: a process that cron starts every minute, and that makes one look, gets round, too."""
    ends = Referral.objects.using(using).aggregate(first=Min("pk"), last=Max("pk"))
    first, last = (ends["first"] or 0) - 1, (ends["last"] or 0) - WINDOW
    return random.randint(first, last) if last > first else first  # noqa: S311  # spread, not secrecy


def _window(after: int, using: str) -> tuple[QuerySet[Referral], int]:
    """The referrals that come after this key, and where the next look begins."""
    ahead = Referral.objects.using(using).filter(pk__gt=after)
    end = ahead.order_by("pk").values_list("pk", flat=True)[WINDOW - 1 : WINDOW].first()
    return (ahead, 0) if end is None else (ahead.filter(pk__lte=end), end)


def _orphaned() -> Q:
    """Their account is gone without this app's having been told: by SQL, or while the database failed."""
    return Q(user__isnull=True) & ~Q(token="")


def _final(using: str) -> Q:
    if conf.token_retention is None:
        return Q(pk__in=[])
    kept, worth = timedelta(seconds=conf.token_retention), timedelta(seconds=conf.token_max_age)
    since, states = DatabaseNow() - kept, Referral.State
    ended = (
        Q(state__in=[states.CONFLICT, states.REVERSED, states.EXPIRED], closed_at__lt=since)
        | Q(state=states.QUALIFIED, qualified_at__lt=since)
        | Q(state__in=[states.CAPTURED, states.REGISTERED], created_at__lt=since - worth)
    )
    own = {"referral": OuterRef("pk")}
    going_on = Q(state__in=[OutboundEvent.State.PENDING, OutboundEvent.State.WAITING]) | Q(settled_at__gte=since)
    paying = Q(state=Reward.State.DUE) | Q(granted_at__gte=since)
    return (
        ~Q(token="", referrer_code="")
        & ended
        & ~Exists(OutboundEvent.objects.using(using).filter(going_on, **own))
        & ~Exists(Reward.objects.using(using).filter(paying, **own))
    )


def _blank(pks: list[int], using: str) -> int:
    with promptly(using):
        locked = order.lock(pks, using=using)
        # Again, now that nobody else can change them.
        rows = Referral.objects.using(using).filter(pk__in=pks)
        final = set(rows.filter(_final(using)).values_list("pk", flat=True))
        over = final | set(rows.filter(_orphaned()).values_list("pk", flat=True))
        blank({pk: one for pk, one in locked.items() if pk in over}, using=using)
        # Not of those whose account alone is gone: it says to whom a reward is due.
        rows.filter(pk__in=final).update(referrer_code="")
    return len(over)
