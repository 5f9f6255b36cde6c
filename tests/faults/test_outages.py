"""MMOLove away for hours, clocks that are off, credentials that change: with real workers and hours that pass at once.

Hours pass by moving what is stored into the past (``tests.clock``), and clocks by a file that children read.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db.models import ExpressionWrapper, F, Min
from django.db.models.fields import DurationField

from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.models import OutboundEvent, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault, only_real
from tests.clock import let_pass
from tests.conftest import SECRET, SERVER_ID

from .harness import LEASE, PATIENCE, Clock, Nursery, Witness, all_final, audit, counted, populate, size, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600.0
QUICK = {"SWEEP_INTERVAL": 0.1}


@pytest.fixture
def proven(witness: Witness, nursery: Nursery) -> None:
    """A portal that MMOLove has accepted something from: it has a token for its dry runs."""
    populate(witness, 1)
    assert nursery.start("once").wait() == 0


def health() -> ServerHealth:
    return ServerHealth.objects.get()


def settled() -> bool:
    return not OutboundEvent.objects.filter(claim__isnull=False).exists()


def paused(lease: float = LEASE) -> bool:
    """No probe is under way (whoever sends one has a lease) and none is due."""
    later = DatabaseNow() + timedelta(seconds=lease + 2)
    return ServerHealth.objects.filter(state="paused", probe_at__gt=later).exists() and settled()


def await_silence(witness: Witness, lease: float = LEASE) -> None:
    """Paused, and whoever had looked just before that has sent what it took then."""
    sent = -1
    while sent != len(witness.real()):
        sent = len(witness.real())
        wait_until(lambda: paused(lease), "the pause")
        time.sleep(10 * QUICK["SWEEP_INTERVAL"])  # each worker looks again several times


def pass_one_interval() -> float:
    """As much time passes as lies between two probes."""
    interval = health().probe_interval
    ServerHealth.objects.update(probe_at=F("probe_at") - timedelta(seconds=interval))
    return interval


@pytest.mark.usefixtures("proven")
def test_12_six_hours_away_with_a_backlog(witness: Witness, nursery: Nursery) -> None:
    number, away = size(300, 50_000), size(1, 6) * HOUR
    # So many at once may keep the one process that plays MMOLove for longer than the short deadline.
    lease = 120
    settings = {**QUICK, "DEADLINE": 15, "LEASE": lease, "PROBE_INTERVAL": (150, 300)}
    witness.outage()
    populate(witness, number)
    workers = [nursery.start("loop", concurrency=8, settings=settings) for _ in range(3)]
    await_silence(witness, lease)
    real, probes, passed = len(witness.real()), len(witness.dry_runs()), 0.0
    while passed < away:
        before = len(witness.dry_runs())
        passed += pass_one_interval()
        witness.wait(before + 1, test=True)
        wait_until(lambda: paused(lease), "the probe's failure noted")
    assert len(witness.real()) == real, "while it is down nothing but dry runs leaves"
    probes = len(witness.dry_runs()) - probes
    witness.clear_faults()
    let_pass(0)
    pass_one_interval()
    wait_until(all_final, "delivery", 1800)
    for worker in workers:
        worker.stop()
    result = audit(witness)
    assert result.repeated <= real - 1
    warnings = [line for line in nursery.said() if "MMOLove server" in line]
    assert len(warnings) == 1, warnings  # that it goes on needs no person: INFO
    counted(
        "12",
        hours_away=round(passed / HOUR, 1),
        backlog=number,
        workers=3,
        real_requests_before_the_pause=real - 1,
        probes_while_down=probes,
        real_requests_while_down=0,
        delivered_after_the_next_probe=number,
        log_lines=len(warnings),
    )


@pytest.mark.usefixtures("proven")
def test_12_the_write_path_failing_while_dry_runs_pass(witness: Witness, nursery: Nursery) -> None:
    number, intervals = size(100, 1000), size(4, 20)
    witness.script(Fault(status=500, when=only_real), times=None)
    populate(witness, number)
    workers = [nursery.start("loop", concurrency=8, settings=QUICK) for _ in range(3)]
    await_silence(witness)
    for _ in range(intervals):
        real, dry_runs = len(witness.real()), len(witness.dry_runs())
        pass_one_interval()
        witness.wait(real + 1)
        wait_until(paused, "the canary's failure noted")
        assert (len(witness.real()) - real, len(witness.dry_runs()) - dry_runs) == (1, 1)
    witness.clear_faults()
    pass_one_interval()
    wait_until(all_final, "delivery")
    for worker in workers:
        worker.stop()
    audit(witness)
    counted("12, write path", intervals=intervals, workers=3, canaries=intervals, dry_runs=intervals, lost=0)


@pytest.mark.parametrize("witness", [{"dry_run_checks_token": True}], indirect=True)
def test_13_what_fails_at_once_is_spread(witness: Witness, nursery: Nursery) -> None:
    number, bins = size(400, 10_000), size(8, 20)
    # 404, to dry runs as well, and no token that would tell whose fault it is: each goes on its own schedule.
    populate(Sandbox({SERVER_ID: SECRET}), number)
    nursery.start("loop", concurrency=16, settings={"RETRY_SCHEDULE": [HOUR, HOUR]})
    wait_until(lambda: not OutboundEvent.objects.filter(attempts=0).exists() and settled(), "one attempt each", 1800)
    waits = [
        (event.due_at - event.attempted_at).total_seconds()
        for event in OutboundEvent.objects.only("due_at", "attempted_at")
        if event.attempted_at
    ]
    assert len(waits) == number
    first, last = 0.8 * HOUR, 1.2 * HOUR
    assert first <= min(waits)
    assert max(waits) < last + 5  # the attempt itself took a moment
    filled = Counter(min(int((wait - first) / (last - first) * bins), bins - 1) for wait in waits)
    fullest, emptiest = max(filled.values()), min(filled[place] for place in range(bins))
    mean = number / bins
    assert emptiest > 0.4 * mean
    assert fullest < 1.6 * mean
    counted("13", events=number, nominal_wait_s=HOUR, shortest_s=round(min(waits)), longest_s=round(max(waits)),
            parts_of_the_range=bins, fullest_part=fullest, emptiest_part=emptiest)  # fmt: skip


def _seconds_to_the_next() -> float:
    left = OutboundEvent.objects.filter(state="pending").aggregate(
        left=ExpressionWrapper(Min(F("due_at")) - DatabaseNow(), output_field=DurationField())
    )["left"]
    return float(left.total_seconds())


def test_18_seventy_two_hours_of_retries(witness: Witness, nursery: Nursery, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    real_clock = witness.clock
    witness.clock = lambda: real_clock() + clock.ahead
    hopeless, late = populate(witness, 2)
    failing = {str(hopeless.user_id), str(late.user_id)}
    witness.script(Fault(status=500, when=lambda fields: fields["referee_identity"] in failing), times=None)
    while OutboundEvent.objects.filter(state="pending").exists():
        wait = max(_seconds_to_the_next(), 0.0) + 0.1
        let_pass(wait)
        clock.set(clock.ahead + wait)
        if late.events.get().attempts == 10:
            failing.discard(str(late.user_id))
        assert nursery.start("once", clock=clock.order()).wait() == 0
    assert (hopeless.events.get().state, hopeless.events.get().attempts) == ("exhausted", 11)
    assert (late.events.get().state, late.events.get().attempts) == ("accepted", 11)
    result = audit(witness, states=("accepted", "exhausted"))
    worst = max(abs(request.signed - request.at) for request in witness.real())
    assert worst <= 300
    assert not [request for request in witness.requests if request.status == 401]
    assert clock.ahead > 55 * HOUR  # 70.4 h, ±20 % for each step
    counted("18", hours=round(clock.ahead / HOUR, 1), requests=result.requests, farthest_t_s=round(worst, 1),
            bodies_per_event=1, refused_signatures=0)  # fmt: skip


def test_19_a_clock_that_is_off_on_one_worker_of_two(witness: Witness, nursery: Nursery, tmp_path: Path) -> None:
    number, clock = size(40, 500), Clock(tmp_path)
    witness.script(Fault(delay=0.02), times=None)  # both get something to do
    changes = [600.0, -600.0, 86_400.0, -86_400.0, 0.0]
    clock.set(changes[-2])
    nursery.start("loop", concurrency=8, clock=clock.order())
    nursery.start("loop", concurrency=8)
    for ahead in changes:
        populate(witness, number)
        seen = len(witness.real())
        witness.wait(seen + number // 4)
        clock.set(ahead)  # while it is at work
        wait_until(all_final, "delivery")
    refused = Counter(request.status for request in witness.real())[401]
    result = audit(witness)
    assert result.repeated == refused, "no lease was taken for over: nothing was sent twice but what was refused"
    assert refused <= 1 + len(changes)
    counted("19", workers=2, off_from_the_start=1, changes=len(changes), events=result.events, refused=refused,
            duplicates=result.repeated - refused, lost=0)  # fmt: skip


@pytest.mark.usefixtures("proven")
def test_20_a_secret_rotated_under_load(witness: Witness, nursery: Nursery, tmp_path: Path) -> None:
    number, secret = size(200, 5000), tmp_path / "secret"
    secret.write_text(SECRET)
    order: dict[str, Any] = {"settings": QUICK, "secret_file": str(secret)}
    witness.script(Fault(delay=0.01), times=None)
    arrivals = count(1)

    def rotate(fields: Any) -> bool:
        if next(arrivals) == number // 2:
            witness.rotate_secret(SERVER_ID, "another-secret")
        return False

    witness.script(Fault(when=rotate), times=None)
    populate(witness, number)
    workers = [nursery.start("loop", concurrency=4, **order) for _ in range(2)]
    wait_until(paused, "the pause")
    passed, refused = 0.0, len([request for request in witness.real() if request.status == 401])
    while passed < 300:
        before = len(witness.dry_runs())
        passed += pass_one_interval()
        witness.wait(before + 1, test=True)
        wait_until(paused, "the probe's failure noted")
    assert len([request for request in witness.real() if request.status == 401]) == refused
    secret.write_text("another-secret")
    pass_one_interval()
    wait_until(all_final, "delivery", PATIENCE)
    for worker in workers:
        worker.stop()
    result = audit(witness)
    assert refused <= 2 * 2 * 4  # what was in flight when it happened, and once more if a dry run had just passed
    counted("20, rotation", events=result.events, refused=refused, learnt_after_s=round(passed), lost=0, by_hand=0)


@pytest.mark.usefixtures("proven")
def test_20_a_wrong_server_id_corrected(witness: Witness, nursery: Nursery) -> None:
    number = size(50, 1000)
    populate(witness, number)
    wrong = nursery.start("loop", concurrency=4, settings={**QUICK, "SERVER_ID": "srv_typo"})
    wait_until(paused, "the pause")
    wrong.stop()
    refused = len([request for request in witness.real() if request.status == 404])
    right = nursery.start("loop", concurrency=4, settings=QUICK)
    pass_one_interval()
    wait_until(all_final, "delivery")
    right.stop()
    result = audit(witness)
    counted("20, server id", events=result.events, refused_under_the_wrong_one=refused, lost=0, by_hand=0)
