"""Any order of events whatever: the real functions on the real database, step by step against a simple model.

Each step is a trigger of the transition table: done to the model and to the package, then compared. Beside that stand
the promises, held against what was really sent, answered and granted. At the end MMOLove gets well and time passes:
then nothing may be left over. ``TEST_EXAMPLES`` says how many such walks there are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.db.models import Count
from django.test import TestCase, override_settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from django_mmolove_referral import attach_referral, mark_qualified, mark_registered, mark_reversed, signals
from django_mmolove_referral.conf import SETTING
from django_mmolove_referral.delivery import drain, health, lane, operate
from django_mmolove_referral.delivery.claim import Claimed, claim, probe_subject
from django_mmolove_referral.delivery.rewards import grant_due
from django_mmolove_referral.delivery.send import Channel, Ruling, Sent
from django_mmolove_referral.delivery.settle import settle
from django_mmolove_referral.delivery.sweep import sweep
from django_mmolove_referral.models import DeliveryAttempt, OutboundEvent, Reward
from django_mmolove_referral.protocol import SIGNATURE_HEADER, Credentials, Kind, Secret, Verdict, encode, sign
from django_mmolove_referral.sandbox.core import Sandbox
from django_mmolove_referral.sandbox.faults import Fault, only_dry_runs, only_real
from django_mmolove_referral.transport import Reply, Transport

from . import model
from .clock import let_pass
from .portal import create

SERVER, USING = "default", "default"
SERVER_ID, MISTYPED_ID, SECRET = "srv_test", "srv_tset", Secret("test-secret")
A_WHILE, A_LEASE, A_DAY, A_LIFETIME = 30, 121, 86_401, 90 * 86_400 + 1
"""Seconds: no lease ends in a while; a lease outlasts every wait of the schedule below."""
SCHEDULE = [10]
VERBS = {"registered": mark_registered, "qualified": mark_qualified, "reversed": mark_reversed}
ACCOUNTS = {
    "unconfirmed": [],  # ``registered`` is still to be written
    "fresh": [],
    "taken": [],  # another referrer was first
    "registered": ["registered"],
    "rewarded": ["registered", "qualified"],
}
"""With what each has sent when the steps begin."""
TROUBLES = ["blame", "die", "pause", "mistype", "delete", "grow_old", "insist"]

ANSWERS: dict[str, list[Fault]] = {
    "genuine": [],
    "advanced": [Fault(200, {"ok": True}, when=only_real)],
    "duplicate": [Fault(200, {"ok": True, "duplicate": True}, when=only_real)],
    "ignored": [Fault(200, {"ok": True, "ignored": "first_touch_conflict"}, when=only_real)],
    "another state": [Fault(200, {"ok": True, "state": "rejected"}, when=only_real)],
    "malformed": [Fault(400, {"error": "malformed"}, when=only_real)],
    "illegal": [Fault(422, {"error": "illegal_transition"}, when=only_real)],
    "unknown token": [Fault(404, {"error": "unknown_token"}, when=only_real)],
    "unknown server": [Fault(404, {"error": "unknown_server"})],  # undecided as long as no token is proven
    "bad signature": [Fault(401, {"error": "bad_signature"})],
    "refused in an outage": [Fault(401, {"error": "?"}, when=only_real), Fault(503, when=only_dry_runs)],
    "fault": [Fault(503)],
    "later": [Fault(429, headers={"Retry-After": "20"})],
    "a proxy's page": [Fault(200, b"<html>")],
    "dropped": [Fault(drop=True)],
    "lost": [Fault(502, processed=True)],
}

LIKELIER = ["genuine"] * 4 + ["duplicate", "ignored", "another state"]
ANSWER = st.sampled_from([*LIKELIER, *ANSWERS])
ANY = st.integers(0, 11)
"""Which of those that are there."""

Item = TypeVar("Item")

_numbers = count(1)


class Wire(Transport):
    """Leads into the sandbox without a socket. What may have counted must never be told in another way."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(deadline=1)
        self.sandbox = sandbox
        self.may_have_counted: dict[tuple[str, str], bytes] = {}

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        response = self.sandbox.ingest(body, headers[SIGNATURE_HEADER])
        dropped = response.fault is not None and response.fault.drop
        fields = json.loads(body)
        if not fields.get("test"):
            event = fields["token"], fields["event"]
            assert self.may_have_counted.get(event, body) == body
            if dropped or response.status in (200, 429) or response.status >= 500:
                self.may_have_counted[event] = body
        if dropped:
            return Reply(0, {}, b"", "the connection was closed", time.time(), 0.0)
        return Reply(response.status, response.headers, response.body, "", time.time(), 0.0)


class Delivery(RuleBasedStateMachine):
    """Accounts, workers that may die, an operator who may do anything, and a MMOLove that may answer anything."""

    def __init__(self) -> None:
        super().__init__()
        self.transaction = TestCase._enter_atomics()  # type: ignore[attr-defined]  # rolled back by teardown
        self.model = model.Model()
        self.wire = Wire(Sandbox({SERVER_ID: "test-secret", MISTYPED_ID: "test-secret"}))
        self.server_id = SERVER_ID
        self.users: dict[int, Any] = {}  # by their referral's key
        self.hands: list[Claimed] = []  # claimed, not sent
        self.results: list[Sent] = []  # sent, not settled
        signals.referral_qualified.connect(self.receive)
        self.receiver_fails = False
        # What has really happened.
        self.granted: list[tuple[int, bool]] = []  # whether an answer pays
        self.accepted: set[tuple[int, str]] = set()
        self.paying: set[tuple[int, str]] = set()
        self.ignored: set[tuple[int, str]] = set()
        self.attempts: Counter[int] = Counter()
        # The events before this step, those in somebody's hands, and what the step itself may touch.
        self.before: dict[int, OutboundEvent] = {}
        self.held: dict[int, tuple[object, ...]] = {}
        self.freed: set[int] = set()
        self.redelivered: set[int] = set()
        self.troubles: list[str] = []
        self.answer = "genuine"

    def receive(self, event: OutboundEvent, **kwargs: Any) -> None:
        if self.receiver_fails:
            raise RuntimeError("the economy is closed")
        self.granted.append((event.referral_id, (event.referral_id, "qualified") in self.paying))

    @initialize(
        accounts=st.lists(st.sampled_from(sorted(ACCOUNTS)), min_size=1, max_size=3),
        troubles=st.sets(st.sampled_from(TROUBLES)),
    )
    def begin(self, accounts: list[str], troubles: set[str]) -> None:
        """``troubles``: those that may come."""
        self.troubles = sorted(troubles)
        for account in accounts:
            self.sign_up(account)
            for verb in ACCOUNTS[account]:
                self.mark(max(self.users), verb)
                self.work(0)

    @rule(name=st.runner().flatmap(lambda self: st.sampled_from(self.possible())), which=ANY, answer=ANSWER)
    def step(self, name: str, which: int, answer: str) -> None:
        self.answer = answer
        getattr(self, name)(which)

    def possible(self) -> list[str]:
        """The steps that can be taken, the likelier ones several times."""
        going = self.model.health == "open" and self.model.due
        weights = {
            "confirm": 2 * bool(self.model.where(model.Referral.may_mark, "registered")),
            "qualify": 6 * bool(self.model.where(model.Referral.may_mark, "qualified")),
            "reverse": 2 * bool(self.model.where(model.Referral.may_mark, "reversed")),
            "work": 8 * bool(going),
            "claim": 4 * bool(going),
            "send": 6 * bool(self.hands),
            "settle": 6 * bool(self.results),
            "tidy": 4 * self.model.untidy,
            "probe": 4 * (self.model.health != "open"),
            "judge": 4 * (self.model.health != "open"),
            "cancel": 2 * bool(self.model.where(model.Referral.may_cancel)),
            "redeliver": 2 * bool(self.model.where(model.Referral.may_redeliver)),
            "let_pass": 4,
            **dict.fromkeys(self.troubles, 1),
        }
        return [name for name, weight in weights.items() for _ in range(weight)]

    # -- the portal

    def sign_up(self, account: str) -> None:
        sandbox = self.wire.sandbox
        user = create(f"player{next(_numbers)}@example.com")
        if account == "taken":  # by another referrer
            rival = encode(
                Kind.REGISTERED,
                token=sandbox.mint(SERVER_ID, "mallory"),
                server_id=SERVER_ID,
                server_event_id="reg-0",
                ts=0,
                referee_identity=str(user.pk),
            )
            assert sandbox.ingest(rival, sign(SECRET, rival, int(time.time()))).status == 200
        with configured(AUTO_REGISTER=account != "unconfirmed"):
            referral = attach_referral(user, sandbox.mint(SERVER_ID, "alice"))
        self.users[referral.pk] = user
        self.model.referrals[referral.pk] = model.Referral()
        if account != "unconfirmed":
            self.model.referrals[referral.pk].mark("registered")

    def confirm(self, which: int) -> None:
        self.mark(*nth(self.model.where(model.Referral.may_mark, "registered"), which))

    def qualify(self, which: int) -> None:
        self.mark(*nth(self.model.where(model.Referral.may_mark, "qualified"), which))

    def reverse(self, which: int) -> None:
        self.mark(*nth(self.model.where(model.Referral.may_mark, "reversed"), which))

    def mark(self, pk: int, verb: str) -> None:
        event = VERBS[verb](self.users[pk])
        self.model.referrals[pk].mark(verb)
        assert (event is not None) == (self.users[pk].pk is not None and verb in self.model.referrals[pk].events)

    # -- the workers

    def claim(self, which: int) -> None:
        self.take(1 + which)

    def take(self, limit: int) -> None:
        claimed = claim(SERVER, self.server_id, limit, using=USING)
        assert len(claimed) == min(limit, self.model.due)
        for event in claimed:
            assert event.kind is Kind.REGISTERED or (event.referral_id, "registered") in self.accepted
            self.model.claim(event.referral_id, event.kind.value, event.claim)
        self.hands += claimed

    def send(self, which: int) -> None:
        for fault in ANSWERS[self.answer]:
            self.wire.sandbox.script(fault, times=None)
        event = self.hands.pop(which % len(self.hands))
        credentials, subject = Credentials(self.server_id, SECRET), probe_subject(SERVER, using=USING)
        self.results.append(Channel(SERVER).carry(self.wire, credentials, event, subject, 0))
        self.wire.sandbox.clear_faults()

    def settle(self, which: int) -> None:
        """One result, or all that there are."""
        first = which % len(self.results)
        chosen = slice(first, first + 1) if which % 2 else slice(None)
        batch, self.results[chosen] = self.results[chosen], []
        for sent in batch:
            self.expect(sent)
        settle(batch, using=USING)

    def expect(self, sent: Sent) -> None:
        pk, kind = sent.event.referral_id, sent.event.kind.value
        referral, event = self.model.referrals[pk], self.model.referrals[pk].events[kind]
        outcome = sent.last.answer.outcome.value if sent.last.answer.outcome else ""
        if event.claim == sent.event.claim:
            self.freed.add(sent.event.pk)
            if sent.ruling is Ruling.ACCEPTED:
                self.hear(pk, kind, outcome)
        elif outcome == "ignored" and (event.state != "accepted" or event.outcome == "duplicate"):
            self.hear(pk, kind, outcome)
        self.attempts[sent.event.pk] += len(sent.attempts)
        counted = any(one.answer.verdict in (Verdict.ACCEPTED, Verdict.FAULT) for one in sent.attempts)
        referral.settle(kind, sent.event.claim, sent.ruling.value, outcome, counted=counted)

    def hear(self, pk: int, kind: str, outcome: str) -> None:
        """What MMOLove says of an event. A duplicate says again what it said before."""
        if outcome == "ignored" or (outcome == "duplicate" and (pk, kind) in self.ignored):
            self.ignored.add((pk, kind))
            self.paying.discard((pk, kind))
        else:
            self.ignored.discard((pk, kind))
            self.accepted.add((pk, kind))
            if outcome in model.PAYING:
                self.paying.add((pk, kind))

    def work(self, which: int) -> None:
        """A worker that lives to see the end of what it began."""
        self.take(1)
        self.send(-1)
        self.settle(-1)

    def tidy(self, which: int) -> None:
        sweep(using=USING)
        for referral in self.model.referrals.values():
            referral.sweep()
        self.receiver_fails = which % 2 == 1
        grant_due(using=USING)
        for referral in self.model.referrals.values():
            if referral.reward_due:
                referral.reward_due = False
                referral.reward = "due" if self.receiver_fails else "granted"

    # -- the server's health

    def probe(self, which: int) -> None:
        assert health.take_probe(SERVER, using=USING) == self.model.probe_due
        if self.model.probe_due:
            self.model.pause()
            if which % 2 == 0:
                assert health.half_open(SERVER, using=USING)
                self.model.half_open()
                self.take(1)
            else:
                health.probe_failed(SERVER, "HTTP 503", using=USING)

    def judge(self, which: int) -> None:
        """The canary is back, or an earlier verdict comes late."""
        if which % 2 == 0:
            health.reopen(SERVER, using=USING)
            self.model.reopen()
        else:
            health.probe_failed(SERVER, "HTTP 503", using=USING)
            self.model.pause()

    # -- the operator, and time

    def cancel(self, which: int) -> None:
        pk, kind = nth(self.model.where(model.Referral.may_cancel), which)
        assert operate.cancel(self.event(pk, kind))
        self.model.referrals[pk].cancel(kind)

    def redeliver(self, which: int) -> None:
        pk, kind = nth(self.model.where(model.Referral.may_redeliver), which)
        event = self.event(pk, kind)
        self.redelivered.add(event.pk)
        force = event.state == "accepted"
        assert operate.redeliver(event, force=force)
        self.model.referrals[pk].redeliver(kind)

    def event(self, pk: int, kind: str) -> OutboundEvent:
        return next(event for event in self.before.values() if (event.referral_id, event.kind) == (pk, kind))

    def let_pass(self, which: int) -> None:
        self.age(A_WHILE if which % 3 == 0 else A_LEASE)

    def age(self, seconds: int) -> None:
        let_pass(seconds)
        self.model.let_pass(model.stored(OutboundEvent.objects.all()))
        self.freed.update(self.before)

    # -- trouble

    def die(self, which: int) -> None:
        """A worker ends before it has sent, or before it has written down what MMOLove knows by now."""
        lost = self.hands or self.results
        if lost:
            del lost[which % len(lost)]

    def blame(self, which: int) -> None:
        """The server for a fault, as is done while it pauses."""
        for position, sent in enumerate(self.results):
            if sent.ruling is Ruling.FAULT:
                self.results[position] = replace(sent, ruling=Ruling.SERVER_FAULT)

    def pause(self, which: int) -> None:
        wait = 3600.0 if which % 2 else None
        health.pause(SERVER, "no answer", using=USING, wait=wait)
        if self.model.health == "open" or (self.model.health == "paused" and wait):
            self.model.pause()

    def mistype(self, which: int) -> None:
        """The server id, or correct it."""
        self.server_id = MISTYPED_ID if self.server_id == SERVER_ID else SERVER_ID

    def delete(self, which: int) -> None:
        """An account."""
        pk, user = nth(self.users.items(), which)
        if user.pk is not None:
            user.delete()
            self.model.referrals[pk].forget()
            self.freed.update(event.pk for event in self.before.values() if event.referral_id == pk)

    def grow_old(self, which: int) -> None:
        self.age(A_LIFETIME)

    def insist(self, which: int) -> None:
        """On what cannot be."""
        for pk, kind in self.model.where(lambda referral, kind: kind in referral.events):
            if not self.model.referrals[pk].may_cancel(kind):
                assert not operate.cancel(self.event(pk, kind))
            if not self.model.referrals[pk].may_redeliver(kind):
                assert not operate.redeliver(self.event(pk, kind), force=True)
            elif self.event(pk, kind).state == "accepted":
                assert not operate.redeliver(self.event(pk, kind))
            self.mark(pk, kind)

    # -- what holds at any time

    @invariant()
    def holds(self) -> None:
        events = {event.pk: event for event in OutboundEvent.objects.all()}
        now = model.stored(events.values())
        assert now == self.model
        self.nothing_is_lost(events)
        for pk, before in self.before.items():
            self.final_is_final(before, events[pk])
        for pk in self.held.keys() - self.freed:
            assert in_hand(events[pk]) == self.held[pk]
        for event in events.values():
            self.has_a_way_forward(event, now.referrals[event.referral_id])
        for pk, referral in now.referrals.items():
            self.pays_once(pk, referral)
        self.before, self.freed, self.redelivered = events, set(), set()
        self.held = {
            pk: in_hand(event)
            for pk, event in events.items()
            if now.referrals[event.referral_id].events[event.kind].in_hand
        }

    def nothing_is_lost(self, events: dict[int, OutboundEvent]) -> None:
        assert self.before.keys() <= events.keys()
        assert len({(event.referral_id, event.kind) for event in events.values()}) == len(events)
        attempts = DeliveryAttempt.objects.values_list("event").annotate(Count("pk"))
        assert dict(attempts) == self.attempts  # one row for each that was settled, late or not

    def final_is_final(self, before: OutboundEvent, event: OutboundEvent) -> None:
        if before.state in model.FINAL and event.pk not in self.redelivered:
            failed = before.state in ("rejected", "exhausted")  # which an operator may give up
            assert event.state == before.state or (failed and event.reason == "operator")
            hidden = before.outcome == "duplicate" or before.state != "accepted"
            assert event.outcome == before.outcome or (hidden and event.outcome == "ignored")

    def has_a_way_forward(self, event: OutboundEvent, referral: model.Referral) -> None:
        assert bool(event.body) != referral.forgotten
        assert event.state in ("pending", "waiting", *model.FINAL)
        if event.state != "pending":
            assert event.claim is None
        if event.state in ("pending", "waiting"):
            assert not referral.forgotten
        if event.state == "waiting":
            qualified = referral.events.get("qualified")
            blocked = event.kind == "reversed" and qualified is not None and qualified.open
            assert blocked or (event.referral_id, "registered") not in self.accepted
            assert referral.state not in ("conflict", "expired")

    def pays_once(self, pk: int, referral: model.Referral) -> None:
        assert self.granted.count((pk, True)) == (referral.reward == "granted")
        assert (pk, False) not in self.granted
        assert not (referral.ended and referral.reward == "due")

    # -- the end

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.get_well()
        finally:
            signals.referral_qualified.disconnect(self.receive)
            TestCase._rollback_atomics(self.transaction)  # type: ignore[attr-defined]

    def get_well(self) -> None:
        """MMOLove answers as it should, people do what they can, time passes: nothing is left over."""
        self.server_id, self.receiver_fails = SERVER_ID, False
        self.work_after(A_DAY)
        for event in OutboundEvent.objects.filter(state="waiting").exclude(referral__state="reversed"):
            missing = OutboundEvent.objects.filter(referral=event.referral_id, kind="registered").first()
            assert operate.redeliver(missing) if missing else mark_registered(self.users[event.referral_id])
        self.work_after(A_DAY)
        self.work_after(A_LIFETIME)
        assert not OutboundEvent.objects.filter(state="waiting").exists()

    def work_after(self, seconds: int) -> None:
        let_pass(seconds)
        lane.forget()  # another process
        with mock.patch.object(drain, "transport", return_value=self.wire):
            drain.Drain().run()
        assert not OutboundEvent.objects.filter(state="pending").exists()
        assert not Reward.objects.filter(state="due").exists()


def configured(**keys: Any) -> override_settings:
    return override_settings(**{SETTING: {**getattr(django_settings, SETTING), **keys}})


def nth(items: Collection[Item], which: int) -> Item:
    return list(items)[which % len(items)]


def in_hand(event: OutboundEvent) -> tuple[object, ...]:
    return event.state, event.claim, event.due_at, event.attempts, bytes(event.body)


@pytest.mark.django_db
def test_nothing_is_lost_and_nothing_is_paid_twice(configure: Callable[..., None]) -> None:
    configure(RETRY_SCHEDULE=SCHEDULE)
    run_state_machine_as_test(
        Delivery,
        settings=settings(
            max_examples=int(os.environ.get("TEST_EXAMPLES", "100")),
            stateful_step_count=50,
            deadline=None,
            derandomize="CI" in os.environ,
            print_blob=True,
        ),
    )
