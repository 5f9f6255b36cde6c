"""Celery's workers killed and stopped, alone and beside all other dispatchers. Beat sweeps every second meanwhile.

A sign-up (1) is never in a worker's hands: what is killed there is a web process, whoever delivers.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent
from tests.clock import let_pass
from tests.services.test_celery import dispatching

from . import servers
from .harness import (
    A_BUSY_MACHINE,
    LEASE,
    Child,
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
from .test_workers import CARRY, CONNECTIONS, IN_HAND, SETTLE
from .visitors import SignUps

pytestmark = pytest.mark.django_db(transaction=True)

BEAT = 1.0
ALONE: dict[str, Any] = {"threads": 1, "settings": {"DISPATCH": "celery", "CONCURRENCY": CONNECTIONS}}

Start = Callable[..., Child]


@pytest.mark.usefixtures("app")
def test_5_a_celery_worker_killed_between_the_answer_and_the_settling_loses_nothing(
    broker: servers.Broker,
    app: Celery,
    witness: Witness,
    start_celery: Start,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = size(2, 30)
    start_celery("beat")
    visitors = SignUps(witness)
    with dispatching(app, configure, monkeypatch):
        for _ in range(kills):
            visitors.more(3)
            victim = start_celery(hooks=[{"at": SETTLE, "act": "kill", "call": 2}], **ALONE)
            assert victim.wait() == -9
        visitors.end()
    start_celery(**ALONE)
    wait_until(rewards_done, "everything delivered and granted")
    result = audit(witness)
    assert result.repeated <= kills * IN_HAND
    counted(f"5, Celery, {type(broker).__name__}", kills=kills, sign_ups=visitors.done, events=result.events,
            duplicates=result.repeated, bound=kills * IN_HAND, rewards=result.rewards, lost=0)  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before the request", "after the answer"])
def test_6_what_a_killed_celery_worker_had_claimed_is_taken_again(
    after: bool, broker: servers.Broker, witness: Witness, start_celery: Start
) -> None:
    populate(witness, IN_HAND + 1)  # a process's first request goes alone
    start_celery("beat")
    victim = start_celery(hooks=[{"at": CARRY, "act": "kill", "after": after, "call": 2}], **ALONE)
    assert victim.wait() == -9
    assert (
        OutboundEvent.objects.filter(claim__isnull=False).count() == IN_HAND + 1
    )  # the next before the first is settled
    died = time.monotonic()
    start_celery(**ALONE)
    wait_until(all_final, "delivery")
    took = time.monotonic() - died
    assert took < LEASE + BEAT + A_BUSY_MACHINE
    result = audit(witness, paying=False)
    counted(f"6, Celery, {type(broker).__name__}", killed="after the answer" if after else "before the request",
            claimed=IN_HAND + 1, accepted_after_s=round(took, 2), lease_s=LEASE, sweep_s=BEAT,
            duplicates=result.repeated)  # fmt: skip


def test_8_a_celery_worker_that_slept_past_its_lease_adds_a_late_attempt_and_nothing_else(
    broker: servers.Broker, witness: Witness, nursery: Nursery, start_celery: Start
) -> None:
    rounds = size(1, 10)
    start_celery("beat")
    for number in range(rounds):
        (referral,) = populate(witness, 1)
        sleeper = start_celery(hooks=[{"at": SETTLE, "act": "stop"}], **ALONE)
        sleeper.await_stopped()
        let_pass(LEASE + 1)
        assert nursery.start("once", concurrency=1).wait() == 0
        before = {**referral.events.get().__dict__, "_state": None}
        assert before["state"] == "accepted"
        sleeper.send(signal.SIGCONT)
        late = DeliveryAttempt.objects.filter(event=before["id"], late=True)
        wait_until(late.exists, "the late attempt")
        assert {**referral.events.get().__dict__, "_state": None} == before, "no final state regresses"
        sleeper.stop()
        assert DeliveryAttempt.objects.count() == 2 * (number + 1)
    result = audit(witness, paying=False)
    assert result.repeated == rounds
    counted(f"8, Celery, {type(broker).__name__}", rounds=rounds, late_attempts=rounds, duplicates=result.repeated)


def test_all_dispatchers_at_once_with_kills_among_them(
    broker: servers.Broker,
    app: Celery,
    witness: Witness,
    nursery: Nursery,
    start_celery: Start,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = size(3, 90)
    thread = {"DISPATCH": "thread", "CONCURRENCY": CONNECTIONS}
    starts: dict[str, Callable[[], Child]] = {
        "web": lambda: nursery.start("web", settings=thread),
        "loop": lambda: nursery.start("loop", settings=thread),
        "celery": lambda: start_celery(**ALONE),
    }
    start_celery("beat")
    running = {name: start() for name, start in starts.items()}
    visitors = SignUps(witness)
    with dispatching(app, configure, monkeypatch):
        for number in range(kills):
            before = len(witness.real())
            visitors.more(3)
            witness.wait(before + random.randint(1, 4))
            name = list(starts)[number % len(starts)]
            running[name].kill()
            running[name] = starts[name]()
        visitors.end()
    wait_until(rewards_done, "everything delivered and granted")
    for child in running.values():
        child.stop(starting=True)
    result = audit(witness)
    assert result.repeated <= kills * IN_HAND
    counted(f"together, {type(broker).__name__}", dispatchers="thread, loop, Celery with beat", kills=kills,
            sign_ups=visitors.done, events=result.events, duplicates=result.repeated, bound=kills * IN_HAND,
            rewards=result.rewards, lost=0)  # fmt: skip
