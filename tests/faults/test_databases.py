"""A database that restarts, deadlocks, locks and times out; and no transaction of it open while a request is out."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
from django.db import connection, connections

from django_mmolove_referral.delivery.pool import AHEAD
from django_mmolove_referral.models import OutboundEvent, Referral
from django_mmolove_referral.protocol import Kind
from django_mmolove_referral.sandbox.faults import Fault
from tests.clock import let_pass

from .harness import LEASE, Nursery, Witness, all_final, audit, counted, populate, rewards_done, size, wait_until, write
from .run import Here

pytestmark = pytest.mark.django_db(transaction=True)

CONCURRENCY = 2
IN_HAND = CONCURRENCY * AHEAD
"""Events that a worker has claimed for its threads at the most."""


@pytest.mark.skipif(connection.vendor == "sqlite", reason="there is no server to restart")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
@pytest.mark.parametrize("job", ["loop", "web"])
def test_10_the_database_restarts_while_workers_drain(
    job: str, how: signal.Signals, witness: Witness, nursery: Nursery
) -> None:
    assert Here.database, "run it by python -m tests.faults.run"
    restarts, number = size(1, 5), size(60, 200)
    witness.script(Fault(delay=0.02), times=None)
    settings: dict[str, Any] = {"DISPATCH": "thread", "CONCURRENCY": CONCURRENCY}
    workers = [nursery.start(job, settings=settings) for _ in range(2)]
    for _ in range(restarts):
        referrals = populate(witness, number)
        write(referrals, Kind.QUALIFIED, state="waiting")
        witness.wait(len(witness.real()) + number // 2)
        connections.close_all()
        Here.database.restart(how)
        wait_until(rewards_done, "delivery")
    for worker in workers:
        worker.stop()
    result = audit(witness)
    assert result.repeated <= restarts * len(workers) * IN_HAND
    counted(
        f"10, {job}",
        restarts=restarts,
        by=how.name,
        workers=len(workers),
        events=result.events,
        duplicates=result.repeated,
        bound=restarts * len(workers) * IN_HAND,
        rewards=result.rewards,
        lost=0,
    )


def test_11_statements_that_fail_are_tried_again(witness: Witness, nursery: Nursery) -> None:
    number = size(60, 500)
    messages = [
        "deadlock detected",
        "could not serialize access due to concurrent update",
        "Lock wait timeout exceeded; try restarting transaction",
        "database is locked",
    ]
    settings = {"PROBE_INTERVAL": 0.5}
    order: dict[str, Any] = {"settings": settings, "break": {"share": 0.03, "messages": messages}}
    write(populate(witness, number), Kind.QUALIFIED, state="waiting")
    workers = [nursery.start("loop", concurrency=CONCURRENCY, **order) for _ in range(3)]
    wait_until(rewards_done, "delivery")
    for worker in workers:
        worker.stop()
    result = audit(witness)
    counted("11, injected", share_of_all_statements="3 %", kinds=len(messages), events=result.events,
            duplicates=result.repeated, rewards=result.rewards, lost=0)  # fmt: skip


def test_11_rows_that_somebody_holds_are_waited_for(witness: Witness, nursery: Nursery) -> None:
    """The portal itself holds locks on the rows to be settled, again and again, in the other order."""
    rounds, number = size(3, 20), 20
    settings = {"DISPATCH": "manual"}
    for _ in range(rounds):
        referrals = populate(witness, number)
        holding, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=_hold, args=([one.pk for one in referrals], holding, release))
        holder.start()
        assert holding.wait(60)
        worker = nursery.start("once", concurrency=CONCURRENCY, settings=settings)
        if connection.vendor != "sqlite":  # where one writer keeps out all others, nothing is sent meanwhile
            witness.wait(len(witness.real()) + 1)
        release.set()
        holder.join()
        assert worker.wait() == 0
        if not all_final():  # a deadlock that took every try: after the lease
            let_pass(LEASE + 1)
            assert nursery.start("once").wait() == 0
    result = audit(witness, paying=False)
    counted("11, held", rounds=rounds, events=result.events, duplicates=result.repeated, lost=0)


def _hold(pks: list[int], holding: threading.Event, release: threading.Event) -> None:
    from django.db import transaction

    try:
        with transaction.atomic():
            Referral.objects.filter(pk__in=pks).update(referrer_code="held")
            holding.set()
            release.wait(60)
            if connection.vendor != "sqlite":
                # Events after referrals is the order of all here; a portal's own code may do it the other way round.
                OutboundEvent.objects.filter(referral__in=pks).update(reason="")
    finally:
        connections.close_all()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="asks pg_stat_activity")
@pytest.mark.parametrize("job", ["loop", "web"])
def test_9_no_transaction_is_open_while_a_request_is_out(job: str, witness: Witness, nursery: Nursery) -> None:
    number = size(4, 100)
    seen: list[str] = []

    def look(fields: Any) -> bool:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND state LIKE 'idle in transaction%'"
            )
            seen.extend(row[0] for row in cursor.fetchall())
        connections["default"].close()
        return False

    witness.script(Fault(when=look), times=None)
    worker = nursery.start(job, settings={"DISPATCH": "thread", "CONCURRENCY": 1})
    for _ in range(number):
        # One event at a time: with more, one may be settled while another is out.
        write(populate(witness, 1), Kind.QUALIFIED, state="waiting")
        wait_until(rewards_done, "delivery")
    worker.stop()
    result = audit(witness)
    assert not seen
    counted(f"9, {job}", requests_each_looked_at=result.requests, open_transactions=len(seen))
