"""Assertions about an account's referral; each failure says what is there instead, and what to do next."""

from __future__ import annotations

from typing import Any

from ..models import OutboundEvent, Referral
from .evidence import Evidence
from .explain import explain, line_of
from .found import Found, Step

__unittest = True  # unittest shows no frames of this module


class Assertions(Evidence):
    """``user`` is always the referred account; ``server`` is needed only for one with referrals on several servers.

    All but :meth:`assert_nothing_sent` and :meth:`assert_not_referred` return the referral.
    """

    def assert_captured(self, user: Any, *, server: str | None = None) -> Referral:
        """The account has a referral, however far it got."""
        __tracebackhide__ = True
        return self._assert(Step.CAPTURED, user, server)

    def assert_registered(self, user: Any, *, server: str | None = None) -> Referral:
        """MMOLove accepted ``registered``, and the referral stands."""
        __tracebackhide__ = True
        return self._assert(Step.REGISTERED, user, server)

    def assert_qualified(self, user: Any, *, server: str | None = None) -> Referral:
        """MMOLove accepted ``qualified``, and the referral stands."""
        __tracebackhide__ = True
        return self._assert(Step.QUALIFIED, user, server)

    def assert_rewarded(self, user: Any, *, server: str | None = None) -> Referral:
        """A receiver of ``referral_qualified`` granted the reward for this account."""
        __tracebackhide__ = True
        return self._assert(Step.REWARDED, user, server)

    def assert_conflict(self, user: Any, *, server: str | None = None) -> Referral:
        """MMOLove said that another referrer holds this account."""
        __tracebackhide__ = True
        return self._assert(Step.CONFLICT, user, server)

    def assert_reversed(self, user: Any, *, server: str | None = None) -> Referral:
        """The portal took the referral back, and MMOLove accepted that."""
        __tracebackhide__ = True
        return self._assert(Step.REVERSED, user, server)

    def assert_not_referred(self, user: Any, *, server: str | None = None) -> None:
        """The account has no referral."""
        __tracebackhide__ = True
        found = Found.of(user, server)
        if found.referral is not None:
            raise AssertionError(explain(f"{found.name} should have no referral, and has one.", found, None, self))

    def assert_nothing_sent(self) -> None:
        """No event reached MMOLove in this test, and none is due that :meth:`deliver` would send."""
        __tracebackhide__ = True
        sent = self.sent
        if sent:
            lines = "".join(f"\n  {line_of(entry)}" for entry in sent)
            raise AssertionError(f"Nothing should have been sent, and this reached MMOLove:{lines}")
        due = OutboundEvent.objects.filter(state=OutboundEvent.State.PENDING).order_by("pk")
        if due:
            names = ", ".join(f"{event.kind} ({event.server_event_id})" for event in due)
            raise AssertionError(f"Nothing was sent so far, but this waits to be: {names}. deliver() would send it.")

    def _assert(self, step: Step, user: Any, server: str | None) -> Referral:
        __tracebackhide__ = True
        found = Found.of(user, server)
        if found.referral is None or not found.has(step):
            raise AssertionError(explain(f"{step.claim.format(found.name)}, and is not.", found, step, self))
        return found.referral
