"""What an operator may do to an event, and what not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_mmolove_referral import mark_qualified, mark_reversed
from django_mmolove_referral.delivery.claim import claim
from django_mmolove_referral.delivery.operate import cancel, may_cancel, redeliver
from django_mmolove_referral.models import OutboundEvent
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass
from tests.conftest import Table

pytestmark = pytest.mark.django_db

Drain = Callable[..., Any]


def test_a_rejected_event_is_sent_again_and_frees_what_waited_for_it(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    mark_qualified(bob)
    sandbox.script(Fault(status=400, body={"error": "no"}))
    drain()
    assert table.states() == {"registered": "rejected", "qualified": "waiting"}
    assert redeliver(table.event("registered"))
    drain()
    assert table.states() == {"registered": "accepted", "qualified": "accepted"}
    assert table.event("registered").reason == ""


def test_a_cancelled_event_stays_cancelled_until_it_is_redelivered(bob: Any, drain: Drain, table: Table) -> None:
    assert cancel(table.event("registered"))
    drain()
    assert (table.event("registered").state, table.event("registered").reason) == ("cancelled", "operator")
    assert not cancel(table.event("registered"))
    assert redeliver(table.event("registered"))
    drain()
    assert table.event("registered").state == "accepted"


def test_an_event_in_a_workers_hands_is_not_touched(bob: Any, table: Table) -> None:
    (held,) = claim("default", "srv_test", 10, using="default")
    event = table.event("registered")
    assert not cancel(event)
    assert not redeliver(event, force=True)
    assert table.event("registered").claim == held.claim
    let_pass(121)  # the lease has ended: nobody holds it any more
    assert cancel(event)


def test_a_redelivered_qualified_waits_for_registered(bob: Any, sandbox: Sandbox, drain: Drain, table: Table) -> None:
    mark_qualified(bob)
    cancel(table.event("qualified"))
    assert redeliver(table.event("qualified"))
    assert table.event("qualified").state == "waiting"


def test_cancelling_qualified_lets_a_waiting_reversed_go(registered: Any, table: Table) -> None:
    mark_qualified(registered)
    claim("default", "srv_test", 10, using="default")
    mark_reversed(registered)
    assert table.states()["reversed"] == "waiting"
    let_pass(121)
    assert cancel(table.event("qualified"))
    assert table.states()["reversed"] == "pending"


def test_what_a_reversal_or_a_deletion_cancelled_cannot_be_redelivered(registered: Any, table: Table) -> None:
    mark_qualified(registered)
    mark_reversed(registered)
    assert table.event("qualified").reason == "reversed"
    assert not redeliver(table.event("qualified"), force=True)
    registered.delete()
    assert not OutboundEvent.objects.filter(state__in=["pending", "waiting"]).exists()
    for event in OutboundEvent.objects.all():
        assert not redeliver(event, force=True)


@pytest.mark.parametrize("state", ["rejected", "exhausted"])
def test_what_failed_and_nothing_can_be_made_of_is_cancelled(state: str, bob: Any, drain: Drain, table: Table) -> None:
    """Redelivering it first would send it once more, and it would fail before anybody could cancel it."""
    OutboundEvent.objects.update(state=state, attempts=3, last_status=400)
    assert may_cancel(table.event("registered"))
    assert cancel(table.event("registered"))
    event = table.event("registered")
    assert (event.state, event.reason, event.attempts) == ("cancelled", "operator", 3)
    assert not may_cancel(event)
    assert redeliver(event), "somebody may think better of it"
    drain()
    assert not may_cancel(table.event("registered"))
    assert not cancel(table.event("registered")), "what was accepted is done"
