"""Events are claimed ahead of the threads that send them. What is not begun in time goes back as it came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from django_mmolove_referral import attach_referral
from django_mmolove_referral.delivery.claim import Claimed, release
from django_mmolove_referral.delivery.drain import Drain, Tally
from django_mmolove_referral.delivery.pool import AHEAD, Pool
from django_mmolove_referral.delivery.send import Sent
from django_mmolove_referral.models import OutboundEvent
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault, Fields
from django_mmolove_referral.sandbox.server import SandboxServer
from tests.conftest import SECRET
from tests.portal import create

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[Claimed]:
    """What goes back unsent."""
    seen: list[Claimed] = []

    def spy(events: Sequence[Claimed], *, using: str) -> None:
        seen.extend(events)
        release(events, using=using)

    monkeypatch.setattr("django_mmolove_referral.delivery.drain.release", spy)
    return seen


@pytest.fixture
def backlog(registered: Any, sandbox: Sandbox, sign_up: Callable[..., Any]) -> list[str]:
    """As many open events as one connection has claimed at a time, in a process that knows its clock; their keys."""
    for _ in range(AHEAD):
        sign_up()
    return list(OutboundEvent.objects.filter(state="pending").values_list("server_event_id", flat=True))


def untouched() -> int:
    """Events that look as if nobody had ever claimed them."""
    return OutboundEvent.objects.filter(state="pending", claim=None, attempts=0, frozen=False).count()


def test_a_pause_sends_back_what_was_not_begun(
    backlog: list[str], sandbox: Sandbox, released: list[Claimed], drain: Callable[..., Tally]
) -> None:
    seen: list[str] = []

    def refuse(fields: Fields) -> bool:
        seen.append(str(fields["server_event_id"]))
        return True

    sandbox.script(Fault(status=503, headers={"Retry-After": "60"}, when=refuse), times=None)
    drain(concurrency=1)
    assert seen == backlog[:1], "one answer was enough"
    assert [event.pk for event in released] == list(
        OutboundEvent.objects.filter(server_event_id__in=backlog[1:]).values_list("pk", flat=True)
    )
    assert untouched() == len(backlog) - 1


def test_whoever_is_told_to_stop_sends_back_what_was_not_begun(
    backlog: list[str], sandbox: Sandbox, released: list[Claimed]
) -> None:
    stop = threading.Event()

    def tell(fields: Fields) -> bool:
        stop.set()
        return False

    sandbox.script(Fault(when=tell), times=None)
    assert Drain(concurrency=1, stop=stop).run().accepted == 1
    assert len(released) == untouched() == len(backlog) - 1


def test_what_could_outlast_its_lease_is_claimed_anew(
    backlog: list[str], sandbox: Sandbox, released: list[Claimed], drain: Callable[..., Tally], configure: Any
) -> None:
    configure(DEADLINE=1, LEASE=5.3)  # whatever is not begun within 0.3 s might be sent when somebody else has it
    sandbox.script(Fault(delay=0.4), times=1)
    assert drain(concurrency=1).accepted == len(backlog)
    assert len(released) >= len(backlog) - 1
    events = OutboundEvent.objects.filter(server_event_id__in=backlog)
    assert [(event.attempts, event.delivery_attempts.count()) for event in events] == [(1, 1)] * len(backlog)


def test_a_drain_that_breaks_off_begins_nothing_more(
    backlog: list[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, broken = [], threading.Event()

    def watch(fields: Fields) -> bool:
        seen.append(str(fields["server_event_id"]))
        if len(seen) > 1:
            broken.wait(30)
        return False

    def fail(results: Sequence[Sent], *, using: str) -> None:
        raise RuntimeError("the database is gone")

    def close(pool: Pool[Any]) -> None:
        broken.set()
        end(pool)

    end = Pool.close
    monkeypatch.setattr(Pool, "close", close)
    monkeypatch.setattr("django_mmolove_referral.delivery.drain.settle", fail)
    sandbox.script(Fault(when=watch), times=None)
    with pytest.raises(RuntimeError, match="gone"):
        Drain(concurrency=1).run()
    assert seen == backlog[:2], "the second was under way"
    assert OutboundEvent.objects.filter(claim__isnull=False).count() == len(backlog), "after their lease"


def test_a_slow_server_holds_up_no_other(
    sandbox: Sandbox, sign_up: Callable[..., Any], configure: Callable[..., None], drain: Callable[..., Tally]
) -> None:
    """All connections of one server stand still while the other one's events pass."""
    number, seen, passed = 6, [], threading.Event()

    def count(fields: Fields) -> bool:
        seen.append(fields["server_event_id"])
        if len(seen) == number:
            passed.set()
        return False

    sandbox.script(Fault(when=count), times=None)
    slow = Sandbox({"srv_slow": SECRET}, register_url="http://testserver/register/")
    slow.script(Fault(status=500, when=lambda fields: not passed.wait(30)), times=None)
    with SandboxServer(slow) as server:
        account = {"SERVER_ID": "srv_slow", "SECRET": SECRET, "ENDPOINT": server.endpoint}
        configure(DEADLINE=60, LEASE=600, SERVERS={"slow": account})
        for which in range(number):
            sign_up()
            attach_referral(create(f"slow{which}@example.com"), slow.mint("srv_slow", "alice"), server="slow")
        done = drain(concurrency=4)
    assert (done.accepted, done.postponed) == (2 * number, 0)
