"""Taking due events: a claim pushes the due time one lease ahead, so a dead worker's events come due again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import starmap
from typing import Any

from django.db import connections, transaction
from django.db.models import Case, F, Q, Value, When

from .. import protocol
from ..clock import DatabaseNow
from ..conf import REQUESTS_PER_CLAIM, conf
from ..models import OutboundEvent, Referral
from ..protocol import Kind
from .retry import retried
from .schedule import ahead

State = OutboundEvent.State

NEWEST = 100
"""Accepted tokens among which one is looked for that a dry run can carry."""


@dataclass(frozen=True)
class Claimed:
    """An event in a worker's hands."""

    pk: int
    referral_id: int
    server: str
    kind: Kind
    body: bytes = field(repr=False)
    token: str = field(repr=False)
    claim: uuid.UUID
    #: Monotonic time after which sending it could outlast the lease.
    begin_by: float


@dataclass(frozen=True)
class Subject:
    """The token that a dry run carries."""

    token: str = field(repr=False)
    #: Whether MMOLove has accepted this token: only then does a 404 to the dry run tell something.
    proven: bool


def claim(server: str, server_id: str, limit: int, *, using: str) -> list[Claimed]:
    """Claim up to ``limit`` due events of ``server``, the longest due first."""
    skip_locked = connections[using].features.has_select_for_update_skip_locked
    events = OutboundEvent.objects.using(using)
    due = events.filter(server=server, state=State.PENDING, due_at__lte=DatabaseNow())
    mark, begin_by = uuid.uuid4(), time.monotonic() + conf.lease - REQUESTS_PER_CLAIM * conf.deadline
    # Without SKIP LOCKED the UPDATE's own conditions decide between two workers, statement by statement; a
    # transaction would only make SQLite fail when it turns from reading to writing.
    around: AbstractContextManager[Any] = transaction.atomic(using=using) if skip_locked else nullcontext()
    with around:
        candidates = due.order_by("due_at", "pk").values_list("pk", flat=True)
        if skip_locked:
            candidates = candidates.select_for_update(skip_locked=True)
        pks = list(candidates[:limit])
        if not pks:
            return []
        due.filter(pk__in=pks).update(
            # First, as MariaDB assigns from left to right: a claim that nobody settled may have reached MMOLove.
            frozen=Case(When(claim__isnull=False, then=Value(True)), default=F("frozen")),
            claim=mark,
            due_at=ahead(conf.lease),
            attempts=F("attempts") + 1,
        )
        # No variable holds the rows: an error's report would show it, and with it every token.
        return list(
            starmap(
                partial(_in_hand, mark, begin_by, server, server_id, using),
                events.filter(pk__in=pks, claim=mark)
                .order_by("pk")
                .values_list("pk", "referral_id", "kind", "body", "referral__token", "frozen"),
            )
        )


def _in_hand(
    claim: uuid.UUID,
    begin_by: float,
    server: str,
    server_id: str,
    using: str,
    pk: int,
    referral_id: int,
    kind: str,
    body: bytes,
    token: str,
    frozen: bool,
) -> Claimed:
    event = Claimed(pk, referral_id, server, Kind(kind), bytes(body), token, claim, begin_by)
    del body, token  # hidden where they are now
    return event if frozen else _follow(event, server_id, using)


def _follow(event: Claimed, server_id: str, using: str) -> Claimed:
    """Nothing that could have counted went out under another server id, so the event follows the setting."""
    if protocol.server_id_of(event.body) == server_id:
        return event
    event = replace(event, body=protocol.with_server_id(event.body, server_id))
    OutboundEvent.objects.using(using).filter(pk=event.pk, claim=event.claim).update(body=event.body)
    return event


@retried
def release(events: Sequence[Claimed], *, using: str) -> None:
    """Give back what was claimed and not sent: due now, the attempt not counted."""
    held = Q(pk__in=[event.pk for event in events], claim__in={event.claim for event in events})
    OutboundEvent.objects.using(using).filter(held, state=State.PENDING).update(
        claim=None, due_at=DatabaseNow(), attempts=F("attempts") - 1
    )


@retried
def probe_subject(server: str, *, using: str) -> Subject | None:
    """The token for a dry run: one that MMOLove has accepted, else the oldest open event's; ``None`` without either."""
    registered = Referral.objects.using(using).filter(server=server, registered_at__isnull=False)
    # Among the newest, as where nobody signs up any more all may be blanked.
    newest = registered.order_by("-registered_at").values_list("token", flat=True)[:NEWEST]
    proven = next(filter(None, newest), None)
    if proven:
        return Subject(proven, proven=True)
    pending = OutboundEvent.objects.using(using).filter(server=server, state=State.PENDING)
    token = (
        pending.exclude(referral__token="").order_by("due_at", "pk").values_list("referral__token", flat=True).first()
    )
    return Subject(token, proven=False) if token else None
