"""What each answer of MMOLove's does to an event, over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_mmolove_referral import mark_qualified, signals
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault, only_dry_runs, only_real
from tests.clock import let_pass
from tests.conftest import Granted, Hear, Table

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[..., Any]


def test_accepted_events_record_their_answer_and_their_attempt(registered: Any, table: Table) -> None:
    event = table.event("registered")
    assert (event.state, event.outcome, event.last_status, event.last_error) == ("accepted", "advanced", 200, "")
    assert event.response["state"] == "registered"
    assert event.claim is None
    assert table.referral.referral_id == event.response["referral_id"]
    attempt = DeliveryAttempt.objects.get()
    assert (attempt.status, attempt.late, attempt.event) == (200, False, event)
    assert '"ok"' in attempt.answer


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_for_itself_is_final_at_once(
    status: int, bob: Any, sandbox: Sandbox, drain: Drain, table: Table, hear: Hear
) -> None:
    told = hear(signals.event_rejected)
    sandbox.script(Fault(status=status, body={"error": "no such thing"}))
    drain()
    event = table.event("registered")
    assert (event.state, event.last_status, event.last_error) == ("rejected", status, f"HTTP {status}: no such thing")
    assert not event.frozen
    assert DeliveryAttempt.objects.count() == 1
    assert told == [{"event": event, "attempt": DeliveryAttempt.objects.get()}]


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410, 413, 451, 301, 302, 303, 307, 308, 300, 304])
def test_a_doubtful_refusal_pauses_the_server_if_a_dry_run_is_refused_too(
    status: int, registered: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=status, body={"error": "no"}, headers={"Location": "http://127.0.0.1:1/x"}), times=None)
    drain()
    event = table.event("qualified")
    assert (event.state, event.attempts, event.claim) == ("pending", 0, None)
    assert table.health.state == "paused"
    assert f"HTTP {status}" in table.health.reason


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_doubtful_refusal_is_the_events_own_if_a_dry_run_passes(
    status: int, registered: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=status, body={"error": "unknown token"}, when=only_real), times=None)
    drain()
    event = table.event("qualified")
    assert (event.state, event.last_status) == ("rejected", status)
    # Sent once more after the dry run, and only then believed.
    assert DeliveryAttempt.objects.filter(event=event).count() == 2
    assert not ServerHealth.objects.exclude(state="open").exists()


def test_a_passing_dry_run_gives_the_event_another_try(
    registered: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=403, body={"error": "no"}, when=only_real), times=1)
    drain()
    assert table.event("qualified").state == "accepted"


def test_404_to_everything_with_a_token_never_accepted_decides_nothing(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    sandbox.script(Fault(status=404, body={"error": "not found"}), times=None)
    drain()
    event = table.event("registered")
    assert (event.state, event.attempts) == ("pending", 1)
    assert not ServerHealth.objects.exclude(state="open").exists()
    sandbox.clear_faults()
    let_pass(60)
    drain()
    assert table.event("registered").state == "accepted"


FAULTS = {
    "408": Fault(status=408),
    "425": Fault(status=425),
    "429": Fault(status=429),
    "500": Fault(status=500, body={"error": "oops"}),
    "502": Fault(status=502, body=b"<html>bad gateway</html>"),
    "503": Fault(status=503),
    "599": Fault(status=599),
    "201": Fault(status=201, body={"ok": True}),
    "204": Fault(status=204),
    "206": Fault(status=206, body={"ok": True}),
    "200 html": Fault(status=200, body=b"<html>hello</html>"),
    "200 empty": Fault(status=200),
    "200 not ok": Fault(status=200, body={"ok": False}),
    "200 ok as text": Fault(status=200, body={"ok": "true"}),
    "200 as a dry run": Fault(status=200, body={"ok": True, "test": True}),
    "200 list": Fault(status=200, body=b"[1]"),
    "400 from a proxy": Fault(status=400, body=b"<html>Bad Request</html>"),
    "403 from a proxy": Fault(status=403, body=b"<html>Forbidden</html>"),
    "oversized": Fault(status=200, body=b'{"ok":true,"x":"' + b"x" * 100_000 + b'"}'),
    "dropped": Fault(drop=True),
    "cut": Fault(truncate=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_tried_again_with_the_same_body(
    fault: Fault, bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    sandbox.script(fault)
    body = bytes(table.event("registered").body)
    drain()
    event = table.event("registered")
    assert (event.state, event.attempts, event.claim, event.frozen) == ("pending", 1, None, True)
    assert event.last_error
    let_pass(60)
    drain()
    event = table.event("registered")
    assert event.state == "accepted"
    assert bytes(event.body) == body


def test_a_lost_answer_comes_back_as_duplicate_and_still_pays(
    registered: Any, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=502, processed=True))
    drain()
    assert granted == []
    let_pass(60)
    drain()
    assert table.event("qualified").outcome == "duplicate"
    assert len(granted) == 1


def test_a_first_touch_conflict_ends_the_referral_without_a_reward(
    bob: Any, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table, hear: Hear
) -> None:
    told = hear(signals.referral_conflict)
    mark_qualified(bob)
    sandbox.script(Fault(status=200, body={"ok": True, "ignored": "first_touch_conflict"}))
    drain()
    assert table.states() == {"registered": "accepted", "qualified": "cancelled"}
    assert table.event("qualified").reason == "conflict"
    assert (table.referral.state, table.referral.registered_at) == ("conflict", None)
    assert [news["referral"].state for news in told] == ["conflict"]
    assert not Reward.objects.exists()
    assert mark_qualified(bob) == table.event("qualified")


def test_ignored_on_qualified_pays_nothing(
    registered: Any, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=200, body={"ok": True, "duplicate": True, "ignored": "first_touch_conflict"}))
    drain()
    assert table.referral.state == "conflict"
    assert granted == []


def test_another_state_on_qualified_pays_nothing(
    registered: Any, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    mark_qualified(registered)
    sandbox.script(Fault(status=200, body={"ok": True, "state": "reversed"}))
    drain()
    event = table.event("qualified")
    assert (event.state, event.outcome) == ("accepted", "other_state")
    assert granted == []


def test_the_schedule_ends_in_exhausted_and_says_so(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table, configure: Callable[..., None], hear: Hear
) -> None:
    told = hear(signals.event_exhausted)
    configure(RETRY_SCHEDULE=[1, 1, 1], PAUSE_AFTER=100)
    sandbox.outage()
    for _ in range(3):
        drain()
        assert table.event("registered").state == "pending"
        let_pass(10)
    drain()
    assert table.event("registered").state == "exhausted"
    assert [news["event"].state for news in told] == ["exhausted"]


def test_tokens_do_not_appear_in_what_is_kept_of_answers(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table
) -> None:
    token = Referral.objects.get().token
    sandbox.script(Fault(status=400, body={"error": f"bad token {token}", "token": token}))
    drain()
    event, attempt = table.event("registered"), DeliveryAttempt.objects.get()
    assert "bad token" in event.last_error
    for kept in (event.last_error, str(event.response), attempt.answer, attempt.error, repr(event), str(attempt)):
        assert token not in kept


def test_a_corrected_server_id_rebuilds_a_body_that_was_only_refused(
    bob: Any, sandbox: Sandbox, drain: Drain, table: Table, configure: Callable[..., None]
) -> None:
    configure(SERVER_ID="srv_typo")
    drain()
    event = table.event("registered")
    assert event.state == "pending"
    assert not event.frozen
    configure(SERVER_ID="srv_test")
    let_pass(60)
    drain()
    event = table.event("registered")
    assert event.state == "accepted"
    assert b'"srv_test"' in bytes(event.body)


def test_without_credentials_events_wait_for_them(
    bob: Any, drain: Drain, table: Table, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(SECRET="")
    drain()
    drain()
    assert (table.event("registered").state, table.event("registered").attempts) == ("pending", 0)
    said = [record.getMessage() for record in caplog.records if "SECRET" in record.getMessage()]
    assert len(said) == 1
    configure(SECRET="test-secret")
    drain()
    assert table.event("registered").state == "accepted"


@pytest.mark.parametrize("drift", [-86400, -600, 600, 86400])
def test_a_clock_that_is_off_is_corrected_from_the_refusal(
    drift: int, sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, table: Table
) -> None:
    real = sandbox.clock
    sandbox.clock = lambda: real() + drift
    sign_up()
    drain()
    assert table.event("registered").state == "accepted"
    assert DeliveryAttempt.objects.filter(status=401).count() == 1
    sign_up()
    drain()
    assert OutboundEvent.objects.filter(state="accepted").count() == 2
    assert DeliveryAttempt.objects.filter(status=401).count() == 1  # remembered
    assert abs(table.health.clock_skew - drift) < 60
    sandbox.clock = real
    sign_up()
    drain()
    assert OutboundEvent.objects.filter(state="accepted").count() == 3
    assert not OutboundEvent.objects.filter(state="rejected").exists()


def test_a_dry_run_uses_a_token_that_was_accepted_before(
    registered: Any, sandbox: Sandbox, sign_up: Callable[..., Any], drain: Drain, table: Table
) -> None:
    accepted = table.referral.token
    sign_up("never-minted-token")
    seen: list[str] = []

    def look(fields: Any) -> bool:
        if only_dry_runs(fields):
            seen.append(fields["token"])
        return False

    sandbox.script(Fault(status=404, when=look), times=None)
    drain()
    assert seen == [accepted]
    assert OutboundEvent.objects.get(referral__token="never-minted-token").state == "rejected"
