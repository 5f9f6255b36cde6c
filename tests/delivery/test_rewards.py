"""The reward falls due once and is granted in the portal's own transaction, with its own retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_mmolove_referral import advice, mark_qualified, mark_reversed, signals
from django_mmolove_referral.delivery import rewards
from django_mmolove_referral.delivery.operate import redeliver, retry_reward
from django_mmolove_referral.delivery.rewards import NO_RECEIVER
from django_mmolove_referral.delivery.schedule import seconds_until_due
from django_mmolove_referral.models import Referral, Reward
from django_mmolove_referral.sandbox.core import Sandbox
from tests.clock import let_pass
from tests.conftest import Granted, Table
from tests.factories import RewardFactory, UserFactory
from tests.portal import create

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[..., Any]


@pytest.fixture
def qualified(registered: Any) -> Any:
    mark_qualified(registered)
    return registered


def test_the_reward_is_granted_inside_a_transaction_with_the_stored_answer(
    qualified: Any, drain: Drain, table: Table
) -> None:
    seen: list[tuple[bool, str, str]] = []

    def receiver(referral: Referral, event: Any, response: dict[str, Any], **kwargs: Any) -> None:
        seen.append((connection.in_atomic_block, referral.reward.state, response["state"]))

    signals.referral_qualified.connect(receiver)
    try:
        assert drain().granted == 1
    finally:
        signals.referral_qualified.disconnect(receiver)
    assert seen == [(True, "granted", "qualified")]


def test_a_failing_receiver_leaves_the_reward_due_and_sends_nothing_again(
    qualified: Any, sandbox: Sandbox, drain: Drain, granted: Granted, table: Table
) -> None:
    granted.fail = RuntimeError("the economy is closed")
    drain()
    reward = table.reward
    assert (reward.state, reward.attempts, reward.last_error) == ("due", 1, "RuntimeError: the economy is closed")
    sent = len(sandbox.log)
    drain()
    assert table.reward.attempts == 1  # not before its time
    granted.fail = None
    let_pass(60)
    drain()
    assert (table.reward.state, len(granted), len(sandbox.log)) == ("granted", 1, sent)


def test_a_receivers_writes_are_rolled_back_with_the_mark(qualified: Any, drain: Drain, table: Table) -> None:
    def receiver(**kwargs: Any) -> None:
        create("half-done@example.com")
        raise RuntimeError

    signals.referral_qualified.connect(receiver)
    try:
        drain()
    finally:
        signals.referral_qualified.disconnect(receiver)
    assert table.reward.state == "due"
    assert not type(qualified)._default_manager.filter(email="half-done@example.com").exists()


def test_rewards_are_tried_for_ever(
    qualified: Any, drain: Drain, granted: Granted, table: Table, configure: Callable[..., None]
) -> None:
    configure(RETRY_SCHEDULE=[1, 2])
    granted.fail = RuntimeError("no")
    for _ in range(5):
        drain()
        let_pass(10)
    assert (table.reward.state, table.reward.attempts) == ("due", 5)


def test_without_a_receiver_the_reward_stays_due_and_says_what_to_do(
    qualified: Any, drain: Drain, table: Table, granted: Granted
) -> None:
    signals.referral_qualified.disconnect(granted.receive)
    drain()
    reward = table.reward
    assert (reward.state, reward.attempts, reward.last_error) == ("due", 0, NO_RECEIVER)
    told = advice.of_reward(reward)
    assert told.cause == f"It could not be granted: {NO_RECEIVER}"
    assert told.cure == (
        "Restart what delivers once one is connected: the next delivery run of a process that has it grants it."
    )
    drain()
    signals.referral_qualified.connect(granted.receive)
    drain()  # at once: nothing was put off
    assert (len(granted), table.reward.state, table.reward.last_error) == (1, "granted", "")


def test_without_a_receiver_a_loop_sleeps_although_a_reward_is_due(
    qualified: Any, drain: Drain, table: Table, granted: Granted
) -> None:
    signals.referral_qualified.disconnect(granted.receive)
    drain()
    assert seconds_until_due(connection.alias) is None
    signals.referral_qualified.connect(granted.receive)
    assert seconds_until_due(connection.alias) == 0


def test_a_process_without_a_receiver_puts_no_reward_off_for_one_that_has_it(
    qualified: Any, drain: Drain, granted: Granted
) -> None:
    """More of them than are looked at in one go, and some that failed before."""
    granted.fail = RuntimeError("the economy is closed")
    drain()
    let_pass(60)
    for number in range(rewards.BATCH + 5):
        RewardFactory.create(referral__user=UserFactory.create(name=f"friend{number}@example.com"))
    signals.referral_qualified.disconnect(granted.receive)
    before = dict(Reward.objects.values_list("pk", "due_at"))
    with CaptureQueriesContext(connection) as queries:
        drain()
    assert dict(Reward.objects.values_list("pk", "due_at")) == before
    assert set(Reward.objects.values_list("last_error", flat=True)) == {NO_RECEIVER}
    writes = [query["sql"] for query in queries if query["sql"].startswith("UPDATE") and "_reward" in query["sql"]]
    assert len(writes) == 1, "a statement for all of them"


def test_a_reward_that_is_to_be_tried_again_says_so(
    qualified: Any, drain: Drain, granted: Granted, table: Table
) -> None:
    granted.fail = RuntimeError("the economy is closed")
    drain()
    assert "tried again by itself (" in advice.of_reward(table.reward).cure
    assert retry_reward(table.reward)
    assert advice.of_reward(table.reward).cure == (
        "The next delivery run tries it again. If it fails again, mend the receiver of referral_qualified."
    )


def test_redelivering_by_force_makes_no_second_reward(
    qualified: Any, drain: Drain, granted: Granted, table: Table
) -> None:
    drain()
    event = table.event("qualified")
    assert not redeliver(event)
    assert redeliver(event, force=True)
    drain()
    assert table.event("qualified").state == "accepted"
    assert table.event("qualified").outcome == "duplicate"
    assert (len(granted), Reward.objects.count()) == (1, 1)


def test_reversing_cancels_a_reward_that_is_due(qualified: Any, drain: Drain, granted: Granted, table: Table) -> None:
    granted.fail = RuntimeError("later")
    drain()
    mark_reversed(qualified)
    granted.fail = None
    let_pass(1000)
    drain()
    assert (table.reward.state, granted) == ("cancelled", [])
    assert table.states()["reversed"] == "accepted"


def test_reversing_after_the_grant_leaves_it_to_the_portal(
    qualified: Any, drain: Drain, granted: Granted, table: Table
) -> None:
    drain()
    mark_reversed(qualified)
    drain()
    assert (table.reward.state, table.referral.state) == ("granted", "reversed")


def test_the_referrer_can_be_found_by_the_portals_own_means(
    qualified: Any, drain: Drain, granted: Granted, table: Table, configure: Callable[..., None]
) -> None:
    carol = create("carol@example.com")
    configure(RESOLVE_REFERRER=lambda referral, response: carol)
    drain()
    assert granted[0].referrer == carol
    assert table.referral.referrer == carol


def test_nobody_is_found_to_be_their_own_referrer(
    qualified: Any, drain: Drain, granted: Granted, table: Table, configure: Callable[..., None]
) -> None:
    configure(RESOLVE_REFERRER=lambda referral, response: qualified)
    drain()
    assert granted[0].referrer is None


def test_a_reward_is_due_even_if_the_referrer_is_unknown(
    qualified: Any, drain: Drain, granted: Granted, table: Table
) -> None:
    drain()
    assert granted[0].referrer is None
    assert table.reward.state == "granted"


def test_a_deadlock_while_granting_is_not_the_receivers_failure(qualified: Any, drain: Drain, table: Table) -> None:
    tries = iter([OperationalError("deadlock detected"), OperationalError("database is locked")])

    def unlucky(**kwargs: Any) -> None:
        for error in tries:
            raise error

    signals.referral_qualified.connect(unlucky)
    try:
        drain()
    finally:
        signals.referral_qualified.disconnect(unlucky)
    assert (table.reward.state, table.reward.attempts) == ("granted", 0)
