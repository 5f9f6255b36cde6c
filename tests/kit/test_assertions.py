"""What the kit's assertions say when they fail, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.test import Client

from django_mmolove_referral import attach_referral, mark_qualified, mark_registered, mark_reversed
from django_mmolove_referral.models import Referral
from django_mmolove_referral.testing import MMOLove
from tests.conftest import Granted
from tests.portal import create


@contextmanager
def says(message: str) -> Iterator[None]:
    """The block fails a test with ``message``, in which ``#`` stands for a key or a number of seconds."""
    with pytest.raises(AssertionError) as failure:
        yield
    assert re.sub(r"\b(reg-|rev-|qual-|later\()[\w-]+", r"\1#", str(failure.value)) == dedent(message).strip()


def account(name: str) -> Any:
    return get_user_model()._default_manager.get(**{get_user_model().USERNAME_FIELD: name})


@pytest.fixture
def bob(mmolove: MMOLove) -> Any:
    user = create("bob@example.com")
    attach_referral(user, mmolove.mint())
    return user


@pytest.fixture
def alice(db: None) -> Any:
    return create("alice@example.com")


# No referral


def test_nobody_came_with_a_token(mmolove: MMOLove, client: Client) -> None:
    bob = create("bob@example.com")
    with says(
        """
        bob@example.com should be referred, and is not.
          here:    no referral
          next:    No token was minted in this test. Let the visitor come with one: visit(client, …), then the sign-up.
        """
    ):
        mmolove.assert_captured(bob)


def test_the_test_made_the_account_by_itself(mmolove: MMOLove, client: Client) -> None:
    mmolove.visit(client, "/page/")
    bob = create("bob@example.com")
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    no referral
          next:    A sign-up is referred if the same client came with a token before, nobody was logged in, and that """
        """client's request created the account. For one that the test created: attach_referral(user, mmolove.mint()).
        """
    ):
        mmolove.assert_registered(bob)


def test_the_middleware_is_missing(mmolove: MMOLove, client: Client, settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "mmolove" not in name]
    mmolove.visit(client, "/page/")
    client.post("/register/", {"name": "bob@example.com"})
    with says(
        """
        bob@example.com should be qualified at MMOLove, and is not.
          here:    no referral
          next:    The referral middleware is not installed: no visit is captured, no sign-up is attributed. Add """
        """'django_mmolove_referral.middleware.ReferralMiddleware' to MIDDLEWARE, after """
        """'django.contrib.sessions.middleware.SessionMiddleware'.
        """
    ):
        mmolove.assert_qualified(account("bob@example.com"))


def test_trouble_that_was_kept_from_the_visitor_is_told(mmolove: MMOLove, client: Client) -> None:
    def resolve(request: Any) -> str:
        raise LookupError("no such host")

    mmolove.visit(client, "/page/")
    session = client.session
    session["mmolove_referral"] = {**session["mmolove_referral"], "server": ""}
    session.save()
    mmolove.configure(RESOLVE_SERVER=resolve)
    client.post("/register/", {"name": "bob@example.com"})
    with says(
        """
        bob@example.com should be referred, and is not.
          here:    no referral
          logged:  A referral could not be attached; it will be at the account's next login. (LookupError: no such host)
          next:    A sign-up is referred if the same client came with a token before, nobody was logged in, and that """
        """client's request created the account. For one that the test created: attach_referral(user, mmolove.mint()).
        """
    ):
        mmolove.assert_captured(account("bob@example.com"))


# Registered


def test_nothing_was_delivered(mmolove: MMOLove, bob: Any) -> None:
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    referral on 'default', captured, by an unknown referrer
                   registered (reg-#): pending
          MMOLove: no event of this referral's
          next:    It has not been delivered. Call deliver() before the assertion.
        """
    ):
        mmolove.assert_registered(bob)


def test_registration_comes_later(mmolove: MMOLove, alice: Any) -> None:
    mmolove.configure(AUTO_REGISTER=False)
    bob = create("bob@example.com")
    attach_referral(bob, mmolove.mint(), code=str(alice.pk))
    mmolove.deliver()
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    referral on 'default', captured, by alice@example.com
          MMOLove: no event of this referral's
          next:    AUTO_REGISTER is off: the portal calls mark_registered(user), and has not done so.
        """
    ):
        mmolove.assert_registered(bob)
    mark_registered(bob)
    mmolove.deliver()
    mmolove.assert_registered(bob)


def test_mmolove_had_a_fault(mmolove: MMOLove, bob: Any) -> None:
    mmolove.answer(503)
    mmolove.deliver()
    mark_qualified(bob)
    with says(
        """
        bob@example.com should be qualified at MMOLove, and is not.
          here:    referral on 'default', captured, by an unknown referrer
                   registered (reg-#): pending, 1 attempt, HTTP 503: scripted 503
                   qualified (qual-#): waiting
          MMOLove: registered (reg-#): 503, fault: HTTP 503
          next:    MMOLove, or a proxy before it, has a fault: HTTP 503: scripted 503. It is tried again: call """
        """later(#), then deliver().
        """
    ):
        mmolove.assert_qualified(bob)


def test_the_server_is_paused(mmolove: MMOLove, bob: Any) -> None:
    mmolove.configure(PAUSE_AFTER=1)
    mmolove.outage()
    mmolove.deliver()
    with pytest.raises(AssertionError) as failure:
        mmolove.assert_registered(bob)
    lines = str(failure.value).splitlines()
    assert lines[4] == "  logged:  Delivery to MMOLove server 'default' pauses: HTTP 503 with an HTML page"
    assert lines[5].startswith("  next:    Delivery has been paused (since ")
    assert lines[5].endswith("has a fault: HTTP 503 with an HTML page. Then recover(), later(3600) and deliver().")
    mmolove.recover()
    mmolove.later(3600)
    mmolove.deliver()
    mmolove.assert_registered(bob)


def test_the_event_was_refused(mmolove: MMOLove, bob: Any) -> None:
    mmolove.answer(422, error="expired")
    mmolove.deliver()
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    referral on 'default', captured, by an unknown referrer
                   registered (reg-#): rejected, 1 attempt, HTTP 422: expired
          MMOLove: registered (reg-#): 422, fault: HTTP 422
          logged:  registered reg-# is rejected: HTTP 422: expired
          next:    MMOLove does not allow this step in the referral's state: HTTP 422: expired. Look the referral up """
        """in the MMOLove dashboard: it may be reversed, expired or rejected there. Then redeliver this event.
        """
    ):
        mmolove.assert_registered(bob)


def test_the_token_is_not_this_mmoloves(mmolove: MMOLove) -> None:
    bob = create("bob@example.com")
    attach_referral(bob, "made-up-by-the-test")
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    referral on 'default', captured, by an unknown referrer
                   registered (reg-#): pending
          MMOLove: no event of this referral's
          next:    MMOLove does not know this token: it is none that mint() made. The rows of factories are unknown """
        """to it; for what is delivered use attach_referral(user, mmolove.mint()).
        """
    ):
        mmolove.assert_registered(bob)


# Qualified, rewarded


@pytest.fixture
def registered(mmolove: MMOLove, bob: Any) -> Any:
    mmolove.deliver()
    mmolove.assert_registered(bob)
    return bob


def test_nobody_marked_the_milestone(mmolove: MMOLove, registered: Any) -> None:
    with says(
        """
        bob@example.com should be qualified at MMOLove, and is not.
          here:    referral on 'default', registered, by an unknown referrer
                   registered (reg-#): accepted, 1 attempt, advanced
          MMOLove: registered (reg-#): 200, state registered
          next:    The portal calls mark_qualified(user), and has not done so for this account.
        """
    ):
        mmolove.assert_qualified(registered)


def test_the_milestone_waits_for_the_commit(mmolove: MMOLove, registered: Any) -> None:
    transaction.on_commit(lambda: mark_qualified(registered) and None)
    with pytest.raises(AssertionError, match=r"Work that waits for the commit has not run: deliver\(\) runs it\.$"):
        mmolove.assert_qualified(registered)
    mmolove.deliver()
    mmolove.assert_qualified(registered)


def test_the_milestone_was_not_delivered(mmolove: MMOLove, registered: Any) -> None:
    mark_qualified(registered)
    with pytest.raises(AssertionError, match=r"It has not been delivered\. Call deliver\(\) before the assertion\.$"):
        mmolove.assert_rewarded(registered)


def test_the_referral_is_at_its_end(mmolove: MMOLove, registered: Any) -> None:
    mark_reversed(registered)
    with says(
        """
        bob@example.com should be registered at MMOLove, and is not.
          here:    referral on 'default', reversed, by an unknown referrer
                   registered (reg-#): accepted, 1 attempt, advanced
                   reversed (rev-#): pending
          MMOLove: registered (reg-#): 200, state registered
          next:    The portal took the referral back (mark_reversed).
        """
    ):
        mmolove.assert_registered(registered)


@pytest.fixture
def qualified(mmolove: MMOLove, registered: Any) -> Any:
    mark_qualified(registered)
    return registered


def test_the_receiver_failed(mmolove: MMOLove, qualified: Any, granted: Granted) -> None:
    granted.fail = LookupError("no purse")
    mmolove.deliver()
    with says(
        """
        The reward for bob@example.com should be granted, and is not.
          here:    referral on 'default', qualified, by an unknown referrer
                   registered (reg-#): accepted, 1 attempt, advanced
                   qualified (qual-#): accepted, 1 attempt, advanced
                   reward: due, LookupError: no purse
          MMOLove: registered (reg-#): 200, state registered
                   qualified (qual-#): 200, state qualified
          logged:  A receiver of referral_qualified raised; the reward stays due. (LookupError: no purse)
          next:    It could not be granted: LookupError: no purse. Mend the receiver of referral_qualified.
        """
    ):
        mmolove.assert_rewarded(qualified)


def test_no_receiver_is_connected(mmolove: MMOLove, qualified: Any) -> None:
    mmolove.deliver()
    said = (
        r"No receiver is connected to django_mmolove_referral\.signals\.referral_qualified: connect one in ready\(\)\."
    )
    with pytest.raises(AssertionError, match=said):
        mmolove.assert_rewarded(qualified)


def test_the_reward_is_due(mmolove: MMOLove, qualified: Any, granted: Granted) -> None:
    mmolove.deliver()
    reward = mmolove.assert_rewarded(qualified).reward
    reward.state, reward.granted_at = "due", None
    reward.save()
    with pytest.raises(AssertionError, match=r"The reward is due\. Call deliver\(\): it grants rewards, too\.$"):
        mmolove.assert_rewarded(qualified)
    mmolove.deliver()
    mmolove.assert_rewarded(qualified)


def test_the_qualified_was_accepted_in_another_state(mmolove: MMOLove, qualified: Any) -> None:
    mmolove.deliver()
    Referral.objects.get().events.filter(kind="qualified").update(outcome="other_state", response={"state": "clicked"})
    Referral.objects.get().reward.delete()
    Referral.objects.update(state="registered")
    said = r"in the state “clicked” there\. There is no reward\.$"
    with pytest.raises(AssertionError, match=said):
        mmolove.assert_qualified(qualified)


# Conflict, reversed


def test_no_other_referrer_was_first(mmolove: MMOLove, registered: Any) -> None:
    said = r"MMOLove takes it for this referrer's\. Call already_referred\(user\) before deliver\(\)\.$"
    with pytest.raises(AssertionError, match=said):
        mmolove.assert_conflict(registered)


def test_a_conflict_is_no_registration(mmolove: MMOLove, bob: Any) -> None:
    mmolove.already_referred(bob)
    mmolove.deliver()
    mmolove.assert_conflict(bob)
    with says(
        """
        bob@example.com should be qualified at MMOLove, and is not.
          here:    referral on 'default', conflict, by an unknown referrer
                   registered (reg-#): accepted, 1 attempt, ignored
          MMOLove: registered (reg-#): 200, ignored first_touch_conflict
          next:    Another referrer already holds this account at MMOLove (first touch). There is no reward.
        """
    ):
        mmolove.assert_qualified(bob)


def test_taken_back_is_what_mmolove_was_told(mmolove: MMOLove, registered: Any) -> None:
    with pytest.raises(AssertionError, match=r"The portal calls mark_reversed\(user\), and has not done so"):
        mmolove.assert_reversed(registered)
    mark_reversed(registered)
    with pytest.raises(AssertionError, match=r"(?s)should be taken back, and is not.*Call deliver\(\) before"):
        mmolove.assert_reversed(registered)
    mmolove.deliver()
    assert mmolove.assert_reversed(registered).state == "reversed"


# Nothing


def test_somebody_is_referred_who_should_not_be(mmolove: MMOLove, bob: Any) -> None:
    with says(
        """
        bob@example.com should have no referral, and has one.
          here:    referral on 'default', captured, by an unknown referrer
                   registered (reg-#): pending
          MMOLove: no event of this referral's
        """
    ):
        mmolove.assert_not_referred(bob)
    mmolove.assert_not_referred(create("carol@example.com"))


def test_something_was_sent(mmolove: MMOLove, bob: Any) -> None:
    mmolove.drop()
    mmolove.deliver()
    with says(
        """
        Nothing should have been sent, and this reached MMOLove:
          registered (reg-#): no answer, fault: connection dropped
        """
    ):
        mmolove.assert_nothing_sent()


def test_nothing_was_sent_as_nothing_was_delivered(mmolove: MMOLove, bob: Any) -> None:
    with says("Nothing was sent so far, but this waits to be: registered (reg-#). deliver() would send it."):
        mmolove.assert_nothing_sent()


def test_a_dry_run_and_other_peoples_referrals_are_nothing(mmolove: MMOLove) -> None:
    mmolove.already_referred(create("bob@example.com"))
    mmolove.assert_nothing_sent()


def test_a_failure_points_at_the_tests_own_line(mmolove: MMOLove, bob: Any) -> None:
    with pytest.raises(AssertionError) as failure:
        mmolove.assert_registered(bob)
    shown = failure.traceback.filter(failure)
    assert [Path(entry.path).name for entry in shown] == ["test_assertions.py"]
