"""The reward: one grant or none, whatever becomes of its receiver and of those who call it."""

from __future__ import annotations

import pytest

from django_mmolove_referral import mark_reversed
from django_mmolove_referral.delivery.operate import redeliver
from django_mmolove_referral.models import OutboundEvent, Referral, Reward
from django_mmolove_referral.protocol import Kind
from tests.clock import let_pass

from .harness import Nursery, Witness, audit, counted, populate, size, wait_until, write
from .ledger import paid

pytestmark = pytest.mark.django_db(transaction=True)

PAY, GRANT = "tests.faults.ledger:pay", "django_mmolove_referral.delivery.rewards:_grant"


@pytest.fixture
def due(witness: Witness, nursery: Nursery) -> list[Referral]:
    """Rewards that have fallen due, with nobody there to grant them until now."""
    referrals = populate(witness, size(20, 500))
    write(referrals, Kind.QUALIFIED, state="waiting")
    assert nursery.start("once", receiver=False).wait() == 0
    let_pass(3700)
    assert Reward.objects.filter(state="due").count() == len(referrals)
    return referrals


@pytest.mark.parametrize(("at", "moment"), [(PAY, "in the receiver"), (GRANT, "after the commit")])
def test_21_killed_while_granting(
    at: str, moment: str, due: list[Referral], witness: Witness, nursery: Nursery
) -> None:
    kills = size(5, 100)
    for _ in range(kills):
        # The third one's: two are through, and all the others come after.
        child = nursery.start("once", hooks=[{"at": at, "act": "kill", "after": True, "call": 3}])
        assert child.wait() == -9
    before = sum(paid().values())
    assert before == kills * (2 if at == PAY else 3)
    assert nursery.start("once").wait() == 0
    result = audit(witness)
    assert (result.rewards, result.repeated) == (len(due), 0)
    counted("21", killed=moment, kills=kills, rewards=len(due), granted_once=result.rewards)


def test_21_raising(due: list[Referral], witness: Witness, nursery: Nursery) -> None:
    hooks = [{"at": PAY, "act": "raise", "after": True, "call": call} for call in range(1, 6)]
    assert nursery.start("once", hooks=hooks).wait() == 0
    assert Reward.objects.filter(state="due", attempts=1).count() == 5
    assert len(paid()) == len(due) - 5
    let_pass(100)
    assert nursery.start("once").wait() == 0
    result = audit(witness)
    assert (result.rewards, result.repeated) == (len(due), 0), "and nothing was sent again"
    counted("21", raised=5, rewards=len(due), granted_once=result.rewards, requests_repeated=result.repeated)


def test_21_five_at_once(due: list[Referral], witness: Witness, nursery: Nursery) -> None:
    five = [nursery.start("once") for _ in range(5)]
    assert [child.wait() for child in five] == [0] * 5
    result = audit(witness)
    assert result.rewards == len(due)
    counted("21", workers_at_once=5, rewards=len(due), granted_once=result.rewards)


def test_21_redelivered_by_force(due: list[Referral], witness: Witness, nursery: Nursery) -> None:
    assert nursery.start("once").wait() == 0
    for event in OutboundEvent.objects.filter(kind="qualified"):
        assert redeliver(event, force=True)
    assert nursery.start("once").wait() == 0
    result = audit(witness)
    assert (result.rewards, result.repeated) == (len(due), len(due))
    counted("21", redelivered_by_force=len(due), rewards=result.rewards)


def test_21_reversed_while_due(due: list[Referral], witness: Witness, nursery: Nursery) -> None:
    users = [referral.user for referral in due]
    workers = [nursery.start("once") for _ in range(2)]
    wait_until(paid, "the first grant")
    for user in reversed(users):
        mark_reversed(user)
    assert [child.wait() for child in workers] == [0] * 2
    assert nursery.start("once").wait() == 0
    audit(witness, paying=False)
    granted, cancelled = (Reward.objects.filter(state=state).count() for state in ("granted", "cancelled"))
    assert (granted + cancelled, sum(paid().values())) == (len(due), granted)
    assert {entry.key.partition("-")[0] for entry in witness.real()} == {"reg", "qual", "rev"}
    counted("21", reversed_while_due=len(due), granted_before=granted, cancelled=cancelled, both=0)
