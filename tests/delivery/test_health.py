"""One destination, one health: an outage pauses the server, a dry run probes it, one event confirms, all leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from django_mmolove_referral import mark_qualified, signals
from django_mmolove_referral.delivery import lane
from django_mmolove_referral.delivery.schedule import seconds_until_due
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault, only_real
from tests.clock import let_pass
from tests.conftest import Hear, Table

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[..., Any]


def requests_seen(sandbox: Sandbox) -> list[tuple[str, bool, int]]:
    return [(entry.kind, entry.test, entry.status) for entry in sandbox.log if entry.kind != "clicked"]


@pytest.fixture
def outage(sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain) -> Sandbox:
    """Ten events, and a MMOLove that answers 503; the portal has found out."""
    for _ in range(10):
        sign_up()
    sandbox.outage()
    drain(concurrency=1)
    return sandbox


def test_consecutive_faults_pause_the_server_and_spare_the_other_events(outage: Sandbox, table: Table) -> None:
    assert table.health.state == "paused"
    assert "HTTP 503" in table.health.reason
    assert len(requests_seen(outage)) == 5
    # The fifth fault was the server's already, and so is each that is settled together with it.
    attempts = Counter(OutboundEvent.objects.values_list("attempts", flat=True))
    assert set(attempts) <= {0, 1}
    assert attempts[1] <= 4


def test_while_paused_only_dry_runs_leave_and_their_interval_doubles_up_to_the_longest(
    outage: Sandbox, drain: Drain, table: Table
) -> None:
    intervals = []
    for _ in range(8):
        intervals.append(round((table.health.probe_at - timezone.now()).total_seconds()))  # type: ignore[operator]
        before = len(requests_seen(outage))
        drain()
        assert len(requests_seen(outage)) == before  # not yet
        let_pass(301)
        drain()
        assert requests_seen(outage)[before:] == [("registered", True, 503)]
    assert intervals == [15, 30, 60, 120, 240, 300, 300, 300]


def test_when_the_dry_run_passes_one_event_confirms_and_the_backlog_leaves_at_once(
    outage: Sandbox, drain: Drain, table: Table, hear: Hear
) -> None:
    resumed = hear(signals.server_resumed)
    outage.clear_faults()
    before = len(requests_seen(outage))
    let_pass(15)
    drain()
    seen = requests_seen(outage)[before:]
    assert seen[0] == ("registered", True, 200)
    assert len(seen) == 11
    assert set(table.states().values()) == {"accepted"}
    assert table.health.state == "open"
    assert [news["server"] for news in resumed] == ["default"]


def test_a_write_path_that_fails_while_dry_runs_pass_gets_one_canary_per_interval(
    outage: Sandbox, drain: Drain, table: Table
) -> None:
    outage.clear_faults()
    outage.script(Fault(status=500, when=only_real), times=None)
    canaries = []
    for _ in range(4):
        before = DeliveryAttempt.objects.count()
        let_pass(301)
        drain()
        assert DeliveryAttempt.objects.count() == before + 1
        canaries.append(DeliveryAttempt.objects.latest("pk").event_id)
        assert table.health.state == "paused"
    assert len(set(canaries)) == 4, "another event each time: one bad event must not stand for all"
    outage.clear_faults()
    let_pass(301)
    drain()
    assert not OutboundEvent.objects.exclude(state="accepted").exists()


def test_a_pause_is_announced_and_logged_once(
    sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, hear: Hear, caplog: pytest.LogCaptureFixture
) -> None:
    paused = hear(signals.server_paused)
    for _ in range(20):
        sign_up()
    sandbox.outage()
    for _ in range(3):
        drain()
        let_pass(400)
    assert [(news["server"], "HTTP 503" in news["reason"]) for news in paused] == [("default", True)]
    assert len([record for record in caplog.records if record.name.startswith("mmolove_referral")]) == 1


@pytest.mark.parametrize(
    ("value", "wait"),
    [("120", 120), ("0", 1), ("999999", 3600), ("Wed, 21 Oct 2015 07:28:00 GMT", 1)],
)
def test_retry_after_pauses_the_server_at_once(
    value: str, wait: int, bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    sandbox.script(Fault(status=429, body={"error": "slow down"}, headers={"Retry-After": value}), times=None)
    drain()
    health = table.health
    assert health.state == "paused"
    assert health.probe_at is not None
    assert abs((health.probe_at - timezone.now()).total_seconds() - wait) < 2
    assert table.event("registered").attempts == 0


@pytest.mark.parametrize("value", ["-5", "soon", "", "1.5"])
def test_a_retry_after_that_says_nothing_is_a_fault_like_any_other(
    value: str, bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    sandbox.script(Fault(status=503, body={}, headers={"Retry-After": value}))
    drain()
    assert table.event("registered").attempts == 1
    assert not ServerHealth.objects.exclude(state="open").exists()


def test_one_event_that_fails_alone_backs_off_alone(
    sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, table: Table
) -> None:
    poison = sign_up()
    for _ in range(20):
        sign_up()
    sandbox.script(Fault(status=500, when=lambda fields: fields["referee_identity"] == str(poison.pk)), times=None)
    for _ in range(4):
        drain()
        let_pass(2000)
    assert OutboundEvent.objects.filter(state="accepted").count() == 20
    assert OutboundEvent.objects.get(state="pending").attempts == 4
    assert not ServerHealth.objects.exclude(state="open").exists()


def test_a_rotated_secret_burns_no_event(
    registered: Any, sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, configure: Callable[..., None]
) -> None:
    mark_qualified(registered)
    for _ in range(10):
        sign_up()
    sandbox.rotate_secret("srv_test", "new-secret")
    drain()
    assert ServerHealth.objects.get().state == "paused"
    dry_runs = [entry for entry in requests_seen(sandbox) if entry[1]]
    assert len(dry_runs) == 1, "one dry run speaks for all that were refused"
    let_pass(20)
    drain()
    assert not OutboundEvent.objects.filter(state__in=["rejected", "exhausted"]).exists()
    configure(SECRET="new-secret")
    let_pass(301)
    drain()
    assert not OutboundEvent.objects.exclude(state="accepted").exists()


def test_a_callable_secret_is_asked_again_each_time(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table, configure: Callable[..., None]
) -> None:
    known = ["old"]
    configure(SECRET=lambda: known[-1])
    drain()
    assert table.event("registered").state == "pending"
    known.append("test-secret")
    let_pass(60)
    drain()
    assert table.event("registered").state == "accepted"


def test_a_worker_that_dies_with_the_canary_leaves_the_probe_to_another(
    outage: Sandbox, drain: Drain, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage.clear_faults()
    let_pass(15)
    with monkeypatch.context() as patch:
        patch.setattr("django_mmolove_referral.delivery.drain.settle", _die)
        with pytest.raises(KeyboardInterrupt):
            drain()
    assert table.health.state == "half_open"
    drain()
    assert table.health.state == "half_open"
    let_pass(121)
    drain()
    assert table.health.state == "open"
    assert not OutboundEvent.objects.exclude(state="accepted").exists()


def test_an_empty_outbox_reopens_without_a_canary(
    registered: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    event = mark_qualified(registered)
    assert event is not None
    sandbox.script(Fault(status=503, headers={"Retry-After": "5"}))
    drain()
    assert table.health.state == "paused"
    OutboundEvent.objects.filter(pk=event.pk).update(state="cancelled")
    let_pass(10)
    drain()
    assert table.health.state == "open"


def test_success_and_the_clock_are_noted_on_change_only(
    registered: Any, sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, table: Table
) -> None:
    first = table.health.last_success_at
    assert first is not None
    sign_up()
    drain()
    assert table.health.last_success_at == first
    lane.forget()
    sign_up()
    drain()
    assert table.health.last_success_at > first


def test_the_next_due_moment_is_the_servers_while_it_is_paused(outage: Sandbox) -> None:
    wait = seconds_until_due("default")
    assert wait is not None
    assert 10 < wait <= 15


def test_nothing_due_is_said_as_such(db: None) -> None:
    assert seconds_until_due("default") is None


def _die(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt
