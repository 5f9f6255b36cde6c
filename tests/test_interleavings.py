"""Two at once, on connections of their own: one is done but not committed when the other comes.

Where there are row locks the other waits in between, or passes the locked rows over; SQLite lets only one write at a
time. What comes out is the same, and that is what is asserted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import pytest
from django.db import connections, transaction

from django_mmolove_referral import attach_referral, mark_qualified, mark_reversed
from django_mmolove_referral.client import Attempt
from django_mmolove_referral.delivery import health
from django_mmolove_referral.delivery.claim import Claimed, claim
from django_mmolove_referral.delivery.operate import cancel, redeliver
from django_mmolove_referral.delivery.rewards import grant_due
from django_mmolove_referral.delivery.send import Ruling, Sent
from django_mmolove_referral.delivery.settle import settle
from django_mmolove_referral.delivery.sweep import sweep
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward
from django_mmolove_referral.protocol import classify
from django_mmolove_referral.signals import referral_qualified, server_paused

from .clock import let_pass
from .conftest import Granted, Hear, Table
from .portal import create

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 60.0
A_MOMENT = 0.2
"""Seconds that the other is given: time enough to go wrong, were there no lock. What must come out waits for none."""
A_LEASE, A_LIFETIME = 121, 90 * 86_400 + 1

both_orders = pytest.mark.parametrize("turn", [1, -1], ids=["first", "last"])

One = TypeVar("One")
Two = TypeVar("Two")
Result = TypeVar("Result")


def elsewhere(work: Callable[[], Result]) -> Future[Result]:
    """``work`` in a thread with a database connection of its own."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            connections.close_all()
            future.set_exception(error)
        else:
            connections.close_all()
            future.set_result(result)

    threading.Thread(target=run, daemon=True).start()
    return future


def overlap(one: Callable[[], One], two: Callable[[], Two]) -> tuple[One, Two]:
    """``two`` comes when ``one`` is done and not committed."""
    with transaction.atomic():
        first = one()
        second = elsewhere(two)
        wait([second], timeout=A_MOMENT)
    return first, second.result(PATIENCE)


def at_once(work: Callable[[], Result], times: int = 5) -> list[Result]:
    start = threading.Barrier(times)

    def run() -> Result:
        start.wait(PATIENCE)
        return work()

    return [future.result(PATIENCE) for future in [elsewhere(run) for _ in range(times)]]


def take(limit: int = 100) -> list[Claimed]:
    return claim("default", "srv_test", limit, using="default")


def answered(event: Claimed, status: int = 200, **fields: Any) -> Sent:
    body = json.dumps({"ok": status == 200, **fields}).encode()
    answer = classify(event.kind, status, body)
    attempt = Attempt(time.time(), 0.0, int(time.time()), status, answer, body, "", None)
    return Sent(event, Ruling(answer.verdict.value), (attempt,))


def finish(*results: Sent) -> None:
    settle(results, using="default")


def grant() -> int:
    return grant_due(using="default")


@pytest.fixture
def bob() -> Any:
    """A referred account; ``registered`` is due."""
    user = create("bob@example.com")
    attach_referral(user, "bobs-mmref-token")
    return user


@pytest.fixture
def registered(bob: Any) -> Any:
    (event,) = take()
    finish(answered(event, referral_id="ref_1"))
    return bob


@pytest.fixture
def qualified(registered: Any) -> Any:
    """The reward is due."""
    mark_qualified(registered)
    (event,) = take()
    finish(answered(event))
    return registered


# -- order


@both_orders
def test_qualified_never_waits_for_a_registered_that_is_being_accepted(bob: Any, table: Table, turn: int) -> None:
    (event,) = take()
    sides = [lambda: finish(answered(event)), lambda: mark_qualified(bob)]
    overlap(*sides[::turn])
    assert table.states() == {"registered": "accepted", "qualified": "pending"}


@both_orders
def test_reversed_never_waits_for_a_qualified_that_is_being_cancelled(registered: Any, table: Table, turn: int) -> None:
    mark_qualified(registered)
    take()
    let_pass(A_LEASE)  # it may have been sent, so the reversal has to follow it
    sides = [lambda: cancel(table.event("qualified")), lambda: mark_reversed(registered)]
    overlap(*sides[::turn])
    assert table.states() == {"registered": "accepted", "qualified": "cancelled", "reversed": "pending"}


def test_a_token_that_ages_while_registered_is_accepted_ends_nothing(bob: Any, table: Table) -> None:
    mark_qualified(bob)
    (event,) = take()
    let_pass(A_LIFETIME)
    overlap(lambda: finish(answered(event)), lambda: sweep(using="default"))
    assert table.referral.state == "registered"
    assert table.states() == {"registered": "accepted", "qualified": "pending"}


def test_a_registered_that_is_accepted_while_its_token_ages_revives_nothing(bob: Any, table: Table) -> None:
    mark_qualified(bob)
    (event,) = take()
    let_pass(A_LIFETIME)
    overlap(lambda: sweep(using="default"), lambda: finish(answered(event)))
    assert table.referral.state == "expired"
    assert table.states() == {"registered": "accepted", "qualified": "cancelled"}


# -- claims


def test_no_event_is_in_two_workers_hands(db: None) -> None:
    for number in range(40):
        attach_referral(create(f"player{number}@example.com"), f"token-{number}")

    def work() -> list[int]:
        taken = []
        while events := take(3):
            taken += [event.pk for event in events]
        return taken

    taken = [pk for pks in at_once(work) for pk in pks]
    taken += work()  # a worker that finds the due rows locked takes none
    assert sorted(taken) == sorted(OutboundEvent.objects.values_list("pk", flat=True))
    assert set(OutboundEvent.objects.values_list("attempts", flat=True)) == {1}


def test_an_event_that_is_being_claimed_is_not_claimed_again(bob: Any) -> None:
    first, second = overlap(take, take)
    assert (len(first), len(second)) == (1, 0)


def test_an_event_that_is_being_claimed_is_not_cancelled(bob: Any, table: Table) -> None:
    (event,), cancelled = overlap(take, lambda: cancel(table.event("registered")))
    assert not cancelled
    finish(answered(event))
    assert table.states() == {"registered": "accepted"}


def test_an_event_that_is_being_cancelled_is_not_claimed(bob: Any, table: Table) -> None:
    event = table.event("registered")
    assert overlap(lambda: cancel(event), take) == (True, [])
    assert table.states() == {"registered": "cancelled"}


def test_an_event_in_flight_is_not_redelivered(bob: Any, table: Table) -> None:
    (event,), again = overlap(take, lambda: redeliver(table.event("registered"), force=True))
    assert not again
    finish(answered(event))
    assert take() == []


def test_an_event_that_is_being_settled_is_redelivered_afterwards(bob: Any, table: Table) -> None:
    (event,) = take()
    row = table.event("registered")
    _, again = overlap(lambda: finish(answered(event, 422)), lambda: redeliver(row))
    assert again
    assert len(take()) == 1


def test_an_event_is_redelivered_once(bob: Any, table: Table) -> None:
    (event,) = take()
    finish(answered(event, 422))
    row = table.event("registered")
    assert sorted(at_once(lambda: redeliver(row))) == [False] * 4 + [True]
    assert len(take()) == 1


# -- late results


def test_who_settles_while_another_claims_is_late(bob: Any, table: Table) -> None:
    (lost,) = take()
    let_pass(A_LEASE)
    (held,), _ = overlap(take, lambda: finish(answered(lost, 422)))
    assert table.event("registered").claim == held.claim
    finish(answered(held))
    assert table.states() == {"registered": "accepted"}
    assert list(DeliveryAttempt.objects.order_by("pk").values_list("status", "late")) == [(422, True), (200, False)]


def test_who_claims_while_another_settles_after_its_lease_gets_nothing(bob: Any, table: Table) -> None:
    (event,) = take()
    let_pass(A_LEASE)
    assert overlap(lambda: finish(answered(event)), take) == (None, [])
    assert table.states() == {"registered": "accepted"}


@both_orders
def test_a_duplicate_hides_no_ignored_whichever_is_settled_first(registered: Any, table: Table, turn: int) -> None:
    mark_qualified(registered)
    (lost,) = take()
    let_pass(A_LEASE)
    (held,) = take()
    sides = [
        lambda: finish(answered(held, duplicate=True)),
        lambda: finish(answered(lost, ignored="first_touch_conflict")),
    ]
    overlap(*sides[::turn])
    assert table.event("qualified").outcome == "ignored"
    assert table.referral.state == "conflict"
    assert not Reward.objects.filter(state="due").exists()


@both_orders
def test_a_late_ignored_cancels_the_reward_or_comes_too_late(
    registered: Any, granted: Granted, table: Table, turn: int
) -> None:
    mark_qualified(registered)
    (lost,) = take()
    let_pass(A_LEASE)
    (held,) = take()
    finish(answered(held, duplicate=True))
    sides = [lambda: finish(answered(lost, ignored="first_touch_conflict")), grant]
    overlap(*sides[::turn])
    told = (table.reward.state, table.referral.state, len(granted))
    assert told == (("cancelled", "conflict", 0) if turn == 1 else ("granted", "qualified", 1))


# -- rewards


def test_a_reward_is_granted_once_by_two(qualified: Any, granted: Granted, table: Table) -> None:
    assert overlap(grant, grant) == (1, 0)
    assert granted == [table.referral]


def test_a_reward_is_granted_once_by_five(qualified: Any, granted: Granted, table: Table) -> None:
    assert sum(at_once(grant)) == 1
    assert granted == [table.referral]


def test_a_reward_whose_receiver_fails_is_granted_by_who_comes_next(qualified: Any, table: Table) -> None:
    others: list[Future[int]] = []
    told: list[Referral] = []

    def fail_once(referral: Referral, **kwargs: Any) -> None:
        if not others:
            others.append(elsewhere(grant))
            wait(others, timeout=A_MOMENT)
            raise RuntimeError("the economy is closed")
        told.append(referral)

    referral_qualified.connect(fail_once)
    try:
        assert grant() == 0
        others[0].result(PATIENCE)
        let_pass(A_LEASE)  # the other one may have come before or after the failure was written down
        grant()
    finally:
        referral_qualified.disconnect(fail_once)
    assert table.reward.state == "granted"
    assert told == [table.referral]


@both_orders
def test_a_reward_is_either_granted_or_reversed(qualified: Any, granted: Granted, table: Table, turn: int) -> None:
    sides: list[Callable[[], Any]] = [grant, lambda: mark_reversed(qualified)]
    overlap(*sides[::turn])
    assert (table.reward.state, len(granted)) == (("granted", 1) if turn == 1 else ("cancelled", 0))
    assert table.referral.state == "reversed"
    assert table.states()["reversed"] == "pending"


@both_orders
def test_a_reversal_meets_the_acceptance_of_qualified(
    registered: Any, granted: Granted, table: Table, turn: int
) -> None:
    mark_qualified(registered)
    (event,) = take()
    sides: list[Callable[[], Any]] = [lambda: finish(answered(event)), lambda: mark_reversed(registered)]
    overlap(*sides[::turn])
    assert grant() == 0
    assert not Reward.objects.filter(state="due").exists()
    assert table.referral.state == "reversed"
    assert table.states() == {"registered": "accepted", "qualified": "accepted", "reversed": "pending"}


# -- accounts


@both_orders
def test_an_account_is_deleted_while_its_event_is_settled(bob: Any, table: Table, turn: int) -> None:
    mark_qualified(bob)
    (event,) = take()
    sides: list[Callable[[], Any]] = [bob.delete, lambda: finish(answered(event, referral_id="ref_1"))]
    overlap(*sides[::turn])
    assert_forgotten(table)
    assert table.states()["qualified"] == "cancelled"
    assert DeliveryAttempt.objects.get().late == (turn == 1)


@both_orders
def test_an_account_is_deleted_while_its_event_is_claimed(bob: Any, table: Table, turn: int) -> None:
    sides: list[Callable[[], Any]] = [bob.delete, take]
    _, claimed = overlap(*sides[::turn])[::turn]
    finish(*(answered(event) for event in claimed))
    assert_forgotten(table)
    assert table.states() == {"registered": "cancelled"}


@both_orders
def test_an_account_is_deleted_while_it_qualifies(registered: Any, table: Table, turn: int) -> None:
    same = type(registered)._default_manager.get()
    sides: list[Callable[[], Any]] = [registered.delete, lambda: mark_qualified(same)]
    overlap(*sides[::turn])
    assert_forgotten(table)
    assert take() == []


def assert_forgotten(table: Table) -> None:
    assert (table.referral.user, table.referral.token) == (None, "")
    for event in OutboundEvent.objects.all():
        assert bytes(event.body) == b""
        assert not event.open


def test_an_account_that_is_attached_twice_at_once_gets_one_referral(db: None, table: Table) -> None:
    user = create("bob@example.com")
    one, two = overlap(lambda: attach_referral(user, "token-1"), lambda: attach_referral(user, "token-2"))
    assert one == two == table.referral
    assert table.referral.token == "token-1"
    assert table.states() == {"registered": "pending"}


def test_an_account_that_is_attached_by_five_at_once_gets_one_referral(db: None, table: Table) -> None:
    user = create("bob@example.com")
    assert at_once(lambda: attach_referral(user, "token")) == [table.referral] * 5
    assert table.states() == {"registered": "pending"}


def test_a_milestone_that_five_report_at_once_is_one_event(bob: Any, table: Table) -> None:
    assert at_once(lambda: mark_qualified(bob)) == [table.event("qualified")] * 5


# -- the server's health


def test_a_server_is_paused_once(db: None, hear: Hear, table: Table) -> None:
    told = hear(server_paused)
    at_once(lambda: health.pause("default", "HTTP 503", using="default"))
    assert table.health.state == "paused"
    assert len(told) == 1


@pytest.fixture
def paused(db: None) -> None:
    """The next dry run is due."""
    health.pause("default", "HTTP 503", using="default")
    let_pass(A_LEASE)


def probe() -> bool:
    return health.take_probe("default", using="default")


def test_one_of_two_probes(paused: None) -> None:
    assert overlap(probe, probe) == (True, False)


def test_one_of_five_probes(paused: None) -> None:
    assert sum(at_once(probe)) == 1


def test_one_of_five_that_found_it_well_sends_the_canary(paused: None) -> None:
    assert probe()
    assert sum(at_once(lambda: health.half_open("default", using="default"))) == 1
