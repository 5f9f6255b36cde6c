"""The transition table as a model: what is stored, and what each trigger makes of it.

Of time the model knows only whether something is due; the database says when that is so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from django_mmolove_referral import models
from django_mmolove_referral.clock import DatabaseNow
from django_mmolove_referral.conf import conf
from django_mmolove_referral.models import OutboundEvent

ENDED = ("conflict", "reversed", "expired")
FINAL = ("accepted", "rejected", "exhausted", "cancelled")
KINDS = ("registered", "qualified", "reversed")
PAYING = ("advanced", "duplicate")


@dataclass
class Event:
    state: str
    due: bool = True  # pending and due; an event with a claim is due when its lease has ended
    claim: UUID | None = None
    attempts: int = 0
    frozen: bool = False
    outcome: str = ""
    reason: str = ""

    @property
    def open(self) -> bool:
        return self.state in ("pending", "waiting")

    @property
    def in_hand(self) -> bool:
        return self.claim is not None and not self.due

    def send(self) -> None:
        self.state, self.due, self.reason = "pending", True, ""

    def end(self, state: str, *, outcome: str = "", reason: str = "") -> None:
        self.frozen = self.frozen or self.claim is not None
        self.state, self.due, self.claim = state, False, None
        self.outcome, self.reason = outcome or self.outcome, reason


@dataclass
class Referral:
    state: str = "captured"
    registered: bool = False  # MMOLove has accepted ``registered``
    forgotten: bool = False  # the account is deleted
    aged: bool = False  # older than a token lives
    reward: str = ""
    reward_due: bool = False
    events: dict[str, Event] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    # -- the verbs

    def may_mark(self, kind: str) -> bool:
        return kind not in self.events and not self.ended and not self.forgotten

    def mark(self, kind: str) -> None:
        if not self.may_mark(kind):
            return
        if kind == "reversed":
            qualified = self.events.get("qualified")
            if qualified and qualified.open and not qualified.frozen and not qualified.claim:
                qualified.end("cancelled", reason="reversed")
            self.state = "reversed"
            self.cancel_reward()
        free = self.may_leave(kind)
        self.events[kind] = Event("pending" if free else "waiting", due=free)

    def forget(self) -> None:
        self.forgotten = True
        for event in self.events.values():
            if event.open:
                event.end("cancelled", reason="deleted")

    # -- delivery

    def settle(self, kind: str, claim: UUID, ruling: str, outcome: str, *, counted: bool) -> None:
        event = self.events[kind]
        if event.claim != claim:
            if outcome == "ignored" and event.state != "accepted":
                event.outcome = "ignored"
            elif outcome == "ignored" and event.outcome == "duplicate" and self.reward != "granted":
                event.outcome = "ignored"
                self.conflict()
        else:
            if outcome == "duplicate" and event.outcome == "ignored":
                outcome = "ignored"  # this is what it hides
            event.claim, event.frozen = None, event.frozen or counted
            if ruling == "accepted":
                event.end("accepted", outcome=outcome)
                self.accepted(kind, outcome)
            elif ruling == "refused":
                event.end("rejected")
            elif ruling == "server_fault":
                event.due, event.attempts = True, event.attempts - 1
            elif event.attempts > len(conf.retry_schedule):
                event.end("exhausted")
            else:
                event.due = False
        self.promote()

    def accepted(self, kind: str, outcome: str) -> None:
        if outcome == "ignored":
            self.conflict()
        elif kind == "registered":
            self.registered = True
            self.state = "registered" if self.state == "captured" else self.state
        elif kind == "qualified" and outcome in PAYING and not self.ended:
            self.state = "qualified"
            if not self.reward:
                self.reward, self.reward_due = "due", True

    def conflict(self) -> None:
        self.cancel_waiting("conflict")
        self.cancel_reward()
        if not self.ended:
            self.state = "conflict"

    def sweep(self) -> None:
        self.promote()
        if self.aged and not self.registered and any(event.state == "waiting" for event in self.events.values()):
            self.cancel_waiting("expired")
            self.state = "expired" if self.state == "captured" else self.state

    # -- what an operator may do

    def may_cancel(self, kind: str) -> bool:
        event = self.events.get(kind)
        return event is not None and (event.open or event.state in ("rejected", "exhausted")) and not event.in_hand

    def cancel(self, kind: str) -> None:
        self.events[kind].end("cancelled", reason="operator")
        self.promote()

    def may_redeliver(self, kind: str) -> bool:
        """With force, if it is accepted."""
        event = self.events.get(kind)
        if event is None or self.forgotten:
            return False
        again = event.state in ("rejected", "exhausted") or event.reason == "operator"
        return event.state == "accepted" or (again and (kind == "reversed" or not self.ended))

    def redeliver(self, kind: str) -> None:
        event = self.events[kind]
        event.attempts = 0
        event.send()
        if not self.may_leave(kind):
            event.state, event.due = "waiting", False

    # -- what follows from what

    def may_leave(self, kind: str) -> bool:
        qualified = self.events.get("qualified")
        blocked = kind == "reversed" and qualified is not None and qualified.open
        return kind == "registered" or (self.registered and not blocked)

    def promote(self) -> None:
        free = [kind for kind, event in self.events.items() if event.state == "waiting" and self.may_leave(kind)]
        for kind in free:
            self.events[kind].send()

    def cancel_waiting(self, reason: str) -> None:
        for event in self.events.values():
            if event.state == "waiting":
                event.end("cancelled", reason=reason)

    def cancel_reward(self) -> None:
        if self.reward == "due":
            self.reward, self.reward_due = "cancelled", False


@dataclass
class Model:
    """Everything that is stored: referrals by key, and the health of the one server."""

    referrals: dict[int, Referral] = field(default_factory=dict)
    health: str = "open"
    probe_due: bool = False

    @property
    def events(self) -> Iterable[Event]:
        return (event for referral in self.referrals.values() for event in referral.events.values())

    def where(self, possible: Callable[[Referral, str], bool], *kinds: str) -> list[tuple[int, str]]:
        """Which events, by their referral and kind, that is possible for."""
        return [
            (pk, kind) for pk, referral in self.referrals.items() for kind in kinds or KINDS if possible(referral, kind)
        ]

    @property
    def due(self) -> int:
        return sum(event.due for event in self.events)

    @property
    def untidy(self) -> bool:
        """Whether there is anything for a sweep to look at, or a reward to be granted."""
        waiting = any(event.state == "waiting" for event in self.events)
        return waiting or any(referral.reward_due for referral in self.referrals.values())

    def claim(self, pk: int, kind: str, claim: UUID) -> None:
        event = self.referrals[pk].events[kind]
        assert event.state == "pending"
        assert event.due
        event.frozen = event.frozen or event.claim is not None
        event.claim, event.due, event.attempts = claim, False, event.attempts + 1

    def pause(self) -> None:
        self.health, self.probe_due = "paused", False

    def half_open(self) -> None:
        self.health, self.probe_due = "half_open", False

    def reopen(self) -> None:
        self.health, self.probe_due = "open", False
        for event in self.events:
            if event.state == "pending" and event.claim is None:
                event.due = True

    def let_pass(self, now: Model) -> None:
        """Take over from what is stored what has come due."""
        assert now.referrals.keys() == self.referrals.keys()
        for pk, referral in self.referrals.items():
            stored = now.referrals[pk]
            referral.aged, referral.reward_due = stored.aged, stored.reward_due
            for kind, event in referral.events.items():
                event.due = stored.events[kind].due
        self.probe_due = now.probe_due


def stored(events: Iterable[OutboundEvent]) -> Model:
    """What the tables hold. ``events``: all of them."""
    model = Model()
    now = timezone.now()  # the database's, unless there is nothing stored for which it could matter
    for row in models.Referral.objects.select_related("reward").annotate(now=DatabaseNow()):
        now = row.now  # type: ignore[attr-defined]  # annotated
        reward = getattr(row, "reward", None)
        model.referrals[row.pk] = Referral(
            state=row.state,
            registered=row.registered_at is not None,
            forgotten=not row.token,
            aged=row.created_at < now - timedelta(seconds=conf.token_max_age),
            reward=reward.state if reward else "",
            reward_due=reward is not None and reward.state == "due" and reward.due_at <= now,
        )
    for event in events:
        model.referrals[event.referral_id].events[event.kind] = Event(
            state=event.state,
            due=event.state == "pending" and event.due_at <= now,
            claim=event.claim,
            attempts=event.attempts,
            frozen=event.frozen,
            outcome=event.outcome,
            reason=event.reason,
        )
    for health in models.ServerHealth.objects.annotate(now=DatabaseNow()):
        model.health = health.state
        model.probe_due = health.probe_at is not None and health.probe_at <= health.now
    return model
