"""Pruning: what has long been over goes, and every promise holds afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_mmolove_referral import attach_referral, mark_qualified, mark_registered, mark_reversed, tasks
from django_mmolove_referral.delivery import prune as module
from django_mmolove_referral.delivery.claim import claim
from django_mmolove_referral.delivery.operate import cancel, redeliver
from django_mmolove_referral.delivery.prune import Pruned, prune
from django_mmolove_referral.delivery.settle import settle
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Referral, Reward, ServerHealth
from django_mmolove_referral.sandbox.core import Sandbox
from tests.clock import let_pass
from tests.conftest import Granted, Table
from tests.portal import create
from tests.test_interleavings import answered, elsewhere, overlap, take

pytestmark = pytest.mark.django_db(transaction=True)

DAY = 86_400
PATIENCE = 60.0


def run(*arguments: str, terminal: bool = False) -> str:
    out = StringIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]
    call_command("mmolove_prune", *arguments, stdout=out)
    return out.getvalue()


def sign_up(name: str, token: str = "") -> Any:
    user = create(f"{name}@example.com")
    attach_referral(user, token or f"token-of-{name}-0123456789")
    return user


@pytest.fixture
def bob() -> Any:
    return sign_up("bob")


def ended(user: Any, kind: str, state: str, **fields: Any) -> OutboundEvent:
    """The account's event, as if it had come to this end a hundred days ago."""
    events = OutboundEvent.objects.filter(referral__user=user, kind=kind)
    events.update(state=state, settled_at="2020-01-01T00:00Z", **fields)
    return events.get()


@pytest.fixture
def qualified(sandbox: Sandbox, mint: Callable[..., str], granted: Granted, drain: Callable[..., Any]) -> Any:
    """An account whose referral is through, the reward granted, a hundred days ago."""
    user = sign_up("quentin", mint())
    mark_qualified(user)
    drain()
    drain()
    assert len(granted) == 1
    let_pass(100 * DAY)
    return user


# -- what goes


def test_events_and_attempts_go_referrals_and_rewards_stay(qualified: Any, table: Table) -> None:
    assert run("--days", "101") == "0 events and 0 attempts deleted.\n"
    assert run("--days", "99") == "2 events and 2 attempts deleted.\n"
    assert not OutboundEvent.objects.exists()
    assert not DeliveryAttempt.objects.exists()
    assert (table.referral.state, table.referral.pruned, table.reward.state) == (
        "qualified",
        "qualified registered",
        "granted",
    )
    assert run("--days", "99") == "0 events and 0 attempts deleted.\n"


@pytest.mark.parametrize(
    ("state", "days", "both"),
    [
        ("accepted", True, True),
        ("cancelled", True, True),
        ("rejected", False, True),
        ("exhausted", False, True),
        ("pending", False, False),
        ("waiting", False, False),
    ],
)
def test_only_what_is_final_goes(state: str, days: bool, both: bool, bob: Any) -> None:
    ended(bob, "registered", state)
    assert run("--days", "1", "--dry-run") == f"{int(days)} events and 0 attempts would be deleted.\n"
    assert run("--days", "9999", "--failed-days", "1", "--dry-run").startswith(f"{int(both and not days)} events")
    assert run("--days", "1", "--failed-days", "1", "--dry-run").startswith(f"{int(both)} events")
    assert OutboundEvent.objects.count() == 1, "a dry run deletes nothing"
    run("--days", "1", "--failed-days", "1")
    assert OutboundEvent.objects.count() == int(not both)


def test_a_referral_of_which_something_is_open_keeps_everything(bob: Any) -> None:
    """``qualified`` would wait for a ``registered`` that nobody can redeliver any more."""
    ended(bob, "registered", "rejected")
    mark_qualified(bob)
    assert run("--days", "1", "--failed-days", "1") == "0 events and 0 attempts deleted.\n"


def test_a_due_reward_keeps_its_event(qualified: Any, granted: Granted, drain: Callable[..., Any]) -> None:
    """A receiver that fails for months is shown the answer, when it is mended, as any other."""
    granted.clear()
    Reward.objects.update(state="due", granted_at=None)
    assert run("--days", "1") == "0 events and 0 attempts deleted.\n"
    drain()
    assert [referral.user for referral in granted] == [qualified]
    assert run("--days", "1") == "2 events and 2 attempts deleted.\n"


def test_batches_are_short_and_each_its_own_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    for number in range(10):
        user = sign_up(f"player{number}")
        mark_qualified(user)
        ended(user, "registered", "accepted")
        ended(user, "qualified", "waiting" if number == 0 else "accepted")
    sizes: list[int] = []
    last = Pruned()

    def watch(done: Pruned) -> None:
        nonlocal last
        assert not connection.in_atomic_block
        sizes.append(done.events - last.events)
        last = Pruned(done.events, done.attempts)

    with CaptureQueriesContext(connection) as queries:
        done = prune(1, using="default", watch=watch)
    assert (done.events, sum(sizes), max(sizes)) == (18, 18, 4)
    assert OutboundEvent.objects.count() == 2
    assert len(queries) <= 6 * 12


def test_a_wrong_number_of_days_is_refused() -> None:
    for number in ("0", "-1", "x", "1.5", "99999999999"):
        with pytest.raises(CommandError, match="whole number of days from 1"):
            run("--days", number)
        with pytest.raises(CommandError, match="whole number of days from 1"):
            run("--days", "1", "--failed-days", number)
    with pytest.raises(CommandError, match="--days"):
        run()
    with pytest.raises(ValueError, match="at least one day"):
        prune(0, using="default")
    with pytest.raises(ValueError, match="at least one day"):
        prune(1, 0, using="default")


def test_a_bar_on_a_terminal(qualified: Any) -> None:
    text = run("--days", "1", terminal=True)
    assert text == f"\r[{'#' * 30}] 100%  2 of 2\n2 events and 2 attempts deleted.\n"
    assert run("--days", "1", terminal=True) == "0 events and 0 attempts deleted.\n"


def test_as_a_task(qualified: Any, bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ended(bob, "registered", "rejected")
    tasks.prune(days=1)
    assert list(OutboundEvent.objects.values_list("state", flat=True)) == ["rejected"]
    tasks.prune.apply(kwargs={"days": 1, "failed_days": 1}).get()
    assert not OutboundEvent.objects.exists()
    said = [record for record in caplog.records if "pruned" in record.getMessage()]
    assert [(record.levelname, record.__dict__["events"], record.__dict__["attempts"]) for record in said] == [
        ("INFO", 2, 2),
        ("INFO", 1, 0),
    ]


# -- the promises hold afterwards


def test_one_event_per_kind_for_ever(
    qualified: Any, sandbox: Sandbox, granted: Granted, drain: Callable[..., Any]
) -> None:
    run("--days", "1")
    before = len(sandbox.log)
    assert (mark_qualified(qualified), mark_registered(qualified)) == (None, None)
    attach_referral(qualified, "another-token")
    drain()
    assert (OutboundEvent.objects.count(), len(sandbox.log), len(granted)) == (0, before, 1)


@pytest.mark.parametrize(
    ("kind", "state", "fields"),
    [
        ("qualified", "accepted", {"outcome": "other_state"}),
        ("qualified", "cancelled", {"reason": "operator"}),
        ("qualified", "rejected", {}),
        ("registered", "cancelled", {"reason": "operator"}),
        ("registered", "exhausted", {}),
    ],
)
def test_what_was_not_paid_for_is_not_sent_again_either(
    kind: str, state: str, fields: dict[str, str], bob: Any, sandbox: Sandbox, drain: Callable[..., Any]
) -> None:
    """The referral's own times know nothing of these: without its note a verb would write them a second time."""
    Referral.objects.update(state="registered", registered_at="2020-01-01T00:00Z")
    if kind == "qualified":
        mark_qualified(bob)
        ended(bob, "registered", "accepted")
    else:
        Referral.objects.update(state="captured", registered_at=None)
    ended(bob, kind, state, **fields)
    run("--days", "1", "--failed-days", "1")
    assert not OutboundEvent.objects.exists()
    assert [mark_registered(bob), mark_qualified(bob)] == [None, None]
    drain()
    assert (OutboundEvent.objects.count(), len(sandbox.log)) == (0, 0)


def test_the_milestone_after_registered_was_pruned(
    sandbox: Sandbox, mint: Callable[..., str], granted: Granted, drain: Callable[..., Any]
) -> None:
    """Most referrals stand there for long: known to MMOLove, the milestone not yet reached."""
    user = sign_up("slow", mint())
    drain()
    let_pass(50 * DAY)
    assert run("--days", "30") == "1 events and 1 attempts deleted.\n"
    event = mark_qualified(user)
    assert event is not None
    assert event.state == "pending"
    drain()
    assert [referral.user for referral in granted] == [user]


def test_a_reversal_after_everything_was_pruned(
    qualified: Any, sandbox: Sandbox, table: Table, drain: Callable[..., Any]
) -> None:
    run("--days", "1")
    event = mark_reversed(qualified)
    assert event is not None
    drain()
    assert (table.states(), table.referral.state) == ({"reversed": "accepted"}, "reversed")
    let_pass(10 * DAY)
    run("--days", "1")
    assert mark_reversed(qualified) is None


def test_nothing_follows_a_registered_that_was_given_up(bob: Any) -> None:
    ended(bob, "registered", "rejected")
    run("--days", "1", "--failed-days", "1")
    assert [mark_qualified(bob), mark_reversed(bob)] == [None, None]
    assert not OutboundEvent.objects.exists()


def test_a_deleted_account_is_forgotten(qualified: Any, table: Table) -> None:
    run("--days", "1")
    qualified.delete()
    assert (table.referral.token, table.referral.user) == ("", None)


def test_an_operator_who_was_slower_than_the_pruning(bob: Any) -> None:
    event = ended(bob, "registered", "rejected")
    run("--days", "1", "--failed-days", "1")
    assert (redeliver(event), cancel(event)) == (False, False)


def test_a_worker_that_was_taken_for_dead(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its machine slept for days; somebody else sent the event, and it was pruned since."""
    other = sign_up("other")
    (late, good) = take()
    assert late.referral_id == Referral.objects.get(user=bob).pk
    ended(bob, "registered", "accepted", claim=None)
    run("--days", "1")
    settle([answered(late), answered(good)], using="default")
    assert OutboundEvent.objects.get().state == "accepted"
    assert Referral.objects.get(user=other).state == "registered"
    assert Referral.objects.get(user=bob).state == "captured"
    assert caplog.records == []


def test_an_event_that_is_sent_again_meanwhile_is_left(bob: Any) -> None:
    """The choice is looked at once more under the lock."""
    event = ended(bob, "registered", "rejected")
    again, pruned = overlap(lambda: redeliver(event), lambda: prune(1, 1, using="default"))
    assert (again, pruned.events) == (True, 0)
    assert OutboundEvent.objects.get().state == "pending"
    assert Referral.objects.get().pruned == ""
    assert len(claim("default", "srv_test", 10, using="default")) == 1


def test_two_prunings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    for number in range(12):
        ended(sign_up(f"player{number}"), "registered", "accepted")
    both = [elsewhere(lambda: prune(1, using="default")) for _ in range(2)]
    assert sum(one.result(PATIENCE).events for one in both) == 12
    assert set(Referral.objects.values_list("pruned", flat=True)) == {"registered"}


# -- the pages of the admin


def test_the_admin_shows_what_is_left(qualified: Any, client: Client) -> None:
    run("--days", "1")
    model: Any = get_user_model()
    staff = model._default_manager.create_superuser(**{model.USERNAME_FIELD: "root@example.com", "password": "pw"})
    client.force_login(staff)
    for stored in (Referral, OutboundEvent, Reward, ServerHealth):
        name = f"admin:mmolove_referral_{stored._meta.model_name}"
        pages = [reverse(f"{name}_changelist")]
        pages += [reverse(f"{name}_change", args=[row.pk]) for row in stored._default_manager.all()]
        for page in pages:
            assert client.get(page, follow=True).status_code == 200, page
        search = f"{pages[0]}?{urlencode({'q': 'reg-1'})}"
        assert client.get(search, follow=True).status_code == 200, search
