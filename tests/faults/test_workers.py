"""Workers that die, stop or crowd each other. Real processes, a real socket to MMOLove, the run's own database."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from django_mmolove_referral import mark_qualified
from django_mmolove_referral.delivery.pool import AHEAD
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass

from .harness import (
    A_BUSY_MACHINE,
    LEASE,
    SWEEP,
    Nursery,
    Witness,
    all_final,
    audit,
    counted,
    populate,
    rewards_done,
    size,
    wait_until,
)
from .visitors import SignUps

pytestmark = pytest.mark.django_db(transaction=True)

SETTLE = "django_mmolove_referral.delivery.drain:settle"
CARRY = "django_mmolove_referral.delivery.send:Channel.carry"
CONNECTIONS = 2
IN_HAND = CONNECTIONS * AHEAD
"""Events that a worker has claimed for its threads at the most: one for each, and those claimed ahead."""


@pytest.mark.parametrize("job", ["loop", "web"])
def test_5_a_worker_killed_between_the_answer_and_the_settling_loses_nothing(
    job: str, witness: Witness, nursery: Nursery
) -> None:
    kills = size(6, 300 if job == "loop" else 30)
    settings: dict[str, Any] = {"DISPATCH": "thread", "CONCURRENCY": CONNECTIONS}
    visitors = SignUps(witness)
    for _ in range(kills):
        visitors.more(3)
        # At the second: a process's first request goes alone.
        victim = nursery.start(job, settings=settings, hooks=[{"at": SETTLE, "act": "kill", "call": 2}])
        assert victim.wait() == -9
    visitors.end()
    killed = len(witness.real())
    last = nursery.start(job, settings=settings)
    wait_until(rewards_done, "everything delivered and granted")
    last.stop()
    result = audit(witness)
    assert result.repeated <= kills * IN_HAND
    counted(
        f"5, {job}",
        kills=kills,
        sign_ups=visitors.done,
        events=result.events,
        requests=result.requests,
        requests_before_the_last_kill=killed,
        duplicates=result.repeated,
        bound=kills * IN_HAND,
        rewards=result.rewards,
        lost=0,
    )


@pytest.mark.parametrize(
    ("at", "after"), [(CARRY, False), (CARRY, True)], ids=["before the request", "after the answer"]
)
def test_6_what_a_killed_worker_had_claimed_is_taken_again_within_lease_and_sweep(
    at: str, after: bool, witness: Witness, nursery: Nursery
) -> None:
    populate(witness, IN_HAND + 1)  # a process's first request goes alone
    hooks = [{"at": at, "act": "kill", "after": after, "call": 2}]
    victim = nursery.start("loop", concurrency=CONNECTIONS, hooks=hooks)
    assert victim.wait() == -9
    claimed = OutboundEvent.objects.filter(claim__isnull=False).count()
    assert claimed == IN_HAND + 1  # the next were claimed before the first was settled
    died = time.monotonic()
    nursery.start("loop", concurrency=CONNECTIONS)
    wait_until(all_final, "delivery")
    took = time.monotonic() - died
    assert took < LEASE + SWEEP + A_BUSY_MACHINE
    result = audit(witness, paying=False)
    counted("6", killed="after the answer" if after else "before the request", claimed=claimed,
            accepted_after_s=round(took, 2), lease_s=LEASE, sweep_s=SWEEP, duplicates=result.repeated)  # fmt: skip


def test_7_eight_workers_send_each_event_exactly_once(witness: Witness, nursery: Nursery) -> None:
    number = size(200, 20_000)
    populate(witness, number)
    begun = time.monotonic()
    workers = [nursery.start("loop", concurrency=8, settings={"LEASE": 120, "DEADLINE": 15}) for _ in range(8)]
    wait_until(all_final, "delivery", 1800)
    took = time.monotonic() - begun
    for worker in workers:
        worker.stop()
    result = audit(witness)
    assert (result.events, result.requests, result.repeated) == (number, number, 0)
    assert OutboundEvent.objects.filter(attempts=1).count() == number
    assert DeliveryAttempt.objects.filter(late=False).count() == number
    counted("7", workers=8, events=number, requests=result.requests, duplicates=0, seconds=round(took, 1))


@pytest.mark.parametrize("at", [SETTLE, CARRY], ids=["before settling", "before sending"])
def test_8_a_worker_that_slept_past_its_lease_adds_a_late_attempt_and_nothing_else(
    at: str, witness: Witness, nursery: Nursery
) -> None:
    rounds = size(3, 25)
    for _ in range(rounds):
        (referral,) = populate(witness, 1)
        sleeper = nursery.start("once", concurrency=1, hooks=[{"at": at, "act": "stop"}])
        sleeper.await_stopped()
        let_pass(LEASE + 1)
        assert nursery.start("once", concurrency=1).wait() == 0
        event = referral.events.get()
        before = {**event.__dict__, "_state": None}
        assert event.state == "accepted"
        sleeper.send(signal.SIGCONT)
        assert sleeper.wait() == 0
        after = {**referral.events.get().__dict__, "_state": None}
        assert after == before, "no final state regresses"
        attempts = DeliveryAttempt.objects.filter(event=event).values_list("late", flat=True)
        assert sorted(attempts) == [False, True]
    result = audit(witness, paying=False)
    assert result.repeated == rounds
    counted("8", stopped=at.rpartition(":")[2], rounds=rounds, late_attempts=rounds, duplicates=result.repeated)


def test_8_a_late_ignored_stops_a_reward_that_is_due(witness: Witness, nursery: Nursery) -> None:
    rounds = size(2, 25)
    for _ in range(rounds):
        (referral,) = populate(witness, 1)
        assert nursery.start("once", receiver=False).wait() == 0
        mark_qualified(referral.user)
        witness.script(Fault(status=200, body={"ok": True, "ignored": "first_touch_conflict"}))
        sleeper = nursery.start("once", receiver=False, hooks=[{"at": SETTLE, "act": "stop"}])
        sleeper.await_stopped()
        let_pass(LEASE + 1)
        witness.script(Fault(status=200, body={"ok": True, "duplicate": True}))
        assert nursery.start("once", receiver=False).wait() == 0
        assert Reward.objects.get(referral=referral).state == "due"
        sleeper.send(signal.SIGCONT)
        assert sleeper.wait() == 0
        assert Reward.objects.get(referral=referral).state == "cancelled"
        assert Referral.objects.get(pk=referral.pk).state == "conflict"
    let_pass(100_000)
    assert nursery.start("once").wait() == 0
    result = audit(witness)
    assert result.rewards == 0
    counted("8", late_ignored=rounds, rewards_stopped=rounds, rewards_granted=result.rewards)
