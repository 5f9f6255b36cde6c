"""What fails at an open server: told from the first fault on, and over with the first success."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from django_mmolove_referral.delivery import failing as module
from django_mmolove_referral.delivery.failing import Failing, failing
from django_mmolove_referral.models import OutboundEvent, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass
from tests.factories import EventFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
LATER = NOW + timedelta(minutes=5)


def failed(**values: Any) -> OutboundEvent:
    fields = {"attempts": 1, "attempted_at": NOW, "due_at": LATER, "last_status": 503, "last_error": "HTTP 503"}
    event: OutboundEvent = EventFactory.create(**{**fields, **values})
    return event


def health(**values: Any) -> ServerHealth:
    return ServerHealth(server="default", **values)


def test_nothing_fails_where_nothing_was_tried() -> None:
    EventFactory.create()
    assert failing("default", None) is None
    assert failing("default", health(last_success_at=NOW)) is None


def test_what_failed_is_told_with_the_earliest_next_try() -> None:
    failed(due_at=LATER + timedelta(minutes=1), last_status=0, last_error="connection refused")
    failed()
    failed(referral__server="eu", due_at=NOW)
    EventFactory.create(due_at=NOW)
    assert failing("default", None) == Failing(2, 0, "connection refused", LATER)


@pytest.mark.parametrize("state", ["waiting", "accepted", "rejected", "exhausted", "cancelled"])
def test_only_what_is_sent_again_by_itself_counts(state: str) -> None:
    failed(state=state)
    assert failing("default", None) is None


def test_a_success_since_then_ends_it() -> None:
    failed()
    assert failing("default", health(last_success_at=NOW - timedelta(seconds=1))) is not None
    assert failing("default", health(last_success_at=NOW + timedelta(seconds=1))) is None


@pytest.mark.parametrize("state", ["paused", "half_open"])
def test_a_pause_says_it_all(state: str) -> None:
    failed()
    assert failing("default", health(state=state)) is None


def test_what_a_worker_has_in_hand_has_no_next_try() -> None:
    failed(claim=uuid4())
    assert failing("default", None) == Failing(1, 503, "HTTP 503", None)


def test_it_is_found_behind_any_number_that_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 2)
    failed()
    EventFactory.create_batch(4, due_at=NOW)
    assert failing("default", None) == Failing(1, 503, "HTTP 503", LATER)


def test_a_success_ends_it_although_another_was_noted_a_moment_ago(
    registered: Any, sign_up: Callable[..., Any], sandbox: Sandbox, drain: Callable[..., Any]
) -> None:
    """Successes are noted once a minute. One that follows a fault is news, and noted at once."""
    sign_up()
    sandbox.script(Fault(status=503))
    drain()
    assert failing("default", ServerHealth.objects.get()) is not None
    sign_up()
    drain()
    assert failing("default", ServerHealth.objects.get()) is None
    let_pass(60)
    drain()
    assert not OutboundEvent.objects.filter(state="pending").exists()
